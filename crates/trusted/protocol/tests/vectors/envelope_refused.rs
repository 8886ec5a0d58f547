//! Envelopes that must be refused: wrong in form, changed on the way, or authentic with a content that is wrong.
//!
//! The last kind is sealed under the right key by a writer that errs, which only this module can make.

use minicbor::Encoder;
use minicbor::data::{Tag, Type};
use serde_json::{Value, json};
use sesemi_protocol::SecretKey;
use sesemi_protocol::cose::encrypt0::{self, Draft};
use sesemi_protocol::envelope::parse_request;
use sesemi_protocol::padding::padded_length;

use crate::envelope::open_response;
use crate::support::{Fixed, array, bytes, named};
use crate::values::secret;

const REQUEST: &str = "one small input";
const FP32: u8 = 10;
const BYTES: u8 = 13;

/// All of them, made from good messages of the file.
pub(crate) fn recipes(requests: &Value, responses: &Value) -> Value {
    let request = named(requests, REQUEST);
    let other = named(responses, "one output, cold, for the other request");
    let response = named(responses, "one output, hot");
    let mut out = Vec::new();
    let mut add = |direction: &str, refused_as: &str, name: &str, message: Vec<u8>| {
        out.push(json!({
            "name": name, "as": direction, "request": REQUEST, "refused_as": refused_as, "bytes": hex::encode(message),
        }));
    };
    for (name, message) in malformed(request) {
        add("request", "form", name, message);
    }
    for (name, message) in changed(request) {
        add("request", "authenticity", name, message);
    }
    let opens = |message: Vec<u8>| {
        let parsed = parse_request(&message).unwrap();
        parsed
            .open(message, &secret(request, "request_key"))
            .is_ok()
    };
    for (name, message) in wrong_content(request, request_head, &opens) {
        add("request", "content", name, message);
    }
    let request_bytes = bytes(request, "bytes");
    add("response", "form", "the request itself", request_bytes);
    let other_bytes = bytes(other, "bytes");
    add(
        "response",
        "authenticity",
        "the response to another request",
        other_bytes,
    );
    let mut flipped = bytes(response, "bytes");
    *flipped.last_mut().unwrap() ^= 1;
    add(
        "response",
        "authenticity",
        "its last bit is changed",
        flipped,
    );
    let mut longer = bytes(response, "bytes");
    longer.push(0);
    add("response", "form", "a byte follows", longer);
    let opens = |message: Vec<u8>| open_response(request, &message).is_ok();
    for (name, message) in wrong_content(response, response_head, &opens) {
        add("response", "content", name, message);
    }
    Value::Array(out)
}

/// A message in parts, as a writer that errs may put them together.
#[derive(Clone)]
struct Parts {
    tag: u64,
    protected: Vec<u8>,
    unprotected: Vec<(i64, Vec<u8>)>,
    ciphertext: Vec<u8>,
}

impl Parts {
    fn of(case: &Value) -> Self {
        let message = bytes(case, "bytes");
        let protected = bytes(case, "protected");
        let mut d = minicbor::Decoder::new(&message);
        assert!(matches!(d.datatype(), Ok(Type::Tag)));
        d.tag().unwrap();
        d.array().unwrap();
        d.bytes().unwrap();
        d.map().unwrap();
        let (label, iv) = (d.i64().unwrap(), d.bytes().unwrap().to_vec());
        Self {
            tag: 16,
            protected,
            unprotected: vec![(label, iv)],
            ciphertext: d.bytes().unwrap().to_vec(),
        }
    }

    fn write(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        e.tag(Tag::new(self.tag)).unwrap().array(3).unwrap();
        e.bytes(&self.protected).unwrap();
        e.map(self.unprotected.len() as u64).unwrap();
        for (label, value) in &self.unprotected {
            e.i64(*label).unwrap().bytes(value).unwrap();
        }
        e.bytes(&self.ciphertext).unwrap();
        e.into_writer()
    }
}

