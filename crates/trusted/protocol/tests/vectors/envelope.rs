//! Requests, responses and refusals in envelopes: `envelope.json`.
//!
//! Beside the bytes of each message stand the values on the way to them (protected header, binding, message key,
//! plaintext), so that another implementation that differs can see where. The binding is encoded here a second time, by
//! hand, and proved right by opening the message with it.

use std::sync::OnceLock;

use minicbor::Encoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use sesemi_protocol::cose::encrypt0;
use sesemi_protocol::envelope::{
    Answer, EnvelopeError, OpenedRequest, RequestContent, Route, SealedRequest, parse_request,
    seal_request,
};
use sesemi_protocol::kdf::derive;
use sesemi_protocol::release::NamedScope;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{Digest, SecretKey, VersionSelector};

use crate::envelope_refused;
use crate::support::{
    Fixed, assert_remade, bytes, counting, list, named, parsed, text, vectors, with,
};
use crate::values::{
    fp32, key_id, model_text, owner_seed, refusal, report, route, secret, some_point, start,
    state_at, state_point, tensors, user_seed,
};

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("envelope.json", || {
            let requests: Vec<Value> = request_recipes().iter().map(fill_request).collect();
            let requests = Value::Array(requests);
            let responses: Vec<Value> = response_recipes()
                .iter()
                .map(|case| fill_response(&requests, case))
                .collect();
            let responses = Value::Array(responses);
            json!({
                "about": "Sealed requests and responses: spec/envelope.md. 'refused_as' is the first check that fails.",
                "refused": envelope_refused::recipes(&requests, &responses),
                "requests": requests,
                "responses": responses,
            })
        })
    })
}

fn request_recipes() -> Vec<Value> {
    let base = |name: &str, first: u8| {
        json!({
            "name": name,
            "request_key": counting(0x60, 32),
            "route": {
                "user": key_id(&user_seed()),
                "model": model_text(1),
                "request": counting(first, 16),
                "key": { "scope": "model", "epoch": 1 },
            },
            "iv": counting(first.wrapping_add(0x10), 12),
            "outputs": [],
            "seen": state_at(some_point(4)),
        })
    };
    let one = fp32("x", &[1, 3], &[1.5, -0.25, 1e-3]);
    let many = json!([
        fp32("features", &[2, 30], &[17.99; 60]),
        { "name": "empty", "data_type": "INT64", "shape": [0, 5], "data": "" },
        { "name": "scalar", "data_type": "UINT8", "shape": [], "data": "2a" },
    ]);
    let long: String = (0..3000).map(|i| format!("{:02x}", i % 251)).collect();
    let long =
        json!({ "name": "image", "data_type": "UINT8", "shape": [1, 3, 1000], "data": long });
    // "good", nothing, a, a zero and b, e with an acute accent in UTF-8.
    let texts = json!({
        "name": "texts", "data_type": "BYTES", "shape": [2, 2],
        "data": "04000000 676f6f64 00000000 03000000 610062 02000000 c3a9".replace(' ', ""),
    });
    vec![
        with(&base("one small input", 0x80), json!({ "inputs": [one] })),
        with(
            &base("the same again with another request id", 0x90),
            json!({ "inputs": [one] }),
        ),
        with(
            &base("three inputs and chosen outputs", 0xa0),
            json!({ "inputs": many, "outputs": ["probabilities", "label"] }),
        ),
        with(
            &base("above the smallest bucket", 0xb0),
            json!({ "inputs": [long] }),
        ),
        with(
            &base("texts, one of them empty and one with a zero in it", 0xe0),
            json!({ "inputs": [texts] }),
        ),
        with(
            &base("no input at all, and nothing seen", 0xc0),
            json!({ "inputs": [], "seen": state_at(start()) }),
        ),
        with(
            &base("for an alias, under a key for all models", 0xd0),
            json!({
                "inputs": [one],
                "route": {
                    "user": key_id(&user_seed()),
                    "model": format!("{}/breast-cancer@stable", key_id(&owner_seed())),
                    "request": counting(0xd0, 16),
                    "key": { "scope": "all_models", "epoch": 70_000 },
                },
            }),
        ),
    ]
}

