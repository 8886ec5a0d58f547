//! The real KeyService in the simulated TEE: killed, on a full disk, rolled back, and cloned.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::Path;
use std::process::Command;

use sesemi_attest::channel::Connector;
use sesemi_crash::client::{Client, Outcome};
use sesemi_crash::full_disk;
use sesemi_crash::lab::{Lab, Programs};
use sesemi_crash::process::{Announced, Running};
use sesemi_protocol::command::{Action, Delegation};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{RefusalCode, SigningIdentity, SystemEntropy};

fn programs() -> Programs {
    Programs::in_folder(&sesemi_testkit::binaries())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_lose_nothing_and_leave_nothing_that_nobody_sent() {
    for seed in [1, 2] {
        let findings = sesemi_crash::run(&programs(), 10, seed, |_| {})
            .await
            .unwrap();
        assert!(findings.clean(), "{:?}", findings.told);
        assert!(findings.kills.total() >= 10, "{findings:?}");
        // There was something to lose.
        assert!(findings.acknowledged > 50, "{findings:?}");
        assert!(findings.entries >= findings.acknowledged, "{findings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_commands_are_refused_releases_go_on_and_nothing_is_lost() {
    let report = full_disk::run(&programs()).await.unwrap();
    assert!(report.findings.clean(), "{:?}", report.findings.told);
    assert!(report.refused >= 2, "{report:?}");
    assert_eq!(report.released, 3, "{report:?}");
    assert!(report.resumed, "{report:?}");
}

async fn started(lab: &Lab) -> (Running, Announced) {
    let mut running = Running::start(lab).unwrap();
    let announced = running.announced().await.unwrap();
    (running, announced)
}

async fn registered(connector: &Connector, announced: &Announced) -> Client {
    let identity = SigningIdentity::generate(&SystemEntropy::new()).unwrap();
    let mut client = Client::new(identity);
    client.connect(connector, announced.address).await.unwrap();
    let public_key = *client.identity.public().key();
    acknowledged(&mut client, Action::Register { public_key }).await;
    client
}

async fn acknowledged(client: &mut Client, action: Action) {
    let signed = client.sign(action, None).unwrap();
    match client.submit(&signed).await.unwrap() {
        Outcome::Receipt(receipt, _) => client.seen = receipt.state.point,
        other => panic!("{other:?}"),
    }
}

/// Something that everybody may do.
fn delegation(client: &Client) -> Action {
    Action::Delegate {
        to: client.id,
        delegation: Delegation::Auditor,
        expires: None,
    }
}

/// Both a command and a look at the status are refused.
async fn is_stale(client: &mut Client) {
    let seen = client.seen;
    match client.call(CallBody::Status { seen }).await.unwrap() {
        ReplyBody::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::StaleState),
        other => panic!("{other:?}"),
    }
    let action = delegation(client);
    let signed = client.sign(action, None).unwrap();
    match client.submit(&signed).await.unwrap() {
        Outcome::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::StaleState),
        other => panic!("{other:?}"),
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_state_was_rolled_back_is_noticed_by_who_has_seen_more() {
    let lab = Lab::new(&programs()).unwrap();
    let connector = lab.principals().unwrap();
    let (running, announced) = started(&lab).await;
    let mut idle = registered(&connector, &announced).await;
    let mut involved = registered(&connector, &announced).await;
    running.kill().await.unwrap();
    let older = lab.state().with_extension("older");
    copy(&lab.state(), &older);

    let (running, announced) = started(&lab).await;
    involved
        .connect(&connector, announced.address)
        .await
        .unwrap();
    let action = delegation(&involved);
    acknowledged(&mut involved, action).await;
    running.kill().await.unwrap();
    std::fs::remove_dir_all(lab.state()).unwrap();
    copy(&older, &lab.state());

    let (running, announced) = started(&lab).await;
    for client in [&mut idle, &mut involved] {
        client.connect(&connector, announced.address).await.unwrap();
    }
    is_stale(&mut involved).await;
    // For who has seen nothing of what is missing, it is the service that it was.
    let action = delegation(&idle);
    acknowledged(&mut idle, action).await;
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clones_that_went_on_are_told_apart_by_who_has_seen_the_other_one() {
    let mut lab = Lab::new(&programs()).unwrap();
    let connector = lab.principals().unwrap();
    let (running, announced) = started(&lab).await;
    let mut one = registered(&connector, &announced).await;
    let mut two = registered(&connector, &announced).await;
    running.kill().await.unwrap();
    let original = lab.state();
    copy(&original, &original.with_extension("clone"));

    let (first, at_first) = started(&lab).await;
    lab.use_state(original.with_extension("clone"));
    let (second, at_second) = started(&lab).await;
    one.connect(&connector, at_first.address).await.unwrap();
    two.connect(&connector, at_second.address).await.unwrap();
    for client in [&mut one, &mut two] {
        let action = delegation(client);
        acknowledged(client, action).await;
    }
    // Both are the same service, with one entry more each: only who has seen the other one can tell.
    assert_eq!(one.seen.sequence, two.seen.sequence);
    one.connect(&connector, at_second.address).await.unwrap();
    two.connect(&connector, at_first.address).await.unwrap();
    is_stale(&mut one).await;
    is_stale(&mut two).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}
