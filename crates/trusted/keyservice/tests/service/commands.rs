//! Commands: durable once acknowledged, carried out once, in any order of arrival, and refused without a trace.

use std::sync::Arc;

use sesemi_attest::channel::Peer;
use sesemi_protocol::command::{Action, KeyScope};
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{RefusalCode, SecretKey};

use crate::world::{
    Actor, CODE, TestClock, enclave, grant, open, pair, put_key, put_model, release, send, stop,
};

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let pair = pair(&service).await;
    let lease = pair.release(&service).await.unwrap();
    let id = service.id();
    stop(service);
    let service = open(folder.path(), &clock);
    assert_eq!(service.id(), id);
    let again = pair.release(&service).await.unwrap();
    assert_eq!(again.model_key, lease.model_key);
    assert_eq!(again.request_key, lease.request_key);
    // The snapshot that a stop leaves is no condition.
    stop(service);
    std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
    let service = open(folder.path(), &clock);
    assert!(pair.release(&service).await.is_ok());
}

#[tokio::test]
async fn a_repeated_command_gets_its_old_receipt_and_has_no_second_effect() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    let (action, key) = put_model(1);
    let signed = owner.sign(&service, action);
    let first = send(&service, &signed, key.clone()).await;
    assert!(matches!(first, ReplyBody::Receipt(_)));
    // It is still the old receipt after other commands, and after a restart.
    for version in 2..6 {
        let (action, key) = put_model(version);
        owner.submit(&service, action, key).await.unwrap();
    }
    assert_eq!(send(&service, &signed, key.clone()).await, first);
    stop(service);
    let service = open(folder.path(), &clock);
    let before = service.reader().point();
    assert_eq!(send(&service, &signed, key).await, first);
    assert_eq!(service.reader().point(), before);
}

#[tokio::test]
async fn a_grant_that_was_revoked_does_not_come_back_by_replay() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let action = grant(&pair.owner, &pair.user, None);
    let signed = pair.owner.sign(&service, action);
    let ReplyBody::Receipt(receipt) = send(&service, &signed, None).await else {
        panic!("no receipt")
    };
    let receipt = Receipt::verify(&receipt, service.identity().public(), &signed).unwrap();
    let grants = vec![pair.grant, receipt.state.point.sequence];
    let owner = pair.owner.id();
    pair.owner.seen = receipt.state.point;
    pair.owner
        .submit(&service, Action::Revoke { owner, grants }, None)
        .await
        .unwrap();
    assert!(matches!(
        send(&service, &signed, None).await,
        ReplyBody::Receipt(_)
    ));
    let refusal = pair.release(&service).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotGranted);
}

#[tokio::test]
async fn a_command_at_an_old_number_is_refused_with_the_last_one() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    owner.sequence = 0;
    let (action, key) = put_model(1);
    let signed = owner.sign(&service, action);
    assert_eq!(
        send(&service, &signed, key).await,
        ReplyBody::SequenceBehind(1)
    );
}

#[tokio::test]
async fn many_owners_at_once_are_all_served_and_nothing_is_mixed_up() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let owners = (1..=40u8).map(|seed| {
        let service = service.clone();
        tokio::spawn(async move {
            let mut owner = Actor::registered(seed, &service).await;
            for version in 1..=5 {
                let (action, key) = put_model(version);
                owner.submit(&service, action, key).await.unwrap();
            }
            owner.seen.sequence
        })
    });
    let mut last = Vec::new();
    for owner in owners.collect::<Vec<_>>() {
        last.push(owner.await.unwrap());
    }
    // One founding, and six commands of each.
    assert_eq!(service.reader().point().sequence, 1 + 40 * 6);
    assert_eq!(last.iter().max(), Some(&(1 + 40 * 6)));
    service.reader().verify_all(|_, _| {}).unwrap();
}

#[tokio::test]
async fn the_same_command_sent_many_times_at_once_is_carried_out_once() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    let (action, key) = put_model(1);
    let signed = owner.sign(&service, action);
    let calls = (0..20).map(|_| {
        let (service, signed, key) = (service.clone(), signed.clone(), key.clone());
        tokio::spawn(async move { send(&service, &signed, key).await })
    });
    let mut replies = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        replies.push(call.await.unwrap());
    }
    assert!(matches!(replies[0], ReplyBody::Receipt(_)));
    assert!(replies.iter().all(|reply| *reply == replies[0]));
    assert_eq!(service.reader().point().sequence, 3);
}

#[tokio::test]
async fn a_key_that_is_missing_wrong_or_uncalled_for_is_refused() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    let refused = Err(RefusalCode::Malformed);
    let (put, _) = put_model(1);
    let other = Some(SecretKey::from_bytes([77; 32]));
    let before = owner.seen;
    let answer = owner.submit(&service, put.clone(), None).await;
    assert_eq!(answer.map(drop), refused);
    let answer = owner.submit(&service, put, other.clone()).await;
    assert_eq!(answer.map(drop), refused);
    let seconds = Some(5);
    let lease = Action::SetLease {
        name: crate::world::name(),
        seconds,
    };
    assert_eq!(
        owner.submit(&service, lease, other).await.map(drop),
        refused
    );
    assert_eq!(service.reader().point(), before);
}

