//! Any id, name, version and point.

use proptest::collection::vec;
use proptest::prelude::*;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{NamedScope, RequestKeyName};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, IsolationLevel, ModelId,
    ModelName, ModelRef, ModelTarget, ModelVersion, PrincipalId, SecretKey, ServiceId,
    VersionSelector,
};

prop_compose! {
    pub(crate) fn principal()(bytes: [u8; 32]) -> PrincipalId { PrincipalId(bytes) }
}
prop_compose! {
    pub(crate) fn service()(bytes: [u8; 32]) -> ServiceId { ServiceId(bytes) }
}
prop_compose! {
    pub(crate) fn code()(bytes: [u8; 32]) -> CodeIdentityDigest { CodeIdentityDigest(bytes) }
}
prop_compose! {
    pub(crate) fn digest()(bytes: [u8; 32]) -> Digest { Digest(bytes) }
}
prop_compose! {
    pub(crate) fn key()(bytes: [u8; 32]) -> SecretKey { SecretKey::from_bytes(bytes) }
}
prop_compose! {
    pub(crate) fn name()(name in "[a-z0-9][a-z0-9._-]{0,63}") -> ModelName { name.parse().unwrap() }
}
prop_compose! {
    pub(crate) fn group()(name in "[a-z0-9][a-z0-9._-]{0,63}") -> GroupName { name.parse().unwrap() }
}
prop_compose! {
    pub(crate) fn alias()(name in "[a-z][a-z0-9._-]{0,63}") -> AliasName { name.parse().unwrap() }
}
prop_compose! {
    pub(crate) fn version()(version in 1..=u32::MAX) -> ModelVersion { ModelVersion::new(version).unwrap() }
}
prop_compose! {
    pub(crate) fn model()(owner in principal(), name in name()) -> ModelId { ModelId { owner, name } }
}
prop_compose! {
    pub(crate) fn model_ref()(model in model(), version in version()) -> ModelRef { ModelRef { model, version } }
}
prop_compose! {
    pub(crate) fn target()(model in model(), version in selector()) -> ModelTarget { ModelTarget { model, version } }
}
prop_compose! {
    pub(crate) fn point()(sequence in ..u64::MAX >> 1, chain in digest()) -> Point { Point { sequence, chain } }
}
prop_compose! {
    pub(crate) fn state()(service in service(), point in point()) -> StatePoint { StatePoint { service, point } }
}

prop_compose! {
    pub(crate) fn isolation()(level in prop::sample::select(&IsolationLevel::ALL), quantum_ms in 0..=60_000_u32) -> Isolation {
        Isolation { level, quantum_ms }
    }
}

fn selector() -> impl Strategy<Value = VersionSelector> {
    prop_oneof![
        version().prop_map(VersionSelector::Exact),
        alias().prop_map(VersionSelector::Alias),
    ]
}

pub(crate) fn key_name() -> impl Strategy<Value = RequestKeyName> {
    let scope = prop_oneof![Just(NamedScope::Model), Just(NamedScope::AllModels)];
    (scope, any::<u32>()).prop_map(|(scope, epoch)| RequestKeyName { scope, epoch })
}

/// Distinct items in ascending order.
pub(crate) fn ascending<T: Ord + core::fmt::Debug>(
    item: impl Strategy<Value = T>,
    number: core::ops::RangeInclusive<usize>,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::btree_set(item, number).prop_map(|set| set.into_iter().collect())
}

pub(crate) fn bytes() -> impl Strategy<Value = minicbor::bytes::ByteVec> {
    vec(any::<u8>(), 0..300).prop_map(Into::into)
}

/// Text that is no control character anywhere, of at most 256 bytes.
pub(crate) fn note() -> impl Strategy<Value = String> {
    "\\PC{0,64}".prop_filter("a note is short", |note| {
        note.len() <= 256 && !note.contains(char::is_control)
    })
}
