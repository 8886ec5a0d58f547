//! What carries keys over a channel: release requests, leases, and custodians' shares.

use core::fmt::Debug;
use core::time::Duration;

use sesemi_protocol::cbor;
use sesemi_protocol::query::QueryAnswer;
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::share::{Scheme, Share};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{Digest, Isolation, IsolationLevel, Refusal, RefusalCode};

use super::wire::exact;
use crate::samples::{self, key, model, point, state, targets};

/// Reads the bytes as a call or a reply, and as one request or outcome that is sent in a call or a reply. What is accepted
/// keeps its order, and prints no key.
pub fn release(bytes: &[u8]) {
    if let Some(call) = exact::<Call>(bytes)
        && let CallBody::Release(requests) = call.body
    {
        let again: Vec<_> = requests.iter().filter_map(sent).collect();
        assert_eq!(again, requests);
    }
    if let Some(request) = exact::<ReleaseRequest>(bytes) {
        assert_eq!(sent(&request), Some(request));
    }
    if let Some(reply) = exact::<Reply>(bytes)
        && let ReplyBody::Released(outcomes) = reply.body
    {
        outcomes.iter().for_each(answered);
    }
    if let Some(outcome) = exact::<ReleaseOutcome>(bytes) {
        answered(&outcome);
    }
    if let Some(lease) = exact::<Lease>(bytes) {
        answered(&ReleaseOutcome::Lease(Box::new(lease)));
    }
}

/// What arrives of a request that is sent alone.
fn sent(request: &ReleaseRequest) -> Option<ReleaseRequest> {
    let body = CallBody::Release(vec![request.clone()]);
    let bytes = cbor::encode(&Call { number: 7, body }).unwrap();
    let call = exact::<Call>(&bytes)?;
    let CallBody::Release(requests) = call.body else {
        return None;
    };
    requests.into_iter().next()
}

/// Sends an outcome between two others.
fn answered(outcome: &ReleaseOutcome) {
    if let ReleaseOutcome::Lease(lease) = outcome {
        assert_eq!(
            lease.duration(),
            Duration::from_secs(u64::from(lease.seconds))
        );
        hides(lease, 2);
        assert!(lease.isolation.quantum_ms <= 60_000);
        assert_eq!(
            lease
                .isolation
                .stricter(Isolation::from(IsolationLevel::Batched)),
            lease.isolation
        );
    }
    let busy = || ReleaseOutcome::Refused(RefusalCode::Busy.into());
    let body = ReplyBody::Released(vec![busy(), outcome.clone(), busy()]);
    let bytes = cbor::encode(&Reply { number: 7, body }).unwrap();
    let Some(Reply {
        body: ReplyBody::Released(outcomes),
        ..
    }) = exact::<Reply>(&bytes)
    else {
        panic!("three outcomes are not read back");
    };
    assert_eq!(outcomes, [busy(), outcome.clone(), busy()]);
}

/// No key is in what is printed of a value.
fn hides(value: &impl Debug, keys: usize) {
    let shown = format!("{value:?}");
    assert_eq!(shown.matches("SecretKey(..)").count(), keys, "{shown}");
}

/// Reads the bytes as a share, as a call that hands one in, as an answer with one, and as the text of one. What is accepted is
/// the same share in all of them, and does not print its value.
pub fn share(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(share) = Share::from_text(text)
    {
        assert_eq!(
            text.trim_end_matches(['\r', '\n']),
            share.to_text().as_str()
        );
        carried(&share);
    }
    if let Some(share) = exact::<Share>(bytes) {
        carried(&share);
    }
    if let Some(Call {
        body: CallBody::Unlock(share),
        ..
    }) = exact::<Call>(bytes)
    {
        carried(&share);
    }
    if let Some(QueryAnswer::Share(share)) = exact::<QueryAnswer>(bytes) {
        carried(&share);
    }
}

fn carried(share: &Share) {
    let shown = format!("{share:?}");
    assert!(
        !shown.contains(&hex::encode(share.value().expose())),
        "{shown}"
    );
    assert!((2..=16).contains(&share.scheme().count()));
    assert!((1..=share.scheme().count()).contains(&share.index()));
    assert!((2..=share.scheme().count()).contains(&share.scheme().threshold()));
    assert_eq!(Share::from_text(&share.to_text()).as_ref(), Ok(share));
    let alone = cbor::encode(share).unwrap();
    assert_eq!(exact::<Share>(&alone).as_ref(), Some(share));
    let body = CallBody::Unlock(share.clone());
    let call = cbor::encode(&Call { number: 7, body }).unwrap();
    let answer = cbor::encode(&QueryAnswer::Share(share.clone())).unwrap();
    assert!(call.ends_with(&alone) && answer.ends_with(&alone));
    let Some(Call {
        body: CallBody::Unlock(read),
        ..
    }) = exact::<Call>(&call)
    else {
        panic!("a share that is handed in is not read back");
    };
    assert_eq!(&read, share);
}

pub(crate) fn release_seeds() -> Vec<Vec<u8>> {
    let requests = targets().map(|model| ReleaseRequest {
        model,
        user: sesemi_protocol::PrincipalId([3; 32]),
        key: RequestKeyName::all_models(1),
        seen: point(),
    });
    let lease = Lease {
        model: model(),
        model_key: key(4),
        manifest: Digest([5; 32]),
        request_key: key(6),
        seconds: 300,
        state: state(),
        isolation: Isolation::new(IsolationLevel::Sequential, 250).unwrap(),
    };
    let refusal = Refusal::new(RefusalCode::NotGranted, "");
    let outcomes = vec![
        ReleaseOutcome::Lease(Box::new(lease)),
        ReleaseOutcome::Refused(refusal),
    ];
    let mut seeds = samples::vectors(samples::WIRE, &["bytes"]);
    seeds.extend(
        requests
            .iter()
            .map(|one| cbor::encode(one).unwrap().to_vec()),
    );
    seeds.extend(
        outcomes
            .iter()
            .map(|one| cbor::encode(one).unwrap().to_vec()),
    );
    let body = CallBody::Release(requests.to_vec());
    seeds.push(cbor::encode(&Call { number: 1, body }).unwrap().to_vec());
    let body = ReplyBody::Released(outcomes);
    seeds.push(cbor::encode(&Reply { number: 1, body }).unwrap().to_vec());
    seeds
}

pub(crate) fn share_seeds() -> Vec<Vec<u8>> {
    let scheme = Scheme::new(2, 3).unwrap();
    let share = Share::new(state().service, scheme, 1, key(7)).unwrap();
    let mut seeds = samples::vectors(samples::WIRE, &["bytes", "text"]);
    seeds.extend(samples::vectors(samples::QUERIES, &["bytes"]));
    seeds.push(cbor::encode(&share).unwrap().to_vec());
    seeds
}
