//! Any call, any reply, and any entry of a log.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use sesemi_protocol::audit::{Entry, Record, Released};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::wire::{
    Call, CallBody, LockedStatus, Reply, ReplyBody, ServiceStatus, UpgradeStatus,
};
use sesemi_protocol::{Refusal, SecretKey, SigningIdentity};

use crate::actions::command;
use crate::ids::{
    bytes, code, digest, isolation, key, key_name, model_ref, point, principal, service, state,
    target,
};
use crate::queries::{answer, refusal_code, share};

prop_compose! {
    pub(crate) fn call()(number: u64, body in call_body()) -> Call { Call { number, body } }
}

fn call_body() -> impl Strategy<Value = CallBody> {
    prop_oneof![
        (bytes(), of(key())).prop_map(|(signed, key)| CallBody::Submit { signed, key }),
        vec(release_request(), 0..66).prop_map(CallBody::Release),
        point().prop_map(|seen| CallBody::Status { seen }),
        bytes().prop_map(CallBody::Query),
        share().prop_map(CallBody::Unlock),
        digest().prop_map(|policy| CallBody::HandOver { policy }),
        digest().prop_map(|policy| CallBody::Retire { policy }),
    ]
}

prop_compose! {
    fn release_request()(model in target(), user in principal(), key in key_name(), seen in point()) -> ReleaseRequest {
        ReleaseRequest { model, user, key, seen }
    }
}

prop_compose! {
    pub(crate) fn reply()(number: u64, body in reply_body()) -> Reply { Reply { number, body } }
}

fn reply_body() -> impl Strategy<Value = ReplyBody> {
    prop_oneof![
        bytes().prop_map(ReplyBody::Receipt),
        vec(outcome(), 0..66).prop_map(ReplyBody::Released),
        status().prop_map(|status| ReplyBody::Status(Box::new(status))),
        refusal().prop_map(ReplyBody::Refused),
        any::<u64>().prop_map(ReplyBody::SequenceBehind),
        answer().prop_map(|answer| ReplyBody::Answer(Box::new(answer))),
        locked().prop_map(ReplyBody::Locked),
        (service(), key()).prop_map(|(service, key)| ReplyBody::HandOver { service, key }),
        point().prop_map(ReplyBody::Retired),
    ]
}

prop_compose! {
    fn refusal()(code in refusal_code(), detail in "\\PC{0,40}") -> Refusal { Refusal { code, detail } }
}

prop_compose! {
    fn lease()(
        model in model_ref(), model_key in key(), manifest in digest(), request_key in key(), seconds: u32,
        state in state(), isolation in isolation(),
    ) -> Lease {
        Lease { model, model_key, manifest, request_key, seconds, state, isolation }
    }
}

fn outcome() -> impl Strategy<Value = ReleaseOutcome> {
    prop_oneof![
        lease().prop_map(|lease| ReleaseOutcome::Lease(Box::new(lease))),
        refusal().prop_map(ReleaseOutcome::Refused),
    ]
}

prop_compose! {
    fn upgrade()(code in code(), policy in digest(), approved_by in vec(principal(), 0..4)) -> UpgradeStatus {
        UpgradeStatus { code, policy, approved_by }
    }
}

prop_compose! {
    fn status()(
        head in bytes(), custodians in vec(principal(), 0..17), threshold: u8, upgrades in vec(upgrade(), 0..3),
    ) -> ServiceStatus {
        ServiceStatus { head, custodians, threshold, upgrades }
    }
}

prop_compose! {
    fn locked()(service in service(), threshold: u8, received: u8) -> LockedStatus {
        LockedStatus { service, threshold, received }
    }
}

prop_compose! {
    pub(crate) fn entry()(salt: [u8; 16], at: u64, previous: u64, record in record()) -> Entry {
        Entry { salt, at, previous, record }
    }
}

prop_compose! {
    fn released()(
        user in principal(), model in model_ref(), key in key_name(), grant: u64, code in code(), evidence in digest(),
        times: u32, state: u64, last: u64,
    ) -> Released {
        Released { user, model, key, grant, code, evidence, times, state, last }
    }
}

fn signed() -> impl Strategy<Value = Record> {
    (any::<[u8; 32]>(), command()).prop_map(|(seed, command)| {
        let signer = SigningIdentity::from_seed(SecretKey::from_bytes(seed)).unwrap();
        Record::Command(command.sign(&signer).unwrap().into())
    })
}

fn record() -> impl Strategy<Value = Record> {
    let founded = (any::<[u8; 32]>(), code(), digest());
    let recovered = (code(), digest(), vec(any::<u8>(), 0..17));
    prop_oneof![
        1 => founded.prop_map(|(public_key, code, policy)| Record::Founded {
            public_key,
            code,
            policy
        }),
        4 => signed(),
        1 => released().prop_map(Record::Released),
        1 => bytes().prop_map(Record::Floor),
        1 => (code(), digest()).prop_map(|(code, policy)| Record::HandedOver { code, policy }),
        1 => (code(), digest()).prop_map(|(code, policy)| Record::TookOver { code, policy }),
        1 => recovered.prop_map(|(code, policy, shares)| Record::Recovered {
            code,
            policy,
            shares
        }),
    ]
}
