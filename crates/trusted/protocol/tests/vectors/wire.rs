//! Messages on the attested channel, and the numbers of refusals and data types: `wire.json`.

use std::sync::OnceLock;

use minicbor::{Decode, Encode};
use serde_json::{Value, json};
use sesemi_protocol::cbor;
use sesemi_protocol::limits::MAX_WIRE_MESSAGE;
use sesemi_protocol::release::{Lease, ReleaseRequest};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};

use crate::support::{assert_remade, bytes, counting, list, number, parsed, text, vectors, with};
use crate::values::{
    DATA_TYPES, REFUSAL_CODES, key_id, model_text, refusal, secret, service_seed, state_point,
    user_seed,
};

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("wire.json", || {
            let messages: Vec<Value> = recipes().iter().map(fill).collect();
            json!({
                "about": "Messages on the attested channel, without their frame: spec/release-and-wire.md.",
                "messages": messages,
                "refused": refused_recipes(),
                "refusal_codes": refusal_codes(),
                "data_types": data_types(),
            })
        })
    })
}

fn number_of(value: &impl Encode<()>) -> u64 {
    let bytes = cbor::encode(value).unwrap();
    minicbor::decode(&bytes).unwrap()
}

fn refusal_codes() -> Vec<Value> {
    let code = |code: &sesemi_protocol::RefusalCode| json!({ "name": code.as_str(), "number": number_of(code) });
    REFUSAL_CODES.iter().map(code).collect()
}

fn data_types() -> Vec<Value> {
    let data_type = |t: &sesemi_protocol::tensor::DataType| json!({ "name": t.as_str(), "number": number_of(t), "size": t.size() });
    DATA_TYPES.iter().map(data_type).collect()
}

fn recipes() -> Vec<Value> {
    let request =
        json!({ "model": model_text(1), "user": key_id(&user_seed()), "epoch": 1, "at_least": 4 });
    let lease = json!({
        "model_key": counting(0x10, 32),
        "manifest": counting(0x70, 32),
        "request_key": counting(0x60, 32),
        "seconds": 300,
        "state": { "service": key_id(&service_seed()), "sequence": 1000 },
    });
    let case = |name: &str, kind: &str, value: Value| json!({ "name": name, "kind": kind, "value": value });
    let call = |name: &str, number: u64, body: Value| {
        case(name, "call", json!({ "number": number, "body": body }))
    };
    let reply = |name: &str, number: u64, body: Value| {
        case(name, "reply", json!({ "number": number, "body": body }))
    };
    let refused =
        |code: &str, detail: &str| json!({ "refused": { "code": code, "detail": detail } });
    vec![
        case(
            "a release request alone",
            "release_request",
            request.clone(),
        ),
        case("a lease alone", "lease", lease.clone()),
        call(
            "submit a command",
            0,
            json!({ "submit": "d28443a10127a0404100" }),
        ),
        call("ask for a release", 23, json!({ "release": request })),
        call("ask for the state", 24, json!({ "state": null })),
        reply("a receipt", 0, json!({ "receipt": "d28443a10127a0404100" })),
        reply("a lease", 23, json!({ "lease": lease })),
        reply("the state", 24, json!({ "state": 1000 })),
        reply("a refusal", 4_294_967_296, refused("not_granted", "")),
        reply(
            "a refusal with detail",
            1,
            refused("malformed", "malformed CBOR: end of input bytes"),
        ),
        reply(
            "a sequence that is behind",
            2,
            json!({ "sequence_behind": 41 }),
        ),
    ]
}

fn release_request(value: &Value) -> ReleaseRequest {
    ReleaseRequest {
        model: parsed(value, "model"),
        user: parsed(value, "user"),
        epoch: number(value, "epoch"),
        at_least: number(value, "at_least"),
    }
}

fn lease(value: &Value) -> Lease {
    Lease {
        model_key: secret(value, "model_key"),
        manifest: parsed(value, "manifest"),
        request_key: secret(value, "request_key"),
        seconds: number(value, "seconds"),
        state: state_point(&value["state"]),
    }
}

fn call(value: &Value) -> Call {
    let (kind, content) = value["body"].as_object().unwrap().iter().next().unwrap();
    Call {
        number: number(value, "number"),
        body: match kind.as_str() {
            "submit" => CallBody::Submit(bytes(&value["body"], "submit").into()),
            "release" => CallBody::Release(release_request(content)),
            "state" => CallBody::State,
            other => panic!("no call '{other}'"),
        },
    }
}

