//! Every type that travels as deterministic CBOR.

use minicbor::{Decode, Encode};
use sesemi_attest::CodeIdentity;
use sesemi_protocol::audit::Entry;
use sesemi_protocol::cbor;
use sesemi_protocol::command::Command;
use sesemi_protocol::envelope::{Report, Route};
use sesemi_protocol::limits::{MAX_NAME, MAX_WIRE_MESSAGE};
use sesemi_protocol::package::Manifest;
use sesemi_protocol::query::{Query, QueryAnswer};
use sesemi_protocol::receipt::{Head, Point, Receipt, StatePoint};
use sesemi_protocol::release::{ReleaseRequest, RequestKeyName};
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::wire::{Call, Reply};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    ModelVersion, PrincipalId, Refusal, RefusalCode, RequestId, SecretKey, ServiceId,
};

use crate::samples;

/// Decodes the bytes as each type. What is accepted encodes to the same bytes, and was within the limit.
pub fn wire(bytes: &[u8]) {
    exact::<Call>(bytes);
    exact::<Reply>(bytes);
    exact::<ReleaseRequest>(bytes);
    exact::<Refusal>(bytes);
    exact::<RefusalCode>(bytes);
    exact::<Command>(bytes);
    exact::<Receipt>(bytes);
    exact::<Head>(bytes);
    exact::<Query>(bytes);
    exact::<QueryAnswer>(bytes);
    exact::<Entry>(bytes);
    exact::<Point>(bytes);
    exact::<StatePoint>(bytes);
    exact::<RequestKeyName>(bytes);
    exact::<Route>(bytes);
    exact::<Report>(bytes);
    exact::<Manifest>(bytes);
    exact::<DataType>(bytes);
    exact::<ModelId>(bytes);
    exact::<ModelRef>(bytes);
    exact::<ModelTarget>(bytes);
    exact::<ModelVersion>(bytes);
    exact::<AliasName>(bytes);
    exact::<GroupName>(bytes);
    exact::<PrincipalId>(bytes);
    exact::<ServiceId>(bytes);
    exact::<CodeIdentityDigest>(bytes);
    exact::<Digest>(bytes);
    exact::<RequestId>(bytes);
    exact::<SecretKey>(bytes);
    if let Some(name) = exact::<ModelName>(bytes) {
        assert!((1..=MAX_NAME).contains(&name.as_str().len()));
    }
    if let Some(identity) = exact::<CodeIdentity>(bytes) {
        assert_eq!(samples::code(&identity), Digest::of(bytes));
    }
}

pub(super) fn exact<T>(bytes: &[u8]) -> Option<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let value: T = cbor::decode(bytes, MAX_WIRE_MESSAGE).ok()?;
    assert!(bytes.len() <= MAX_WIRE_MESSAGE);
    assert_eq!(cbor::encode(&value).unwrap().as_slice(), bytes);
    Some(value)
}

pub(crate) fn wire_seeds() -> Vec<Vec<u8>> {
    let mut seeds = samples::vectors(samples::WIRE, &["bytes"]);
    seeds.extend(samples::vectors(samples::SIGNED, &["payload"]));
    seeds.extend(samples::vectors(samples::QUERIES, &["payload", "bytes"]));
    seeds.extend(samples::vectors(samples::AUDIT, &["public"]));
    seeds.extend(samples::vectors(samples::IDS, &["cbor"]));
    seeds.extend(samples::vectors(samples::CODE, &["cbor"]));
    seeds.extend(samples::vectors(samples::PACKAGE, &["manifest_cbor"]));
    seeds
}
