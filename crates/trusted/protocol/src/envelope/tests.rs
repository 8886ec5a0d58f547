//! Requests and responses: they read back as written, and nothing that was changed, cut, swapped or replayed opens.

use proptest::prelude::*;

use super::*;
use crate::entropy::SystemEntropy;
use crate::id::{
    AliasName, Digest, ModelName, ModelRef, ModelTarget, ModelVersion, PrincipalId, RequestId,
    ServiceId, VersionSelector,
};
use crate::receipt::{Point, StatePoint};
use crate::refusal::{Refusal, RefusalCode};
use crate::release::{NamedScope, RequestKeyName};
use crate::tensor::{Tensor, TensorView};

fn route() -> Route {
    Route {
        user: PrincipalId([1; 32]),
        model: ModelTarget::from(ModelRef::new(
            PrincipalId([2; 32]),
            ModelName::new("breast-cancer").unwrap(),
            ModelVersion::new(1).unwrap(),
        )),
        request: RequestId([3; 16]),
        key: RequestKeyName::model(1),
    }
}

fn request_key() -> SecretKey {
    SecretKey::from_bytes([4; 32])
}

fn seen() -> StatePoint {
    StatePoint {
        service: ServiceId([5; 32]),
        point: Point {
            sequence: 7,
            chain: Digest([6; 32]),
        },
    }
}

fn report() -> Report {
    Report {
        path: Path::Hot,
        steps: Steps {
            run_us: 12,
            ..Steps::default()
        },
        version: ModelVersion::new(1).unwrap(),
    }
}

fn seal_to(route: Route, tensors: &[Tensor]) -> SealedRequest {
    let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    let content = RequestContent {
        inputs: &views,
        outputs: &["probabilities".to_owned()],
        seen: seen(),
    };
    seal_request(&request_key(), route, &content, &SystemEntropy::new()).unwrap()
}

fn seal(tensors: &[Tensor]) -> SealedRequest {
    seal_to(route(), tensors)
}

fn open(bytes: &[u8], key: &SecretKey) -> Result<OpenedRequest, EnvelopeError> {
    parse_request(bytes)?.open(bytes.to_vec(), key)
}

fn sample() -> Vec<Tensor> {
    vec![
        Tensor::fp32("features", &[1, 30], &[17.99; 30]).unwrap(),
        Tensor::fp32("empty", &[0, 5], &[]).unwrap(),
        Tensor::fp32("scalar", &[], &[1.0]).unwrap(),
    ]
}

#[test]
fn a_request_and_its_response_read_back_as_written() {
    let sent = seal(&sample());
    let opened = open(&sent.bytes, &request_key()).unwrap();
    let inputs: Vec<_> = opened
        .inputs()
        .map(|view| (view.name.to_owned(), view.data.to_vec()))
        .collect();
    let expected: Vec<_> = sample().into_iter().map(|t| (t.name, t.data)).collect();
    assert_eq!(inputs, expected);
    assert_eq!(opened.seen(), seen());
    assert_eq!(opened.outputs(), ["probabilities"]);

    let output = Tensor::fp32("probabilities", &[1, 2], &[0.25, 0.75]).unwrap();
    let sealed = opened
        .responder
        .seal(Ok(&[output.view()]), report(), &SystemEntropy::new());
    let answer = sent.pending.open(sealed.unwrap()).unwrap();
    assert_eq!(answer.outcome.unwrap(), [output]);
    assert_eq!(answer.report, report());
}

#[test]
fn texts_of_any_length_travel_both_ways_and_lie_as_they_were_given() {
    let words: [&[u8]; 4] = [b"", b"a\0b", "\u{1f600}".as_bytes(), &[0xff; 1000]];
    let texts = Tensor::bytes("texts", &[2, 2], &words).unwrap();
    let none = Tensor::bytes("none", &[0], &[b""; 0]).unwrap();
    let sent = seal(&[texts.clone(), none.clone()]);
    let opened = open(&sent.bytes, &request_key()).unwrap();
    let inputs: Vec<TensorView<'_>> = opened.inputs().collect();
    assert_eq!(inputs, [texts.view(), none.view()]);
    let sealed = opened
        .responder
        .seal(Ok(&inputs), report(), &SystemEntropy::new());
    let answer = sent.pending.open(sealed.unwrap()).unwrap();
    let outputs = answer.outcome.unwrap();
    assert_eq!(outputs[0].to_bytes().unwrap(), words);
    assert_eq!(outputs, [texts, none]);
}

#[test]
fn a_message_has_no_more_texts_than_an_engine_should_make_objects_of() {
    let half = vec![&[][..]; 1 << 19];
    let mut tensors: Vec<Tensor> = ["a", "b"]
        .map(|name| Tensor::bytes(name, &[1 << 19], &half).unwrap())
        .into();
    open(&seal(&tensors).bytes, &request_key()).unwrap();
    tensors.push(Tensor::bytes("c", &[], &["one more"]).unwrap());
    let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    let content = RequestContent {
        inputs: &views,
        outputs: &[],
        seen: seen(),
    };
    let refused = seal_request(&request_key(), route(), &content, &SystemEntropy::new());
    assert!(matches!(
        refused,
        Err(EnvelopeError::Content(ContentError::TooManyTexts))
    ));
}

#[test]
fn a_refusal_travels_inside_the_envelope() {
    let sent = seal(&sample());
    let opened = open(&sent.bytes, &request_key()).unwrap();
    let refusal = Refusal::new(RefusalCode::InvalidInput, "features: expected [N, 30]");
    let sealed = opened
        .responder
        .seal(Err(refusal.clone()), report(), &SystemEntropy::new());
    let answer = sent.pending.open(sealed.unwrap()).unwrap();
    assert_eq!(answer.outcome, Err(refusal));
}