fn malformed(request: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let good = bytes(request, "bytes");
    let parts = Parts::of(request);
    let edit = |change: &dyn Fn(&mut Parts)| {
        let mut edited = parts.clone();
        change(&mut edited);
        edited.write()
    };
    assert_eq!(edit(&|_| ()), good);
    // Byte 3 of a request is the second of its header's length: 58 xx, one byte of length.
    let header_length = good[3];
    assert_eq!(good[..3], [0xd0, 0x83, 0x58]);
    // The header: a2, 01 03, 3a00010000, then the route, a map of four.
    let protected = &parts.protected;
    assert_eq!(protected[..9], [0xa2, 0x01, 0x03, 0x3a, 0, 1, 0, 0, 0xa4]);
    let header = |bytes: Vec<u8>| edit(&move |p| p.protected.clone_from(&bytes));
    let unknown_field = [&protected[..8], &[0xa5], &protected[9..], &[0x04, 0x00]].concat();
    let version_zero = {
        let mut header = protected.clone();
        let name_ends = find(&header, b"breast-cancer") + b"breast-cancer".len();
        assert_eq!(header[name_ends], 1);
        header[name_ends] = 0;
        header
    };
    let alias_with_capital = {
        let name_ends = find(protected, b"breast-cancer") + b"breast-cancer".len();
        [
            &protected[..name_ends],
            b"\x61S",
            &protected[name_ends + 1..],
        ]
        .concat()
    };
    // The header ends in the key 3, the array of two, the scope and the epoch.
    let scope = protected.len() - 2;
    assert_eq!(protected[scope - 2..], [0x03, 0x82, 0x01, 0x01]);
    let unknown_scope = [&protected[..scope], &[0x02, 0x01]].concat();
    let epoch_alone = [&protected[..scope - 1], &[0x01]].concat();
    let capital = {
        let mut header = protected.clone();
        let name = find(&header, b"breast-cancer");
        header[name] = b'B';
        header
    };
    vec![
        ("no bytes", vec![]),
        ("cut by one byte", good[..good.len() - 1].to_vec()),
        ("a byte follows", [&good[..], &[0]].concat()),
        ("no tag", good[1..].to_vec()),
        ("the tag of COSE_Sign1", edit(&|p| p.tag = 18)),
        (
            "a length in long form",
            [&good[..2], &[0x59, 0x00, header_length], &good[4..]].concat(),
        ),
        (
            "an array of indefinite length",
            [&good[..1], &[0x9f], &good[2..], &[0xff]].concat(),
        ),
        (
            "an IV of 11 bytes",
            edit(&|p| p.unprotected[0].1.truncate(11)),
        ),
        ("no IV", edit(&|p| p.unprotected.clear())),
        (
            "a key id beside the IV",
            edit(&|p| p.unprotected.insert(0, (4, vec![1]))),
        ),
        (
            "a ciphertext shorter than its tag",
            edit(&|p| p.ciphertext.truncate(15)),
        ),
        (
            "another algorithm: A128GCM",
            header([&protected[..2], &[0x01], &protected[3..]].concat()),
        ),
        ("no route", header(vec![0xa1, 0x01, 0x03])),
        ("a route with an unknown field", header(unknown_field)),
        ("a route with version 0", header(version_zero)),
        (
            "a route with a capital in the model's name",
            header(capital),
        ),
        (
            "a route with an alias that is none",
            header(alias_with_capital),
        ),
        ("a route with an unknown scope", header(unknown_scope)),
        ("a route with an epoch and no scope", header(epoch_alone)),
        (
            "a header that ends too early",
            header(protected[..protected.len() - 1].to_vec()),
        ),
    ]
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    let mut windows = haystack.windows(needle.len());
    windows.position(|window| window == needle).unwrap()
}