fn response_recipes() -> Vec<Value> {
    let report = |path: &str, times: [u64; 7]| {
        let [
            queue_us,
            key_us,
            fetch_us,
            decrypt_us,
            load_us,
            open_us,
            run_us,
        ] = times;
        json!({
            "path": path, "queue_us": queue_us, "key_us": key_us, "fetch_us": fetch_us, "decrypt_us": decrypt_us,
            "load_us": load_us, "open_us": open_us, "run_us": run_us, "version": 1,
        })
    };
    vec![
        json!({
            "name": "one output, hot",
            "request": "one small input",
            "iv": counting(0xd0, 12),
            "outputs": [fp32("probabilities", &[1, 2], &[0.25, 0.75])],
            "refusal": null,
            "report": report("hot", [0, 0, 0, 0, 0, 21, 180]),
        }),
        json!({
            "name": "one output, cold, for the other request",
            "request": "the same again with another request id",
            "iv": counting(0xd0, 12),
            "outputs": [fp32("probabilities", &[1, 2], &[0.25, 0.75])],
            "refusal": null,
            "report": report("cold", [3, 41_000, 30_000, 2_000, 912_345, 25, 70_000]),
        }),
        json!({
            "name": "a refusal with detail, warm",
            "request": "three inputs and chosen outputs",
            "iv": counting(0xe0, 12),
            "outputs": [],
            "refusal": { "code": "invalid_input", "detail": "features: expected [?, 30]" },
            "report": report("warm", [7, 0, 30_000, 2_000, 1200, 30, 0]),
        }),
        json!({
            "name": "a refusal without detail",
            "request": "no input at all, and nothing seen",
            "iv": counting(0xf0, 12),
            "outputs": [],
            "refusal": { "code": "engine_failed", "detail": "" },
            "report": report("hot", [0, 0, 0, 0, 0, 0, 0]),
        }),
        json!({
            "name": "for an alias, which meant version 3",
            "request": "for an alias, under a key for all models",
            "iv": counting(0xf1, 12),
            "outputs": [fp32("probabilities", &[1, 2], &[0.25, 0.75])],
            "refusal": null,
            "report": with(&report("warm", [1, 2, 30_000, 2_000, 3, 4, 5]), json!({ "version": 3 })),
        }),
    ]
}

/// Spec: `[label, user, [owner, name], version or alias, [scope, epoch], request id]` and, for a response, the digest of its
/// request.
pub(crate) fn binding(route: &Route, answers: Option<&Digest>) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    let (items, label) = match answers {
        None => (6, "sesemi/v1/request"),
        Some(_) => (7, "sesemi/v1/response"),
    };
    e.array(items).unwrap().str(label).unwrap();
    e.bytes(route.user.as_bytes()).unwrap().array(2).unwrap();
    e.bytes(route.model.model.owner.as_bytes()).unwrap();
    e.str(route.model.model.name.as_str()).unwrap();
    match &route.model.version {
        VersionSelector::Exact(version) => e.u32(version.get()).unwrap(),
        VersionSelector::Alias(alias) => e.str(alias.as_str()).unwrap(),
    };
    let scope = match route.key.scope {
        NamedScope::Model => 1,
        NamedScope::AllModels => 0,
    };
    e.array(2).unwrap().u8(scope).unwrap();
    e.u32(route.key.epoch).unwrap();
    e.bytes(route.request.as_bytes()).unwrap();
    if let Some(digest) = answers {
        e.bytes(digest.as_bytes()).unwrap();
    }
    e.into_writer()
}

fn seal(case: &Value) -> SealedRequest {
    let inputs = tensors(case, "inputs");
    let inputs: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let outputs: Vec<String> = list(case, "outputs")
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let content = RequestContent {
        inputs: &inputs,
        outputs: &outputs,
        seen: state_point(&case["seen"]),
    };
    let entropy = Fixed::new(&[&bytes(case, "iv")]);
    let sealed = seal_request(
        &secret(case, "request_key"),
        route(&case["route"]),
        &content,
        &entropy,
    );
    entropy.assert_used_up();
    sealed.unwrap()
}

/// The values on the way to a sealed message.
fn steps(message: &[u8], binding: &[u8], key: &SecretKey) -> Value {
    let sealed = encrypt0::parse(message).unwrap();
    let mut buffer = message.to_vec();
    let plaintext = sealed.open(&mut buffer, key, binding).unwrap();
    json!({
        "protected": hex::encode(&message[sealed.protected]),
        "binding": hex::encode(binding),
        "message_key": hex::encode(key.expose()),
        "plaintext": hex::encode(&buffer[plaintext]),
        "bytes": hex::encode(message),
    })
}

fn request_digest(message: &[u8]) -> Digest {
    let parts = encrypt0::parse(message)
        .unwrap()
        .fingerprint(message)
        .unwrap()
        .concat();
    Digest(digest(&SHA256, &parts).as_ref().try_into().unwrap())
}

