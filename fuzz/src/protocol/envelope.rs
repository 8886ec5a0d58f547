//! Sealed requests and responses, from outside and from inside.

use minicbor::Encoder;
use sesemi_protocol::cose::encrypt0::{self, Draft};
use sesemi_protocol::envelope::{
    Answer, EnvelopeError, OpenedRequest, Path, PendingResponse, Report, RequestContent, Responder,
    Route, Steps, parse_request, seal_request,
};
use sesemi_protocol::kdf::derive;
use sesemi_protocol::limits::{MAX_ENVELOPE, MAX_TENSORS};
use sesemi_protocol::padding::padded_length;
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{Digest, PrincipalId, Refusal, RefusalCode, RequestId, cbor};

use crate::input::Input;
use crate::samples::{self, Fixed, key, model, state, tagged};

const REQUEST_KEY: u8 = 5;

/// Reads the bytes as a request. Only the one that was sealed opens, and only with its key.
pub fn request(bytes: &[u8]) {
    let Ok(parsed) = parse_request(bytes) else {
        return;
    };
    let route = parsed.route.clone();
    assert!(
        parsed.open(bytes.to_vec(), &key(9)).is_err(),
        "another key opens it"
    );
    let again = parse_request(bytes).unwrap();
    assert_eq!(again.route, route);
    let opened = again.open(bytes.to_vec(), &key(REQUEST_KEY));
    assert_eq!(opened.is_ok(), bytes == sample_request().0);
    assert!(opened.is_err() || route == sample_route());
}

/// Seals the bytes as the plaintext of a request. What is accepted is what the one who seals would have written.
pub fn request_content(bytes: &[u8]) {
    let Some(plaintext) = plaintext(bytes) else {
        return;
    };
    let (sample, _) = sample_request();
    let message = seal(protected_of(&sample), &plaintext, None);
    let parsed = parse_request(&message).expect("the form is right whatever is inside");
    let opened = match parsed.open(message.clone(), &key(REQUEST_KEY)) {
        Ok(opened) => opened,
        Err(EnvelopeError::Content(_)) => return,
        Err(error) => panic!("the seal of this target does not open: {error}"),
    };
    let inputs: Vec<TensorView<'_>> = opened.inputs().collect();
    assert!(inputs.len() <= MAX_TENSORS);
    assert!(inputs.iter().all(|input| input.check().is_ok()));
    let content = RequestContent {
        inputs: &inputs,
        outputs: opened.outputs(),
        seen: opened.seen(),
    };
    let again = seal_request(&key(REQUEST_KEY), sample_route(), &content, &Fixed).unwrap();
    assert_eq!(again.bytes, message);
}

/// Reads the bytes as the response to a request. Only a response to this very request opens.
pub fn response(bytes: &[u8]) {
    let (_, pending) = sample_request();
    let answers = sample_answers();
    let genuine = answers.iter().find(|answer| respond(answer) == bytes);
    assert_eq!(pending.open(bytes.to_vec()).ok().as_ref(), genuine);
}

/// Seals the bytes as the plaintext of a response. What is accepted is what SeMIRT would have written.
pub fn response_content(bytes: &[u8]) {
    let Some(plaintext) = plaintext(bytes) else {
        return;
    };
    let (request, pending) = sample_request();
    let answered = encrypt0::parse(&request).unwrap();
    let digest = Digest::of(&answered.fingerprint(&request).unwrap().concat());
    let message = seal(vec![0xa1, 0x01, 0x03], &plaintext, Some(digest));
    let answer = match pending.open(message.clone()) {
        Ok(answer) => answer,
        Err(EnvelopeError::Content(_)) => return,
        Err(error) => panic!("the seal of this target does not open: {error}"),
    };
    if let Ok(outputs) = &answer.outcome {
        assert!(outputs.len() <= MAX_TENSORS);
        assert!(outputs.iter().all(|output| output.view().check().is_ok()));
    }
    assert_eq!(respond(&answer), message);
}

/// The plaintext that an input stands for: the bytes themselves, or a head that is given its length and padding here, and
/// zeros for as many blocks of 64 bytes as a byte says.
fn plaintext(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut input = Input::new(bytes);
    if input.byte().is_multiple_of(2) {
        return Some(input.rest().to_vec());
    }
    let blocks = usize::from(input.byte());
    let head = input.rest();
    let mut plaintext = u32::try_from(head.len()).ok()?.to_le_bytes().to_vec();
    plaintext.extend_from_slice(head);
    let end = plaintext.len().checked_next_multiple_of(64)? + 64 * blocks;
    plaintext.resize(padded_length(end)?, 0);
    (plaintext.len() < MAX_ENVELOPE).then_some(plaintext)
}