#[tokio::test]
async fn only_enclaves_get_keys_and_only_those_that_both_sides_approved() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let call = CallBody::Release(vec![pair.request()]);
    let ReplyBody::Refused(refusal) = service.answer(&Peer::Principal, call).await else {
        panic!("keys for anybody")
    };
    assert_eq!(refusal.code, RefusalCode::NotAttested);
    let refusal = release(&service, 2, pair.request()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotGranted);
    // The owner approves other code, the user does not.
    let codes = vec![crate::world::code(2)];
    let Action::Grant {
        owner,
        name,
        versions,
        subject,
        ..
    } = grant(&pair.owner, &pair.user, None)
    else {
        panic!("a grant")
    };
    let other = Action::Grant {
        owner,
        name,
        versions,
        subject,
        codes,
        expires: None,
        note: String::new(),
    };
    pair.owner.submit(&service, other, None).await.unwrap();
    let refusal = release(&service, 2, pair.request()).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NoRequestKey);
}

#[tokio::test]
async fn many_keys_come_in_one_answer_in_the_order_of_the_questions() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    for version in 2..=64 {
        let (action, key) = put_model(version);
        pair.owner.submit(&service, action, key).await.unwrap();
    }
    let requests: Vec<_> = (1..=64)
        .map(|version| {
            let mut request = pair.request();
            request.model.version =
                sesemi_protocol::VersionSelector::Exact(crate::world::version(version));
            request
        })
        .collect();
    let call = CallBody::Release(requests.clone());
    let ReplyBody::Released(outcomes) = service.answer(&enclave(CODE), call).await else {
        panic!("no keys")
    };
    let keys: Vec<SecretKey> = outcomes
        .into_iter()
        .map(|outcome| match outcome {
            sesemi_protocol::release::ReleaseOutcome::Lease(lease) => lease.model_key.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected: Vec<SecretKey> = (1..=64).map(|n| SecretKey::from_bytes([n; 32])).collect();
    assert_eq!(keys, expected);
    let too_many = CallBody::Release([requests.clone(), requests].concat());
    assert!(matches!(
        service.answer(&enclave(CODE), too_many).await,
        ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Malformed
    ));
}

#[tokio::test]
async fn a_key_rotates_without_downtime_and_the_old_one_ends_when_it_was_said() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let end = crate::world::START + 100;
    let (action, key) = put_key(2, Some(end));
    pair.user.submit(&service, action, key).await.unwrap();
    let epoch = |epoch| {
        let mut request = pair.request();
        request.key.epoch = epoch;
        request
    };
    clock.advance(70);
    let old = release(&service, CODE, epoch(1)).await.unwrap();
    assert_eq!(old.seconds, 30, "a lease does not outlive the key");
    let new = release(&service, CODE, epoch(2)).await.unwrap();
    assert_eq!(new.seconds, 60);
    clock.advance(30);
    let refusal = release(&service, CODE, epoch(1)).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NoRequestKey);
    assert!(release(&service, CODE, epoch(2)).await.is_ok());
    // The clock of the host turned back does not bring it back: the log knows the later time.
    let lease = Action::EndRequestKey {
        scope: KeyScope::AllModels,
        epoch: 2,
        at: crate::world::START + 10_000,
    };
    pair.user.submit(&service, lease, None).await.unwrap();
    clock
        .0
        .store(crate::world::START, std::sync::atomic::Ordering::SeqCst);
    let mut request = pair.request();
    request.key.epoch = 1;
    let refusal = release(&service, CODE, request).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NoRequestKey);
}

#[tokio::test]
async fn a_principal_that_sends_too_much_is_told_to_wait_and_others_are_not() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let mut resources = crate::world::resources(&clock);
    resources.limits = crate::world::limits(5);
    let setup = crate::world::setup(folder.path());
    let sesemi_keyservice::start::Opening::Service(service) = setup.open(resources).unwrap() else {
        panic!("locked")
    };
    let service = Arc::new(*service);
    let mut noisy = Actor::registered(1, &service).await;
    let mut refused = 0;
    for version in 1..=100 {
        let (action, key) = put_model(version);
        if noisy.submit(&service, action, key).await == Err(RefusalCode::Busy) {
            refused += 1;
        }
    }
    assert!(refused > 0);
    let mut quiet = Actor::registered(2, &service).await;
    let (action, key) = put_model(1);
    assert!(quiet.submit(&service, action, key).await.is_ok());
}

#[tokio::test]
async fn a_command_for_another_service_is_refused() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::new(1);
    owner.seen = Point::START;
    let public_key = *owner.identity.public().key();
    let command = sesemi_protocol::command::Command {
        service: sesemi_protocol::ServiceId([1; 32]),
        sequence: 1,
        seen: Point::START,
        action: Action::Register { public_key },
    };
    let signed = command.sign(&owner.identity).unwrap();
    let reply = send(&service, &signed, None).await;
    assert!(
        matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::WrongService)
    );
}