fn fill_request(case: &Value) -> Value {
    let sealed = seal(case).bytes;
    let route = route(&case["route"]);
    let binding = binding(&route, None);
    let request_key = secret(case, "request_key");
    let key = derive(request_key.expose(), route.request.as_bytes(), &binding).unwrap();
    let filled = with(case, steps(&sealed, &binding, &key));
    with(
        &filled,
        json!({ "digest": request_digest(&sealed).to_string() }),
    )
}

fn opened(request: &Value) -> OpenedRequest {
    let message = bytes(request, "bytes");
    let parsed = parse_request(&message).unwrap();
    parsed
        .open(message, &secret(request, "request_key"))
        .unwrap()
}

fn fill_response(requests: &Value, case: &Value) -> Value {
    let request = named(requests, text(case, "request"));
    let outputs = tensors(case, "outputs");
    let outputs: Vec<TensorView<'_>> = outputs.iter().map(Tensor::view).collect();
    let outcome = match &case["refusal"] {
        Value::Null => Ok(outputs.as_slice()),
        refused => Err(refusal(refused)),
    };
    let entropy = Fixed::new(&[&bytes(case, "iv")]);
    let sealed = opened(request)
        .responder
        .seal(outcome, report(&case["report"]), &entropy)
        .unwrap();
    entropy.assert_used_up();

    let route = route(&request["route"]);
    let binding = binding(&route, Some(&parsed(request, "digest")));
    let request_key = secret(request, "request_key");
    let key = derive(request_key.expose(), route.request.as_bytes(), &binding).unwrap();
    with(case, steps(&sealed, &binding, &key))
}

#[test]
fn every_request_is_remade_byte_for_byte() {
    assert_remade(&file()["requests"], &request_recipes(), fill_request);
}

#[test]
fn every_response_is_remade_byte_for_byte() {
    let fill = |case: &Value| fill_response(&file()["requests"], case);
    assert_remade(&file()["responses"], &response_recipes(), fill);
}

#[test]
fn every_request_opens_to_what_was_asked() {
    for case in list(file(), "requests") {
        let opened = opened(case);
        let inputs: Vec<Tensor> = opened
            .inputs()
            .map(|view| Tensor {
                name: view.name.to_owned(),
                data_type: view.data_type,
                shape: view.shape.to_vec(),
                data: view.data.to_vec(),
            })
            .collect();
        assert_eq!(inputs, tensors(case, "inputs"));
        assert_eq!(json!(opened.outputs()), case["outputs"]);
        assert_eq!(opened.seen(), state_point(&case["seen"]));
    }
}

pub(crate) fn open_response(request: &Value, response: &[u8]) -> Result<Answer, EnvelopeError> {
    seal(request).pending.open(response.to_vec())
}

#[test]
fn every_response_opens_to_what_was_answered() {
    for case in list(file(), "responses") {
        let request = named(&file()["requests"], text(case, "request"));
        let answer = open_response(request, &bytes(case, "bytes")).unwrap();
        let expected = match &case["refusal"] {
            Value::Null => Ok(tensors(case, "outputs")),
            refused => Err(refusal(refused)),
        };
        assert_eq!(answer.outcome, expected);
        assert_eq!(answer.report, report(&case["report"]));
    }
}

fn reason(error: &EnvelopeError) -> &'static str {
    use sesemi_protocol::cose::CoseError;
    match error {
        EnvelopeError::Cose(CoseError::NotAuthentic) => "authenticity",
        EnvelopeError::Cose(_) | EnvelopeError::Route => "form",
        EnvelopeError::Content(_) => "content",
        EnvelopeError::Derive(_) => "provider",
    }
}

#[test]
fn every_message_that_must_be_refused_is_refused_for_the_reason_given() {
    let expected = envelope_refused::recipes(&file()["requests"], &file()["responses"]);
    assert_eq!(file()["refused"], expected, "cases are missing");
    for case in list(file(), "refused") {
        let request = named(&file()["requests"], text(case, "request"));
        let message = bytes(case, "bytes");
        let error = match text(case, "as") {
            "request" => parse_request(&message)
                .and_then(|parsed| parsed.open(message, &secret(request, "request_key")))
                .map(drop),
            "response" => open_response(request, &message).map(drop),
            other => panic!("no direction '{other}'"),
        }
        .unwrap_err();
        assert_eq!(reason(&error), text(case, "refused_as"), "{}", case["name"]);
    }
}

#[test]
fn every_route_is_read_as_written() {
    for case in list(file(), "requests") {
        let parsed = parse_request(&bytes(case, "bytes")).unwrap();
        assert_eq!(parsed.route, route(&case["route"]));
    }
}