fn changed(request: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let parts = Parts::of(request);
    let edit = |change: &dyn Fn(&mut Parts)| {
        let mut edited = parts.clone();
        change(&mut edited);
        edited.write()
    };
    let name = find(&parts.protected, b"breast-cancer");
    vec![
        (
            "the last bit of the tag is changed",
            edit(&|p| *p.ciphertext.last_mut().unwrap() ^= 1),
        ),
        (
            "the first bit of the ciphertext is changed",
            edit(&|p| p.ciphertext[0] ^= 0x80),
        ),
        (
            "a bit of the IV is changed",
            edit(&|p| p.unprotected[0].1[0] ^= 1),
        ),
        (
            "the last byte of the tag is missing",
            edit(&|p| p.ciphertext.truncate(p.ciphertext.len() - 1)),
        ),
        // The header ends in the request id (16 bytes), the key 3, an array of two, scope and epoch.
        (
            "the route names another epoch",
            edit(&|p| *p.protected.last_mut().unwrap() = 2),
        ),
        (
            "the route names a key for all models",
            edit(&|p| {
                let scope = p.protected.len() - 2;
                p.protected[scope] = 0;
            }),
        ),
        (
            "the route names another request",
            edit(&|p| {
                let last = p.protected.len() - 5;
                p.protected[last] ^= 1;
            }),
        ),
        // a2 01 03 3a00010000 a4 00 5820, then the user's id.
        (
            "the route names another user",
            edit(&|p| p.protected[12] ^= 1),
        ),
        (
            "the route names another model",
            edit(&|p| p.protected[name] = b'c'),
        ),
        (
            "the route names another version",
            edit(&|p| p.protected[name + 13] = 2),
        ),
        (
            "the route names an alias in place of the version",
            edit(&|p| drop(p.protected.splice(name + 13..=name + 13, *b"\x61s"))),
        ),
    ]
}

/// One tensor of a head: name, data type, shape, length.
type Info<'a> = (&'a str, u8, &'a [u64], u64);

