//! Keys, names and files that targets and their seeds share: fixed, so that a finding can be run again.

use sesemi_attest::CodeIdentity;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::{
    Digest, Entropy, EntropyError, ModelRef, ModelTarget, PrincipalId, SecretKey, ServiceId,
    SigningIdentity,
};

/// No randomness at all, so that the same content is sealed to the same bytes.
pub(crate) struct Fixed;

impl Entropy for Fixed {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(7);
        Ok(())
    }
}

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes([number; 32])
}

pub(crate) fn identity(number: u8) -> SigningIdentity {
    SigningIdentity::from_seed(key(number)).unwrap()
}

pub(crate) fn model() -> ModelRef {
    let owner = PrincipalId([1; 32]);
    format!("{owner}/breast-cancer@1").parse().unwrap()
}

/// What a request may ask for: the model by its version, or by an alias.
pub(crate) fn targets() -> [ModelTarget; 2] {
    let owner = PrincipalId([1; 32]);
    let by_alias = format!("{owner}/breast-cancer@stable").parse().unwrap();
    [model().into(), by_alias]
}

pub(crate) fn point() -> Point {
    Point {
        sequence: 4,
        chain: Digest([3; 32]),
    }
}

pub(crate) fn state() -> StatePoint {
    StatePoint {
        service: ServiceId([2; 32]),
        point: point(),
    }
}

/// Every byte string of a file of test vectors, and every plain text, that stands under one of these names.
pub(crate) fn vectors(json: &str, names: &[&str]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    collect(&serde_json::from_str(json).unwrap(), names, &mut found);
    assert!(!found.is_empty(), "no vectors called {names:?}");
    found
}

fn collect(value: &serde_json::Value, names: &[&str], found: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::Array(items) => {
            for item in items {
                collect(item, names, found);
            }
        }
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if names.contains(&name.as_str()) => {
                        found.push(hex::decode(text).unwrap_or_else(|_| text.into()));
                    }
                    _ => collect(value, names, found),
                }
            }
        }
        _ => {}
    }
}

/// Puts each seed behind a byte that says what it is.
pub(crate) fn tagged(tag: u8, seeds: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let tagged = |seed: Vec<u8>| [&[tag], seed.as_slice()].concat();
    seeds.into_iter().map(tagged).collect()
}

pub(crate) const ENVELOPE: &str = include_str!("../../spec/vectors/envelope.json");
pub(crate) const PACKAGE: &str = include_str!("../../spec/vectors/package.json");
pub(crate) const SIGNED: &str = include_str!("../../spec/vectors/signed.json");
pub(crate) const QUERIES: &str = include_str!("../../spec/vectors/queries.json");
pub(crate) const AUDIT: &str = include_str!("../../spec/vectors/audit.json");
pub(crate) const WIRE: &str = include_str!("../../spec/vectors/wire.json");
pub(crate) const IDS: &str = include_str!("../../spec/vectors/ids.json");
pub(crate) const CODE: &str = include_str!("../../spec/vectors/code-identity.json");

/// The digest of a code identity, however it is made.
pub(crate) fn code(identity: &CodeIdentity) -> Digest {
    Digest(identity.digest().unwrap().0)
}
