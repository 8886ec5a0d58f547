//! What waits for the log while the disk is slow: each principal has a share of it. And a clock that went back is told of.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sesemi_keyservice::service::KeyService;
use sesemi_keyservice::service::writer::QUEUE_OF_ONE;
use sesemi_keyservice::start::Opening;
use sesemi_protocol::RefusalCode;
use sesemi_protocol::wire::ReplyBody;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use crate::gate::{Gate, on_gated_disk};
use crate::world::{Actor, TestClock, put_model, resources, send, setup, stop};

type Replies = UnboundedReceiver<ReplyBody>;

/// Sends commands for so many new versions at once.
fn send_at_once(
    service: &Arc<KeyService>,
    owner: &mut Actor,
    versions: core::ops::RangeInclusive<u32>,
) -> (Vec<JoinHandle<()>>, Replies) {
    let (replies, received) = unbounded_channel();
    let calls = versions.map(|version| {
        let (action, key) = put_model(version);
        let signed = owner.sign(service, action);
        let (service, replies) = (service.clone(), replies.clone());
        tokio::spawn(async move {
            let _ = replies.send(send(&service, &signed, key).await);
        })
    });
    (calls.collect(), received)
}

fn is_busy(reply: &ReplyBody) -> bool {
    matches!(reply, ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Busy)
}

#[tokio::test]
async fn a_principal_has_only_so_many_commands_waiting_and_others_have_theirs() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::default());
    let service = on_gated_disk(folder.path(), &gate);
    let mut greedy = Actor::registered(1, &service).await;
    let mut modest = Actor::registered(2, &service).await;
    gate.hold(true);
    let (_calls, mut replies) = send_at_once(&service, &mut greedy, 1..=40);
    // The disk answers nobody: who gets an answer now gets it for having too many.
    for _ in QUEUE_OF_ONE..40 {
        assert!(is_busy(&replies.recv().await.unwrap()));
    }
    let (_calls, mut other) = send_at_once(&service, &mut modest, 1..=1);
    gate.hold(false);
    assert!(matches!(other.recv().await, Some(ReplyBody::Receipt(_))));
    for _ in 0..QUEUE_OF_ONE {
        let reply = replies.recv().await;
        assert!(matches!(reply, Some(ReplyBody::Receipt(_))), "{reply:?}");
    }
    assert!(replies.recv().await.is_none());
    let (action, key) = put_model(41);
    greedy.submit(&service, action, key).await.unwrap();
}

#[tokio::test]
async fn whoever_leaves_has_its_commands_waiting_still() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::default());
    let service = on_gated_disk(folder.path(), &gate);
    let mut greedy = Actor::registered(1, &service).await;
    gate.hold(true);
    let last = u32::try_from(QUEUE_OF_ONE).unwrap() + 1;
    let (calls, mut replies) = send_at_once(&service, &mut greedy, 1..=last);
    assert!(is_busy(&replies.recv().await.unwrap()));
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    let (action, key) = put_model(last);
    let refused = greedy.submit(&service, action, key).await;
    assert_eq!(refused.map(drop), Err(RefusalCode::Busy));
    // What had come in is carried out all the same.
    let reader = service.reader().clone();
    gate.hold(false);
    stop(service);
    assert_eq!(
        reader.point().sequence,
        2 + u64::try_from(QUEUE_OF_ONE).unwrap()
    );
}

#[tokio::test]
async fn how_far_the_clock_is_behind_the_log_is_counted_until_it_has_caught_up() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let resources = resources(&clock);
    let metrics = resources.metrics.clone();
    let Opening::Service(service) = setup(folder.path()).open(resources).unwrap() else {
        panic!("locked")
    };
    let service = Arc::new(*service);
    let behind = |service: &KeyService| {
        service.keep();
        let metrics = metrics.render();
        let name = "sesemi_keyservice_clock_behind_seconds ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(behind(&service), 0);
    let now = clock.0.load(Ordering::SeqCst);
    clock.advance(1_000);
    Actor::registered(1, &service).await;
    assert_eq!(behind(&service), 0);
    clock.0.store(now, Ordering::SeqCst);
    assert_eq!(behind(&service), 1_000);
    clock.advance(400);
    assert_eq!(behind(&service), 600);
    clock.advance(700);
    assert_eq!(behind(&service), 0);
}
