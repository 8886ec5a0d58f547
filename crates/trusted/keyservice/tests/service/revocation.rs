//! What was revoked ends with the lease, what expires ends in time, whatever is under way.

use sesemi_protocol::RefusalCode;
use sesemi_protocol::audit::{self, AuditItem, Record};
use sesemi_protocol::command::Action;

use crate::questions::audit;
use crate::world::{START, TestClock, grant, open, pair, put_model, stop};

#[tokio::test]
async fn after_a_revocation_no_lease_is_given() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let lease = pair.release(&service).await.unwrap();
    assert_eq!(lease.seconds, 60);
    let owner = pair.owner.id();
    let grants = vec![pair.grant];
    pair.owner
        .submit(&service, Action::Revoke { owner, grants }, None)
        .await
        .unwrap();
    for _ in 0..10_000 {
        let refusal = pair.release(&service).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::NotGranted);
    }
}

#[tokio::test]
async fn what_is_recorded_behind_a_revocation_says_that_it_was_decided_before() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    for _ in 0..3 {
        clock.advance(10);
        pair.release(&service).await.unwrap();
    }
    clock.advance(5);
    let (owner, grants) = (pair.owner.id(), vec![pair.grant]);
    let revoke = Action::Revoke { owner, grants };
    let receipt = pair.owner.submit(&service, revoke, None).await.unwrap();
    let revoked = receipt.state.point.sequence;
    // Renewals are counted, and a stop records what was counted.
    stop(service);
    let service = open(folder.path(), &clock);
    let (_, items) = audit(&service, &pair.owner, &pair.owner).await;
    let mut behind = Vec::new();
    for (number, item) in (1u64..).zip(&items) {
        if let AuditItem::Shown(public) = item
            && let Record::Released(released) = audit::decode(public).unwrap().record
            && number > revoked
        {
            behind.push(released);
        }
    }
    // The first release may have been written with the revocation.
    assert!(behind.iter().all(|released| released.state < revoked));
    let last = behind.last().unwrap();
    assert_eq!((last.times, last.last), (2, START + 30));
}

#[tokio::test]
async fn a_lease_ends_with_its_grant() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let owner = pair.owner.id();
    let grants = vec![pair.grant];
    let expiring = grant(&pair.owner, &pair.user, Some(START + 90));
    pair.owner.submit(&service, expiring, None).await.unwrap();
    pair.owner
        .submit(&service, Action::Revoke { owner, grants }, None)
        .await
        .unwrap();
    assert_eq!(pair.release(&service).await.unwrap().seconds, 60);
    clock.advance(60);
    assert_eq!(pair.release(&service).await.unwrap().seconds, 30);
    clock.advance(29);
    assert_eq!(pair.release(&service).await.unwrap().seconds, 1);
    clock.advance(1);
    let refusal = pair.release(&service).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::NotGranted);
}

#[tokio::test]
async fn an_owner_sets_how_long_its_models_are_leased() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    for (seconds, expected) in [(Some(5), 5), (Some(3600), 3600), (None, 60)] {
        let name = crate::world::name();
        pair.owner
            .submit(&service, Action::SetLease { name, seconds }, None)
            .await
            .unwrap();
        assert_eq!(pair.release(&service).await.unwrap().seconds, expected);
    }
}

#[tokio::test]
async fn an_alias_moves_at_once_and_a_retired_version_is_gone() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let (action, key) = put_model(2);
    pair.owner.submit(&service, action, key).await.unwrap();
    let alias = sesemi_protocol::AliasName::new("stable").unwrap();
    let name = crate::world::name();
    let mut request = pair.request();
    request.model.version = sesemi_protocol::VersionSelector::Alias(alias.clone());
    let ask = || crate::world::release(&service, crate::world::CODE, request.clone());
    assert_eq!(ask().await.unwrap_err().code, RefusalCode::UnknownModel);
    for number in [1, 2, 1] {
        let version = crate::world::version(number);
        let (name, alias) = (name.clone(), alias.clone());
        let set = Action::SetAlias {
            name,
            alias,
            version,
        };
        pair.owner.submit(&service, set, None).await.unwrap();
        assert_eq!(ask().await.unwrap().model.version, version);
    }
    let version = crate::world::version(1);
    let retire = Action::RetireModel { name, version };
    pair.owner.submit(&service, retire, None).await.unwrap();
    assert_eq!(ask().await.unwrap_err().code, RefusalCode::UnknownModel);
    assert_eq!(
        pair.release(&service).await.unwrap_err().code,
        RefusalCode::UnknownModel
    );
    let (action, key) = put_model(1);
    assert_eq!(
        pair.owner.submit(&service, action, key).await.map(drop),
        Err(RefusalCode::AlreadyExists),
        "a retired number is not used again"
    );
}
