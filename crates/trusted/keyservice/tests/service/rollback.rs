//! The host turns the state back, or runs two copies of it: whoever has seen more is told, by every way of asking.

use std::sync::Arc;

use sesemi_attest::channel::Peer;
use sesemi_keyservice::start::Opening;
use sesemi_protocol::command::Action;
use sesemi_protocol::query::Question;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{Digest, RefusalCode};

use crate::world::{
    Actor, CODE, START, TestClock, copy, enclave, open, pair, put_model, release, resources, setup,
    stop, try_open,
};

const STALE: Result<(), RefusalCode> = Err(RefusalCode::StaleState);

#[tokio::test]
async fn a_state_folder_that_was_put_back_is_noticed_by_whoever_has_seen_more() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let old = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    stop(service);
    copy(folder.path(), old.path());
    let service = open(folder.path(), &clock);
    let owner = pair.owner.id();
    let grants = vec![pair.grant];
    let revoke = Action::Revoke { owner, grants };
    pair.owner.submit(&service, revoke, None).await.unwrap();
    stop(service);

    // The host puts the folder back in which the grant is there still.
    let service = open(old.path(), &clock);
    let seen = pair.owner.seen;
    // A command of the owner,
    let (action, key) = put_model(2);
    assert_eq!(
        pair.owner.submit(&service, action, key).await.map(drop),
        STALE
    );
    // a question of the owner,
    let asked = pair
        .owner
        .ask(&service, START, Question::GrantsToMe { after: 0 });
    assert_eq!(asked.await.map(drop), STALE);
    // a greeting,
    let greeted = service
        .answer(&Peer::Principal, CallBody::Status { seen })
        .await;
    assert!(
        matches!(greeted, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::StaleState)
    );
    // and a request of anybody who has seen what the owner has.
    let mut request = pair.request();
    request.seen = seen;
    let refusal = release(&service, CODE, request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::StaleState);
    // Who has seen nothing cannot know.
    assert!(pair.release(&service).await.is_ok());
}

#[tokio::test]
async fn two_clones_that_went_apart_are_told_from_each_other_even_at_equal_length() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let fork = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    stop(service);
    copy(folder.path(), fork.path());

    let (a, b) = (open(folder.path(), &clock), open(fork.path(), &clock));
    let (action, key) = put_model(2);
    pair.owner.submit(&a, action, key).await.unwrap();
    // The user knows nothing of it and is led to the other clone.
    let (action, key) = crate::world::put_key(2, None);
    pair.user.submit(&b, action, key).await.unwrap();
    assert_eq!(pair.owner.seen.sequence, pair.user.seen.sequence);
    assert_ne!(pair.owner.seen.chain, pair.user.seen.chain);

    let template = pair.request();
    let at = |seen: Point| {
        let mut request = template.clone();
        request.seen = seen;
        request
    };
    assert!(release(&a, CODE, at(pair.owner.seen)).await.is_ok());
    assert!(release(&b, CODE, at(pair.user.seen)).await.is_ok());
    for (clone, seen) in [(&a, pair.user.seen), (&b, pair.owner.seen)] {
        let refusal = release(clone, CODE, at(seen)).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::StaleState);
    }
    // Growing beyond does not hide it.
    for version in 3..80 {
        let (action, key) = put_model(version);
        pair.owner.submit(&a, action, key).await.unwrap();
    }
    let refusal = release(&a, CODE, at(pair.user.seen)).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::StaleState);
    // A point that is on the way of both is fine in both.
    let shared = a.reader().read(3).unwrap().point();
    assert!(release(&a, CODE, at(shared)).await.is_ok());
    assert!(release(&b, CODE, at(shared)).await.is_ok());
}

#[tokio::test]
async fn a_point_that_nobody_can_have_seen_is_stale_too() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let pair = pair(&service).await;
    let end = service.reader().point();
    for seen in [
        Point {
            sequence: end.sequence,
            chain: Digest([1; 32]),
        },
        Point {
            sequence: end.sequence + 1,
            chain: end.chain,
        },
        Point {
            sequence: u64::MAX,
            chain: end.chain,
        },
        Point {
            sequence: 0,
            chain: Digest([1; 32]),
        },
    ] {
        let mut request = pair.request();
        request.seen = seen;
        let refusal = release(&service, CODE, request).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::StaleState, "{seen:?}");
    }
}

#[tokio::test]
async fn an_older_log_beside_a_newer_snapshot_does_not_start() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let old = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    stop(service);
    copy(folder.path(), old.path());
    let service = open(folder.path(), &clock);
    let (action, key) = put_model(2);
    pair.owner.submit(&service, action, key).await.unwrap();
    stop(service);
    std::fs::copy(
        old.path().join("state.redb"),
        folder.path().join("state.redb"),
    )
    .unwrap();
    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(
        error.to_string().contains("older than the snapshot"),
        "{error}"
    );
}

#[tokio::test]
async fn the_alarm_is_raised_by_those_who_are_known_and_not_by_whoever_makes_something_up() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let resources = resources(&clock);
    let metrics = resources.metrics.clone();
    let Opening::Service(service) = setup(folder.path()).open(resources).unwrap() else {
        panic!("locked")
    };
    let service = Arc::new(*service);
    let pair = pair(&service).await;
    let raised = || {
        let metrics = metrics.render();
        ["stale_total", "stale_claims_total"].map(|name| {
            let name = format!("sesemi_keyservice_{name} ");
            let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap().parse::<u64>().unwrap()
        })
    };
    let end = service.reader().point();
    let beyond = Point {
        sequence: end.sequence + 1,
        chain: end.chain,
    };
    let forked = Point {
        sequence: 1,
        chain: end.chain,
    };
    for (claims, seen) in [(1, beyond), (2, forked)] {
        let status = CallBody::Status { seen };
        let reply = service.answer(&Peer::Principal, status).await;
        assert!(
            matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::StaleState)
        );
        assert_eq!(raised(), [0, claims]);
    }
    // Whoever registers signs with a key that anybody can make.
    let mut new = Actor::new(9);
    new.seen = beyond;
    let public_key = *new.identity.public().key();
    let register = Action::Register { public_key };
    assert_eq!(new.submit(&service, register, None).await.map(drop), STALE);
    assert_eq!(raised(), [0, 3]);

    let mut request = pair.request();
    request.seen = forked;
    release(&service, CODE, request.clone()).await.unwrap_err();
    assert_eq!(raised(), [1, 3]);
    // A call is one alarm, however many requests are in it.
    request.seen = beyond;
    let call = CallBody::Release(vec![request; 5]);
    let reply = service.answer(&enclave(CODE), call).await;
    assert!(matches!(reply, ReplyBody::Released(_)));
    assert_eq!(raised(), [2, 3]);
    let mut owner = pair.owner;
    owner.seen = beyond;
    let asked = owner.ask(&service, START, Question::GrantsToMe { after: 0 });
    assert_eq!(asked.await.map(drop), STALE);
    let (action, key) = put_model(2);
    assert_eq!(owner.submit(&service, action, key).await.map(drop), STALE);
    assert_eq!(raised(), [4, 3]);
}
