//! The audit: everybody sees their own part, the chain verifies over all of it, and releases are in it.

use std::sync::Arc;
use std::time::Duration;

use sesemi_keyservice::service::KeyService;
use sesemi_protocol::audit::{self, AuditItem, Record, follow};
use sesemi_protocol::command::{Action, Delegation, Role};
use sesemi_protocol::query::{MAX_SKEW, QueryAnswer, Question};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{CodeIdentityDigest, RefusalCode};

use crate::world::{Actor, START, TestClock, open, pair, put_model, stop};

/// All pages of the log as `of` sees it.
pub(crate) async fn audit(
    service: &Arc<KeyService>,
    asker: &Actor,
    of: &Actor,
) -> (Point, Vec<AuditItem>) {
    let mut all = Vec::new();
    let mut point = Point::START;
    loop {
        let question = Question::Audit {
            of: of.id(),
            after: point.sequence,
        };
        let answer = asker.ask(service, START, question).await.unwrap();
        let QueryAnswer::Audit { from, items } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(from, point, "pages follow each other");
        if items.is_empty() {
            return (point, all);
        }
        point = follow(&from, &items);
        all.extend(items);
    }
}

/// Waits until releases are on record, which takes one tick.
async fn recorded(service: &Arc<KeyService>, entries: u64) {
    for _ in 0..1000 {
        service.tick();
        if service.reader().point().sequence >= entries {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nothing was recorded");
}

#[tokio::test]
async fn everybody_sees_their_own_entries_and_the_chain_verifies_for_all() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let pair = pair(&service).await;
    let stranger = Actor::registered(3, &service).await;
    pair.release(&service).await.unwrap();
    let end = service.reader().point().sequence + 1;
    recorded(&service, end).await;
    for (who, expected) in [
        // founding, own registration, model, grant, release
        (&pair.owner, 5),
        // founding, own registration, grant, key, release
        (&pair.user, 5),
        // founding, own registration
        (&stranger, 2),
    ] {
        let (point, items) = audit(&service, who, who).await;
        assert_eq!(point, service.reader().point());
        let shown = items
            .iter()
            .filter(|item| matches!(item, AuditItem::Shown(_)));
        assert_eq!(shown.count(), expected);
    }
}

#[tokio::test]
async fn a_release_is_on_record_with_its_grant_its_code_and_its_evidence() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let pair = pair(&service).await;
    for _ in 0..3 {
        pair.release(&service).await.unwrap();
    }
    // A stop records what is only counted.
    stop(service);
    let service = open(folder.path(), &clock);
    let (_, items) = audit(&service, &pair.user, &pair.user).await;
    let released: Vec<_> = items
        .iter()
        .filter_map(|item| match item {
            AuditItem::Shown(public) => match audit::decode(public).unwrap().record {
                Record::Released(released) => Some(released),
                _ => None,
            },
            AuditItem::Hidden(_) => None,
        })
        .collect();
    let times: Vec<u32> = released.iter().map(|released| released.times).collect();
    assert_eq!(times, [1, 2]);
    let claims = crate::world::claims(crate::world::CODE);
    for released in released {
        assert_eq!(released.grant, pair.grant);
        assert_eq!(released.code, claims.code);
        assert_eq!(released.evidence, claims.evidence);
    }
}

#[tokio::test]
async fn no_key_is_in_what_is_shown() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let pair = pair(&service).await;
    let lease = pair.release(&service).await.unwrap();
    for who in [&pair.owner, &pair.user] {
        let (_, items) = audit(&service, who, who).await;
        let text = format!("{items:?}").into_bytes();
        let raw: Vec<u8> = items
            .iter()
            .filter_map(|item| match item {
                AuditItem::Shown(public) => Some(public.to_vec()),
                AuditItem::Hidden(_) => None,
            })
            .flatten()
            .collect();
        for key in [&lease.model_key, &lease.request_key] {
            for haystack in [&text, &raw] {
                let found = haystack
                    .windows(32)
                    .any(|window| window == key.expose().as_slice());
                assert!(!found);
            }
        }
        // The search finds what is there.
        let id = who.id();
        assert!(raw.windows(32).any(|window| window == id.as_bytes()));
    }
}

#[tokio::test]
async fn an_auditor_reads_the_log_of_its_principal_and_a_grantor_does_not() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    let delegate = Actor::registered(3, &service).await;
    let of = pair.owner.id();
    let question = Question::Audit { of, after: 0 };
    let refused = Err(RefusalCode::NotPermitted);
    let ask = || delegate.ask(&service, START, question.clone());
    assert_eq!(ask().await.map(drop), refused);
    let to = delegate.id();
    let mut role = async |action: Action| {
        pair.owner.submit(&service, action, None).await.unwrap();
    };
    role(Action::Delegate {
        to,
        delegation: Delegation::Grantor {
            codes: vec![CodeIdentityDigest([7; 32])],
        },
        expires: None,
    })
    .await;
    assert_eq!(ask().await.map(drop), refused);
    role(Action::Delegate {
        to,
        delegation: Delegation::Auditor,
        expires: None,
    })
    .await;
    assert!(ask().await.is_ok());
    role(Action::EndDelegation {
        to,
        role: Role::Auditor,
    })
    .await;
    assert_eq!(ask().await.map(drop), refused);
}

#[tokio::test]
async fn a_question_is_good_for_ten_minutes_and_for_one_service() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let other = tempfile::tempdir().unwrap();
    let other = open(other.path(), &clock);
    let actor = Actor::registered(1, &service).await;
    let mut elsewhere = Actor::registered(1, &other).await;
    let question = || Question::RequestKeys { after: 0 };
    assert!(actor.ask(&service, START, question()).await.is_ok());
    for at in [START - MAX_SKEW - 1, START + MAX_SKEW + 1, 0, u64::MAX] {
        let answer = actor.ask(&service, at, question()).await;
        assert_eq!(answer.map(drop), Err(RefusalCode::ClockSkew));
    }
    elsewhere.seen = Point::START;
    let signed = sesemi_protocol::query::Query {
        service: service.id(),
        at: START,
        seen: Point::START,
        question: question(),
    };
    let signed = signed.sign(&elsewhere.identity).unwrap();
    let call = sesemi_protocol::wire::CallBody::Query(signed.into());
    let peer = sesemi_attest::channel::Peer::Principal;
    let reply = other.answer(&peer, call).await;
    assert!(matches!(
        reply,
        sesemi_protocol::wire::ReplyBody::Refused(refusal) if refusal.code == RefusalCode::WrongService
    ));
}

#[tokio::test]
async fn a_long_log_comes_in_pages_that_fit_into_messages() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut owner = Actor::registered(1, &service).await;
    for version in 1..=200 {
        let (action, key) = put_model(version);
        owner.submit(&service, action, key).await.unwrap();
    }
    let (point, items) = audit(&service, &owner, &owner).await;
    assert_eq!(point, service.reader().point());
    assert_eq!(items.len(), 202);
    let after = point.sequence + 1;
    let of = owner.id();
    let beyond = owner.ask(&service, START, Question::Audit { of, after });
    assert_eq!(beyond.await.map(drop), Err(RefusalCode::NotFound));
}