fn infos(e: &mut Encoder<Vec<u8>>, tensors: &[Info<'_>]) {
    e.array(tensors.len() as u64).unwrap();
    for (name, data_type, shape, length) in tensors {
        e.map(4).unwrap().u8(0).unwrap().str(name).unwrap();
        e.u8(1).unwrap().u8(*data_type).unwrap();
        e.u8(2).unwrap().encode(shape).unwrap();
        e.u8(3).unwrap().u64(*length).unwrap();
    }
}

/// `{0: inputs, 1: [], 2: {0: service, 1: {0: sequence, 1: chain}}}`.
fn request_head(tensors: &[Info<'_>]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(3).unwrap().u8(0).unwrap();
    infos(&mut e, tensors);
    e.u8(1).unwrap().array(0).unwrap();
    e.u8(2).unwrap().map(2).unwrap();
    e.u8(0).unwrap().bytes(&[5; 32]).unwrap();
    e.u8(1).unwrap().map(2).unwrap().u8(0).unwrap();
    e.u8(4).unwrap().u8(1).unwrap().bytes(&[6; 32]).unwrap();
    e.into_writer()
}

/// `{0: outputs, 1: {0: hot, 1: steps, 2: version}}`.
fn response_head(tensors: &[Info<'_>]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(2).unwrap().u8(0).unwrap();
    infos(&mut e, tensors);
    e.u8(1).unwrap().map(3).unwrap();
    e.u8(0).unwrap().u8(2).unwrap();
    e.u8(1).unwrap().map(7).unwrap();
    for step in 0..7 {
        e.u8(step).unwrap().u8(0).unwrap();
    }
    e.u8(2).unwrap().u8(1).unwrap();
    e.into_writer()
}

/// Length field, head, then each tensor's bytes, all 3f, at the next multiple of 64, then zeros up to the bucket.
fn lay_out(head: &[u8], tensors: &[Info<'_>]) -> Vec<u8> {
    let fill = |length: u64| vec![0x3f; usize::try_from(length).unwrap()];
    let data: Vec<Vec<u8>> = tensors.iter().map(|(.., length)| fill(*length)).collect();
    lay_out_data(head, &data)
}

/// The same, with these bytes.
fn lay_out_data(head: &[u8], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut out = u32::try_from(head.len()).unwrap().to_le_bytes().to_vec();
    out.extend_from_slice(head);
    for data in tensors {
        out.resize(out.len().next_multiple_of(64), 0);
        out.extend_from_slice(data);
    }
    let padded = padded_length(out.len()).unwrap();
    out.resize(padded, 0);
    out
}

fn wrong_content(
    case: &Value,
    head: fn(&[Info<'_>]) -> Vec<u8>,
    opens: &dyn Fn(Vec<u8>) -> bool,
) -> Vec<(&'static str, Vec<u8>)> {
    let seal = |plaintext: &[u8]| {
        let sealed = encrypt0::parse(&bytes(case, "bytes")).unwrap();
        let protected = bytes(case, "bytes")[sealed.protected].to_vec();
        let entropy = Fixed::new(&[&bytes(case, "iv")]);
        let mut draft = Draft::new(protected, plaintext.len(), &entropy).unwrap();
        draft.plaintext().extend_from_slice(plaintext);
        let key = SecretKey::from_bytes(array(case, "message_key"));
        draft.seal(&key, &bytes(case, "binding")).unwrap()
    };
    let of = |tensors: &[Info<'_>]| lay_out(&head(tensors), tensors);
    // What a BYTES tensor of this shape holds, in hexadecimal digits.
    let texts = |shape: &[u64], data: &str| {
        let data = hex::decode(data.replace(' ', "")).unwrap();
        let head = head(&[("x", BYTES, shape, data.len() as u64)]);
        lay_out_data(&head, &[data])
    };
    let good: Info<'_> = ("x", FP32, &[1, 3], 12);
    let empty: Info<'_> = ("x", FP32, &[0], 0);
    let plain = of(&[good]);
    // What this writer makes is refused for what is wrong with it, and for nothing else.
    assert!(opens(seal(&plain)));
    assert!(opens(seal(&texts(&[2], "01000000 61 00000000"))));
    let edit = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut edited = plain.clone();
        change(&mut edited);
        seal(&edited)
    };
    let long_name = "n".repeat(129);
    let head_ends = 4 + head(&[good]).len();
    let trailing = [&head(&[good])[..], &[0]].concat();
    vec![
        ("the content is empty", seal(&[])),
        (
            "the head's length is beyond the content",
            edit(&|p| p[1] = 0xff),
        ),
        ("the head is above 64 KiB", edit(&|p| p[2] = 0x02)),
        (
            "a byte follows the head's CBOR within its length",
            seal(&lay_out(&trailing, &[good])),
        ),
        ("the head lacks a field", seal(&lay_out(&[0xa0], &[]))),
        (
            "a byte between head and tensor is not zero",
            edit(&|p| p[head_ends] = 1),
        ),
        (
            "the last byte of the padding is not zero",
            edit(&|p| *p.last_mut().unwrap() = 1),
        ),
        ("the padding is one byte short", edit(&|p| p.truncate(511))),
        (
            "the padding goes up to the bucket after",
            edit(&|p| p.resize(544, 0)),
        ),
        (
            "shape and length of a tensor disagree",
            seal(&of(&[("x", FP32, &[1, 3], 11)])),
        ),
        (
            "a tensor has no name",
            seal(&of(&[("", FP32, &[1, 3], 12)])),
        ),
        (
            "a tensor's name has 129 bytes",
            seal(&of(&[(&long_name, FP32, &[1, 3], 12)])),
        ),
        (
            "a tensor has 9 dimensions",
            seal(&of(&[("x", FP32, &[1; 9], 4)])),
        ),
        (
            "a tensor's size does not fit 64 bits",
            seal(&of(&[("x", FP32, &[1 << 63, 2], 0)])),
        ),
        (
            "a tensor is of an unknown type",
            seal(&of(&[("x", 14, &[1, 3], 12)])),
        ),
        (
            "an element of BYTES ends behind the tensor",
            seal(&texts(&[1], "02000000 61")),
        ),
        (
            "an element of BYTES claims 4 GiB",
            seal(&texts(&[1], "ffffffff 61")),
        ),
        (
            "the length of an element of BYTES is cut",
            seal(&texts(&[1], "01000000 61 000000")),
        ),
        (
            "BYTES with an element too few",
            seal(&texts(&[2], "04000000 61616161")),
        ),
        (
            "BYTES with an element too many",
            seal(&texts(&[1], "00000000 00000000")),
        ),
        (
            "BYTES without elements and with data",
            seal(&texts(&[0], "00000000")),
        ),
        (
            "BYTES of which the lengths do not fit 64 bits",
            seal(&texts(&[1 << 62, 0], "")),
        ),
        (
            "shape and length of BYTES disagree",
            seal(&texts(&[1, 3], "00000000 00000000 000000")),
        ),
        ("there are 65 tensors", seal(&of(&[empty; 65]))),
    ]
}
