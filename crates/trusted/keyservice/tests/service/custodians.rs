//! Custodians: their shares open the state elsewhere, and enough of them appoint a successor. Nothing less does.

use std::path::Path;
use std::sync::Arc;

use sesemi_attest::channel::Peer;
use sesemi_keyservice::locked::LockedService;
use sesemi_keyservice::service::KeyService;
use sesemi_keyservice::start::{How, Opening, Setup, StartError};
use sesemi_keyservice::unlock::Unlocked;
use sesemi_protocol::command::Action;
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::share::Share;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{CodeIdentityDigest, Digest, PrincipalId, RefusalCode, SecretKey};

use crate::world::{
    Actor, Pair, START, TestClock, code, enclave, open, pair, put_model, resources, setup, stop,
    try_open,
};

/// Three registered custodians, two of whom act together.
async fn custodians(service: &Arc<KeyService>) -> Vec<Actor> {
    let mut custodians = Vec::new();
    for seed in 11..=13 {
        custodians.push(Actor::registered(seed, service).await);
    }
    custodians.sort_by_key(Actor::id);
    let ids: Vec<PrincipalId> = custodians.iter().map(Actor::id).collect();
    let name = Action::NameCustodians {
        custodians: ids,
        threshold: 2,
    };
    custodians[0].submit(service, name, None).await.unwrap();
    custodians
}

async fn shares(service: &Arc<KeyService>, custodians: &[Actor]) -> Vec<Share> {
    let mut shares = Vec::new();
    for custodian in custodians {
        let answer = custodian.ask(service, START, Question::Share).await;
        match answer.unwrap() {
            QueryAnswer::Share(share) => shares.push(share),
            other => panic!("{other:?}"),
        }
    }
    shares
}

/// Another machine: the same code, another sealing key.
fn elsewhere(folder: &Path) -> Setup {
    Setup {
        sealing_key: Some(SecretKey::from_bytes([0x77; 32])),
        ..setup(folder)
    }
}

fn locked(setup: &Setup, clock: &TestClock) -> LockedService {
    match setup.open(resources(clock)).unwrap() {
        Opening::Locked(recovery) => LockedService::new(recovery),
        Opening::Service(_) => panic!("it opened by itself"),
    }
}

fn hand_in(locked: &LockedService, share: Share) -> ReplyBody {
    locked.answer(&Peer::Principal, CallBody::Unlock(share))
}

fn finish(setup: &Setup, locked: &LockedService, clock: &TestClock) -> Arc<KeyService> {
    let (unlocked, shares) = locked.take().unwrap();
    setup
        .keep_key(&unlocked, &sesemi_protocol::SystemEntropy::new())
        .unwrap();
    let how = How::Recovered(shares);
    Arc::new(setup.open_with(&unlocked, &how, resources(clock)).unwrap())
}

#[tokio::test]
async fn two_of_three_custodians_open_the_state_on_another_machine() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let custodians = custodians(&service).await;
    let shares = shares(&service, &custodians).await;
    let pair = pair(&service).await;
    let id = service.id();
    stop(service);

    let setup = elsewhere(folder.path());
    let waiting = locked(&setup, &clock);
    // Locked, it does nothing else.
    let release = CallBody::Release(vec![pair.request()]);
    let reply = waiting.answer(&enclave(1), release);
    assert!(matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Locked));
    let reply = hand_in(&waiting, shares[2].clone());
    assert!(
        matches!(reply, ReplyBody::Locked(status) if status.received == 1 && status.service == id)
    );
    // The same share again is still one.
    let reply = hand_in(&waiting, shares[2].clone());
    assert!(matches!(reply, ReplyBody::Locked(status) if status.received == 1));
    assert!(waiting.take().is_none());
    hand_in(&waiting, shares[0].clone());

    let service = finish(&setup, &waiting, &clock);
    assert_eq!(service.id(), id);
    assert!(pair.release(&service).await.is_ok());
    stop(service);
    // From now on it opens by itself there, and no longer on the first machine's key.
    stop(try_open(&setup, &clock).unwrap());
}

#[tokio::test]
async fn wrong_shares_are_refused_and_do_not_stand_in_the_way() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let custodians = custodians(&service).await;
    let shares = shares(&service, &custodians).await;
    stop(service);
    let setup = elsewhere(folder.path());
    let waiting = locked(&setup, &clock);
    let forged = Share::new(
        shares[0].service(),
        shares[0].scheme(),
        1,
        SecretKey::from_bytes([5; 32]),
    )
    .unwrap();
    let reply = hand_in(&waiting, forged);
    assert!(
        matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::NotAuthentic)
    );
    hand_in(&waiting, shares[0].clone());
    hand_in(&waiting, shares[1].clone());
    stop(finish(&setup, &waiting, &clock));
}