#[test]
fn two_requests_with_equal_content_share_no_bytes_of_ciphertext() {
    let (one, two) = (seal(&sample()), seal(&sample()));
    let tail = |bytes: &[u8]| bytes[bytes.len() - 64..].to_vec();
    assert_ne!(tail(&one.bytes), tail(&two.bytes));
}

#[test]
fn a_response_to_another_request_does_not_open_even_with_the_same_request_id() {
    let (one, two) = (seal(&sample()), seal(&sample()));
    let opened = open(&one.bytes, &request_key()).unwrap();
    let answer = opened
        .responder
        .seal(Ok(&[]), report(), &SystemEntropy::new())
        .unwrap();
    assert!(matches!(
        two.pending.open(answer),
        Err(EnvelopeError::Cose(CoseError::NotAuthentic))
    ));
}

#[test]
fn a_request_does_not_pass_for_a_response() {
    let sent = seal(&sample());
    assert!(sent.pending.open(sent.bytes.clone()).is_err());
}

/// The host rewrites the readable route: another user, owner, model, version, key or id.
#[test]
fn a_request_is_bound_to_everything_its_route_says() {
    let original = seal(&sample()).bytes;
    let place = encrypt0_protected(&original);
    let changes: [fn(&mut Route); 7] = [
        |r| r.user = PrincipalId([9; 32]),
        |r| r.model.model.owner = PrincipalId([9; 32]),
        |r| r.model.model.name = ModelName::new("breast-cancar").unwrap(),
        |r| r.model.version = VersionSelector::Exact(ModelVersion::new(2).unwrap()),
        |r| r.key.epoch = 2,
        |r| r.key.scope = NamedScope::AllModels,
        |r| r.request = RequestId([9; 16]),
    ];
    for change in changes {
        let mut other = route();
        change(&mut other);
        let mut bytes = original.clone();
        bytes[place.clone()].copy_from_slice(&other.to_protected().unwrap());
        assert_eq!(parse_request(&bytes).unwrap().route, other);
        assert!(open(&bytes, &request_key()).is_err(), "{other:?}");
    }
}

/// An alias is bound as an alias: the host can neither turn it into another nor into what it means.
#[test]
fn a_request_is_bound_to_the_alias_that_it_names() {
    let aliased = |alias: &str| {
        let mut route = route();
        route.model.version = VersionSelector::Alias(AliasName::new(alias).unwrap());
        route
    };
    let original = seal_to(aliased("stable"), &sample()).bytes;
    assert!(open(&original, &request_key()).is_ok());
    let place = encrypt0_protected(&original);
    let mut bytes = original.clone();
    bytes[place].copy_from_slice(&aliased("latest").to_protected().unwrap());
    assert_eq!(parse_request(&bytes).unwrap().route, aliased("latest"));
    assert!(open(&bytes, &request_key()).is_err());
}

fn encrypt0_protected(bytes: &[u8]) -> core::ops::Range<usize> {
    crate::cose::encrypt0::parse(bytes).unwrap().protected
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let sent = seal(&sample());
    for bit in 0..sent.bytes.len() * 8 {
        let mut changed = sent.bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&changed, &request_key()).is_err(), "bit {bit}");
    }
    for length in 0..sent.bytes.len() {
        assert!(open(&sent.bytes[..length], &request_key()).is_err());
    }
    let opened = open(&sent.bytes, &request_key()).unwrap();
    let answer = opened
        .responder
        .seal(Ok(&[]), report(), &SystemEntropy::new())
        .unwrap();
    for bit in 0..answer.len() * 8 {
        let mut changed = answer.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(sent.pending.open(changed).is_err(), "bit {bit}");
    }
    for length in 0..answer.len() {
        assert!(sent.pending.open(answer[..length].to_vec()).is_err());
    }
}

proptest! {
    #[test]
    fn any_tensors_read_back_as_written(
        values in prop::collection::vec(prop::collection::vec(any::<f32>(), 0..40), 0..5),
        epoch in any::<u32>(),
    ) {
        let tensors: Vec<Tensor> = values.iter().enumerate()
            .map(|(i, v)| Tensor::fp32(&format!("t{i}"), &[v.len() as u64], v).unwrap())
            .collect();
        let key = RequestKeyName::model(epoch);
        let sent = seal_to(Route { key, ..route() }, &tensors);
        let opened = open(&sent.bytes, &request_key()).unwrap();
        let read: Vec<Vec<u8>> = opened.inputs().map(|view| view.data.to_vec()).collect();
        let expected: Vec<Vec<u8>> = tensors.into_iter().map(|t| t.data).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn the_size_of_a_request_is_one_of_few(length in 0usize..2000) {
        let tensor = Tensor { name: "x".into(), data_type: crate::tensor::DataType::Uint8, shape: vec![length as u64], data: vec![1; length] };
        let sealed = seal(&[tensor]).bytes.len();
        let floor = crate::padding::padded_length(length).unwrap();
        prop_assert!(sealed >= floor);
        let plaintext = sealed - encrypt0_overhead();
        let near = [plaintext, plaintext - 1, plaintext + 1];
        prop_assert!(near.iter().any(|n| crate::padding::padded_length(*n) == Some(*n)), "{}", plaintext);
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_request(&bytes);
        let _ = seal(&[]).pending.open(bytes);
    }
}

/// Bytes of an envelope that are not plaintext, for a message of 512 to 65535 bytes.
fn encrypt0_overhead() -> usize {
    seal(&[]).bytes.len() - crate::padding::MIN_BUCKET
}