fn reply(value: &Value) -> Reply {
    let (kind, content) = value["body"].as_object().unwrap().iter().next().unwrap();
    Reply {
        number: number(value, "number"),
        body: match kind.as_str() {
            "receipt" => ReplyBody::Receipt(bytes(&value["body"], "receipt").into()),
            "lease" => ReplyBody::Lease(Box::new(lease(content))),
            "state" => ReplyBody::State(number(&value["body"], "state")),
            "refused" => ReplyBody::Refused(refusal(content)),
            "sequence_behind" => {
                ReplyBody::SequenceBehind(number(&value["body"], "sequence_behind"))
            }
            other => panic!("no reply '{other}'"),
        },
    }
}

fn fill(case: &Value) -> Value {
    let value = &case["value"];
    let encoded = match text(case, "kind") {
        "release_request" => cbor::encode(&release_request(value)),
        "lease" => cbor::encode(&lease(value)),
        "call" => cbor::encode(&call(value)),
        "reply" => cbor::encode(&reply(value)),
        other => panic!("no kind '{other}'"),
    };
    with(case, json!({ "bytes": hex::encode(&*encoded.unwrap()) }))
}

/// Decodes a message of a kind and encodes it again.
fn read(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    fn again<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> Option<Vec<u8>> {
        let value: T = cbor::decode(bytes, MAX_WIRE_MESSAGE).ok()?;
        Some(cbor::encode(&value).unwrap().to_vec())
    }
    match kind {
        "release_request" => again::<ReleaseRequest>(bytes),
        "lease" => again::<Lease>(bytes),
        "call" => again::<Call>(bytes),
        "reply" => again::<Reply>(bytes),
        other => panic!("no kind '{other}'"),
    }
}

fn refused_recipes() -> Vec<Value> {
    let case =
        |name: &str, kind: &str, bytes: &str| json!({ "name": name, "kind": kind, "bytes": bytes });
    let mut refused = vec![
        case("no bytes", "call", ""),
        case("a number alone", "call", "05"),
        case("an array in place of the map", "call", "8200820280"),
        case("an unknown body", "call", "a2000001820380"),
        case("a body that is its index alone", "call", "a200000102"),
        case("a body without its list of fields", "call", "a20000018102"),
        case("a body with a field too many", "call", "a2000001820281f6"),
        case("a field is missing", "call", "a101820280"),
        case("a field twice", "call", "a30000000001820280"),
        case("fields in another order", "call", "a2018202800000"),
        case("a number in long form", "call", "a200180501820280"),
        case("a negative number", "call", "a2002001820280"),
        case("a number as a float", "call", "a200f9000001820280"),
        case("a map of indefinite length", "call", "bf0000018202 80ff"),
        case("a byte follows", "call", "a200000182028000"),
        case("a tag in front", "call", "c6a2000001820280"),
        case(
            "an unknown refusal code",
            "reply",
            "a20000018203 81a200130160",
        ),
        case("refusal code 0", "reply", "a20000018203 81a200000160"),
        case(
            "a refusal detail that is not UTF-8",
            "reply",
            "a20000018203 81a2000f0161ff",
        ),
        case("a receipt as text", "reply", "a2000001820081 6161"),
        case(
            "a list that claims 2^60 items",
            "call",
            "a200000182029b1000000000000000",
        ),
    ];
    for case in &mut refused {
        case["bytes"] = text(case, "bytes").replace(' ', "").into();
    }
    let lease = recipes().into_iter().find(|case| case["kind"] == "lease");
    let lease = fill(&lease.unwrap());
    let mut short_key = bytes(&lease, "bytes");
    // a5 00 5820: the model key's length; one byte less, and the byte itself.
    short_key[3] = 0x1f;
    short_key.remove(4);
    refused.push(case("a key of 31 bytes", "lease", &hex::encode(short_key)));
    refused
}

#[test]
fn every_message_is_remade_byte_for_byte() {
    assert_remade(&file()["messages"], &recipes(), fill);
}

#[test]
fn every_message_reads_back_as_written() {
    for case in list(file(), "messages") {
        let bytes = bytes(case, "bytes");
        let again = read(text(case, "kind"), &bytes);
        assert_eq!(again, Some(bytes), "{}", case["name"]);
    }
}

#[test]
fn every_message_that_must_be_refused_is_refused() {
    assert_eq!(list(file(), "refused"), refused_recipes());
    for case in list(file(), "refused") {
        let again = read(text(case, "kind"), &bytes(case, "bytes"));
        assert_eq!(again, None, "{}", case["name"]);
    }
}

#[test]
fn refusal_codes_and_data_types_keep_their_numbers() {
    assert_eq!(list(file(), "refusal_codes"), refusal_codes());
    assert_eq!(list(file(), "data_types"), data_types());
}
