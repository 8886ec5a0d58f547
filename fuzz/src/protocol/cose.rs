//! The two COSE messages, by themselves.

use sesemi_protocol::cose::{encrypt0, sign1};
use sesemi_protocol::limits::{MAX_ENVELOPE, MAX_SIGNED};

use crate::samples::{self, Fixed, identity, key};

const LABEL: &str = "fuzz";
const EXTERNAL: &[u8] = b"additional data";

/// Reads the bytes as a `COSE_Sign1`, and signs them as the payload of one.
pub fn cose_sign1(bytes: &[u8]) {
    let signer = identity(1);
    if let Ok(message) = sign1::parse(bytes) {
        assert!(bytes.len() <= MAX_SIGNED);
        if let Ok(payload) = message.verify(signer.public(), LABEL) {
            assert_eq!(payload, message.unverified_payload());
            assert_eq!(sign1::sign(&signer, LABEL, payload).unwrap(), bytes);
            assert!(message.verify(signer.public(), "another").is_err());
        }
    }
    if let Ok(signed) = sign1::sign(&signer, LABEL, bytes) {
        let message = sign1::parse(&signed).unwrap();
        assert_eq!(message.verify(signer.public(), LABEL).unwrap(), bytes);
        assert!(message.verify(identity(2).public(), LABEL).is_err());
    }
}

/// Reads the bytes as a `COSE_Encrypt0`. Only the message that was sealed opens, with its own key and additional data.
pub fn cose_encrypt0(bytes: &[u8]) {
    let Ok(sealed) = encrypt0::parse(bytes) else {
        return;
    };
    assert!(bytes.len() <= MAX_ENVELOPE);
    assert!(sealed.protected.end <= bytes.len());
    let [front, tag] = sealed.fingerprint(bytes).unwrap();
    assert!(bytes.starts_with(front) && bytes.ends_with(tag));
    let open = |number, external| {
        let mut message = bytes.to_vec();
        let place = sealed.open(&mut message, &key(number), external).ok()?;
        Some(message[place].to_vec())
    };
    assert_eq!(open(2, EXTERNAL), None);
    assert_eq!(open(1, b"other additional data"), None);
    let genuine = (bytes == sealed_message()).then(|| PLAINTEXT.to_vec());
    assert_eq!(open(1, EXTERNAL), genuine);
}

const PLAINTEXT: &[u8] = b"what nobody else may read";

fn sealed_message() -> Vec<u8> {
    let mut draft = encrypt0::Draft::new(vec![0xa0], PLAINTEXT.len(), &Fixed).unwrap();
    draft.plaintext().extend_from_slice(PLAINTEXT);
    draft.seal(&key(1), EXTERNAL).unwrap()
}

pub(crate) fn sign1_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes"]);
    seeds.extend(samples::vectors(samples::QUERIES, &["bytes"]));
    seeds.push(sign1::sign(&identity(1), LABEL, b"a payload").unwrap());
    seeds
}

pub(crate) fn encrypt0_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::ENVELOPE, &["bytes"]);
    seeds.push(sealed_message());
    seeds
}