/// A request, or the response to the request with a digest, as spec/envelope.md says, around any plaintext.
fn seal(protected: Vec<u8>, plaintext: &[u8], answers: Option<Digest>) -> Vec<u8> {
    let binding = binding(&sample_route(), answers);
    let salt = sample_route().request;
    let message_key = derive(key(REQUEST_KEY).expose(), salt.as_bytes(), &binding).unwrap();
    let mut draft = Draft::new(protected, plaintext.len(), &Fixed).unwrap();
    draft.plaintext().extend_from_slice(plaintext);
    draft.seal(&message_key, &binding).unwrap()
}

fn binding(route: &Route, answers: Option<Digest>) -> Vec<u8> {
    let (label, length) = match answers {
        None => ("sesemi/v1/request", 6),
        Some(_) => ("sesemi/v1/response", 7),
    };
    let mut e = Encoder::new(Vec::new());
    e.array(length).unwrap().str(label).unwrap();
    e.encode(route.user).unwrap();
    e.encode(&route.model.model).unwrap();
    e.encode(&route.model.version).unwrap();
    e.encode(route.key).unwrap();
    e.encode(route.request).unwrap();
    if let Some(digest) = answers {
        e.encode(digest).unwrap();
    }
    e.into_writer()
}

fn protected_of(message: &[u8]) -> Vec<u8> {
    message[encrypt0::parse(message).unwrap().protected].to_vec()
}

fn sample_route() -> Route {
    Route {
        user: PrincipalId([3; 32]),
        model: model().into(),
        request: RequestId([4; 16]),
        key: RequestKeyName::model(1),
    }
}

fn sample_tensor() -> Tensor {
    Tensor::fp32("features", &[1, 3], &[1.5, -0.25, 1e-9]).unwrap()
}

fn sample_request() -> (Vec<u8>, PendingResponse) {
    let tensor = sample_tensor();
    let content = RequestContent {
        inputs: &[tensor.view()],
        outputs: &["probabilities".to_owned()],
        seen: state(),
    };
    let sealed = seal_request(&key(REQUEST_KEY), sample_route(), &content, &Fixed).unwrap();
    (sealed.bytes, sealed.pending)
}

fn responder() -> Responder {
    let (message, _) = sample_request();
    let opened: OpenedRequest = parse_request(&message)
        .unwrap()
        .open(message, &key(REQUEST_KEY))
        .unwrap();
    opened.responder
}

fn respond(answer: &Answer) -> Vec<u8> {
    let views: Result<Vec<TensorView<'_>>, Refusal> = match &answer.outcome {
        Ok(outputs) => Ok(outputs.iter().map(Tensor::view).collect()),
        Err(refusal) => Err(refusal.clone()),
    };
    let views = views.as_deref().map_err(Clone::clone);
    responder().seal(views, answer.report, &Fixed).unwrap()
}

fn sample_answers() -> [Answer; 2] {
    let report = Report {
        path: Path::Hot,
        steps: Steps::default(),
        version: model().version,
    };
    let refusal = Refusal::new(RefusalCode::InvalidInput, "input 'x' must be given once");
    [Ok(vec![sample_tensor()]), Err(refusal)].map(|outcome| Answer { outcome, report })
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::ENVELOPE, &["bytes"]);
    seeds.push(sample_request().0);
    seeds
}

pub(crate) fn response_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::ENVELOPE, &["bytes"]);
    seeds.extend(sample_answers().iter().map(respond));
    seeds
}

/// The head inside a plaintext, behind what [`plaintext`] wants before one.
fn head_of(plaintext: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = plaintext.split_first_chunk::<4>()?;
    let head = rest.get(..u32::from_le_bytes(*length) as usize)?;
    Some([&[1, 1], head].concat())
}

fn content_seeds() -> Vec<Vec<u8>> {
    let plaintexts = samples::vectors(samples::ENVELOPE, &["plaintext"]);
    let heads: Vec<_> = plaintexts.iter().filter_map(|p| head_of(p)).collect();
    let mut seeds = tagged(0, plaintexts);
    seeds.extend(heads);
    seeds
}

pub(crate) fn request_content_seeds() -> Vec<Vec<u8>> {
    content_seeds()
}

pub(crate) fn response_content_seeds() -> Vec<Vec<u8>> {
    let mut seeds = content_seeds();
    let refusal: Refusal = RefusalCode::Busy.into();
    seeds.push([vec![1, 0], cbor::encode(&refusal).unwrap().to_vec()].concat());
    seeds
}