#[tokio::test]
async fn custodians_are_named_once_and_before_the_first_key() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut custodians = custodians(&service).await;
    let ids: Vec<PrincipalId> = custodians.iter().map(Actor::id).collect();
    let name = |ids: &[PrincipalId]| Action::NameCustodians {
        custodians: ids.to_vec(),
        threshold: 2,
    };
    let refused = Err(RefusalCode::AlreadyExists);
    let again = custodians[1].submit(&service, name(&ids), None).await;
    assert_eq!(again.map(drop), refused);
    // Somebody who is none gets no share.
    let stranger = Actor::registered(1, &service).await;
    let answer = stranger.ask(&service, START, Question::Share).await;
    assert_eq!(answer.map(drop), Err(RefusalCode::NotPermitted));

    let other = tempfile::tempdir().unwrap();
    let service = open(other.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    let second = Actor::registered(2, &service).await;
    let (action, key) = put_model(1);
    owner.submit(&service, action, key).await.unwrap();
    let mut ids = vec![owner.id(), second.id()];
    ids.sort();
    let late = owner.submit(&service, name(&ids), None).await;
    assert_eq!(late.map(drop), refused);
}

#[tokio::test]
async fn a_state_that_does_not_open_and_has_no_custodians_says_so() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    pair(&service).await;
    stop(service);
    let error = elsewhere(folder.path())
        .open(resources(&clock))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("other code or on another platform"),
        "{error}"
    );
}

#[tokio::test]
async fn a_recovery_file_that_was_lost_is_written_anew() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let custodians = custodians(&service).await;
    let shares = shares(&service, &custodians).await;
    stop(service);
    std::fs::remove_file(folder.path().join("unlock/recovery")).unwrap();
    stop(open(folder.path(), &clock));
    let setup = elsewhere(folder.path());
    let waiting = locked(&setup, &clock);
    hand_in(&waiting, shares[0].clone());
    hand_in(&waiting, shares[1].clone());
    stop(finish(&setup, &waiting, &clock));
}

const SUCCESSOR: u8 = 5;
const POLICY: Digest = Digest([8; 32]);

fn successor(folder: &Path) -> Setup {
    Setup {
        code: code(SUCCESSOR),
        sealing_key: Some(SecretKey::from_bytes([0x55; 32])),
        ..setup(folder)
    }
}

async fn approve(
    service: &Arc<KeyService>,
    custodian: &mut Actor,
    code: CodeIdentityDigest,
    policy: Digest,
) -> Result<(), RefusalCode> {
    let action = Action::ApproveUpgrade { code, policy };
    custodian.submit(service, action, None).await.map(drop)
}

async fn take_key(service: &Arc<KeyService>, code: u8) -> Result<Unlocked, RefusalCode> {
    let call = CallBody::HandOver { policy: POLICY };
    match service.answer(&enclave(code), call).await {
        ReplyBody::HandOver { service, key } => Ok(Unlocked {
            service,
            state_key: key,
        }),
        ReplyBody::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

async fn retire(service: &Arc<KeyService>, code: u8) -> Result<Point, RefusalCode> {
    let call = CallBody::Retire { policy: POLICY };
    match service.answer(&enclave(code), call).await {
        ReplyBody::Retired(point) => Ok(point),
        ReplyBody::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

async fn approved(service: &Arc<KeyService>) -> (Vec<Actor>, Pair) {
    let mut custodians = custodians(service).await;
    let pair = pair(service).await;
    for custodian in &mut custodians[..2] {
        approve(service, custodian, code(SUCCESSOR), POLICY)
            .await
            .unwrap();
    }
    (custodians, pair)
}

#[tokio::test]
async fn the_key_goes_to_a_successor_that_enough_custodians_approved_and_to_nobody_else() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut custodians = custodians(&service).await;
    let refused = Err(RefusalCode::NotPermitted);
    let mut stranger = Actor::registered(1, &service).await;
    assert_eq!(
        approve(&service, &mut stranger, code(SUCCESSOR), POLICY).await,
        refused
    );
    assert_eq!(take_key(&service, SUCCESSOR).await.map(drop), refused);
    // One custodian twice is one.
    for _ in 0..2 {
        let first = &mut custodians[0];
        approve(&service, first, code(SUCCESSOR), POLICY)
            .await
            .unwrap();
        assert_eq!(take_key(&service, SUCCESSOR).await.map(drop), refused);
    }
    // Another policy is another upgrade.
    let second = &mut custodians[1];
    approve(&service, second, code(SUCCESSOR), Digest([1; 32]))
        .await
        .unwrap();
    assert_eq!(take_key(&service, SUCCESSOR).await.map(drop), refused);
    approve(&service, second, code(SUCCESSOR), POLICY)
        .await
        .unwrap();
    assert!(take_key(&service, SUCCESSOR).await.is_ok());
    // Not to other code, and not to somebody without evidence.
    assert_eq!(take_key(&service, SUCCESSOR + 1).await.map(drop), refused);
    let call = CallBody::HandOver { policy: POLICY };
    let reply = service.answer(&Peer::Principal, call).await;
    assert!(
        matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::NotAttested)
    );
}

#[tokio::test]
async fn a_service_that_was_handed_over_goes_on_as_its_successor_only() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let (mut custodians, mut pair) = approved(&service).await;
    let id = service.id();
    let next = successor(folder.path());
    // Releases that were only counted must not come after the last entry.
    for _ in 0..3 {
        pair.release(&service).await.unwrap();
    }
    let unlocked = take_key(&service, SUCCESSOR).await.unwrap();
    next.keep_key(&unlocked, &sesemi_protocol::SystemEntropy::new())
        .unwrap();
    let end = retire(&service, SUCCESSOR).await.unwrap();
    assert!(*service.retired().borrow());
    // The predecessor does nothing more, and says why.
    let handed_over = Err(RefusalCode::HandedOver);
    let (action, key) = put_model(2);
    assert_eq!(
        pair.owner.submit(&service, action, key).await.map(drop),
        handed_over
    );
    let refusal = pair.release(&service).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::HandedOver);
    // The answer got lost: the successor asks again and is told the same.
    assert_eq!(retire(&service, SUCCESSOR).await, Ok(end));
    stop(service);

    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(matches!(error, StartError::HandedOver(to) if to == code(SUCCESSOR)));
    let how = How::TookOver(end);
    let service = Arc::new(next.open_with(&unlocked, &how, resources(&clock)).unwrap());
    assert_eq!(service.id(), id);
    assert!(pair.release(&service).await.is_ok());
    let (action, key) = put_model(2);
    // It was refused before under this number.
    pair.owner.submit(&service, action, key).await.unwrap();
    // Approvals are used up: the same two must say so again before the next hand-over.
    assert_eq!(
        take_key(&service, SUCCESSOR).await.map(drop),
        Err(RefusalCode::NotPermitted)
    );
    approve(&service, &mut custodians[2], code(SUCCESSOR), POLICY)
        .await
        .unwrap();
    stop(service);
    stop(try_open(&next, &clock).unwrap());
    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(matches!(error, StartError::NotHandedOver(by) if by == code(SUCCESSOR)));
}

#[tokio::test]
async fn a_successor_with_the_key_but_without_the_last_entry_does_not_start() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let fork = tempfile::tempdir().unwrap();
    let service = open(folder.path(), &clock);
    let _ = approved(&service).await;
    let unlocked = take_key(&service, SUCCESSOR).await.unwrap();
    stop(service);
    crate::world::copy(folder.path(), fork.path());
    let next = successor(fork.path());
    next.keep_key(&unlocked, &sesemi_protocol::SystemEntropy::new())
        .unwrap();
    let error = try_open(&next, &clock).unwrap_err();
    assert!(matches!(error, StartError::NotHandedOver(_)), "{error}");

    // Nor on a copy from before the end that the predecessor named.
    let service = open(folder.path(), &clock);
    let end = retire(&service, SUCCESSOR).await.unwrap();
    stop(service);
    let error = next
        .open_with(&unlocked, &How::TookOver(end), resources(&clock))
        .unwrap_err();
    assert!(matches!(error, StartError::OtherEnd(sequence) if sequence == end.sequence));
}

#[tokio::test]
async fn another_policy_needs_the_custodians_too() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut custodians = custodians(&service).await;
    stop(service);
    let policy = Digest([0x88; 32]);
    let stricter = Setup {
        policy,
        ..setup(folder.path())
    };
    let error = try_open(&stricter, &clock).unwrap_err();
    assert!(matches!(error, StartError::OtherPolicy { found, .. } if found == policy));
    let service = open(folder.path(), &clock);
    let own = setup(folder.path()).code;
    for custodian in &mut custodians[1..] {
        approve(&service, custodian, own, policy).await.unwrap();
    }
    stop(service);
    stop(try_open(&stricter, &clock).unwrap());
    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(matches!(error, StartError::OtherPolicy { expected, .. } if expected == policy));
}

#[tokio::test]
async fn a_tee_that_cannot_seal_asks_its_custodians_at_every_start() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let setup = Setup {
        sealing_key: None,
        ..setup(folder.path())
    };
    let service = try_open(&setup, &clock).unwrap();
    let custodians = custodians(&service).await;
    let shares = shares(&service, &custodians).await;
    stop(service);
    for _ in 0..2 {
        let waiting = locked(&setup, &clock);
        hand_in(&waiting, shares[1].clone());
        hand_in(&waiting, shares[2].clone());
        stop(finish(&setup, &waiting, &clock));
    }
}
