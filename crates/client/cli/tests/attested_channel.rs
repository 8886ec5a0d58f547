//! Clients send nothing to a KeyService that is not exactly the one they trust.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use sesemi::{
    AppraisalPolicy, Client, CodeIdentityDigest, Digest, Endorsements, Error, EvidenceVerifier,
    Identity, ServiceId, Trust, TrustAnchor,
};
use sesemi_cli::demo::trust;
use sesemi_cli::stack::Stack;
use support::{keyservice, start, start_in};

async fn connect(stack: &Stack, trust: Trust) -> Result<Client, Error> {
    Client::connect(
        Identity::generate().unwrap(),
        keyservice(&stack.facts),
        trust,
    )
    .await
}

/// How many principals and commands the service has accepted so far.
async fn log_length(stack: &Stack) -> u64 {
    let identity = Identity::generate().unwrap();
    let address = keyservice(&stack.facts);
    let client =
        Client::connect_unregistered(identity, address, trust(&stack.facts).unwrap()).await;
    client.unwrap().seen().point.sequence
}

fn reason(result: Result<Client, Error>) -> String {
    let mut error: &dyn std::error::Error = &result.unwrap_err();
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        text.push_str(" / ");
        text.push_str(&cause.to_string());
        error = cause;
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyservice_that_is_not_exactly_the_trusted_one_is_refused_before_anything_is_sent() {
    let (_folder, stack) = start().await;
    let good = trust(&stack.facts).unwrap();

    let other_code = Trust {
        policy: AppraisalPolicy::reference_values([CodeIdentityDigest([7; 32])]).unwrap(),
        ..good.clone()
    };
    assert!(reason(connect(&stack, other_code).await).contains("not among the approved"));

    let other_service = Trust {
        service: Some(ServiceId([7; 32])),
        ..good.clone()
    };
    assert!(reason(connect(&stack, other_service).await).contains("a clone, or the wrong address"));

    let endorsements = std::fs::read(&stack.facts.endorsements).unwrap();
    let production = Trust {
        verifier: EvidenceVerifier::new(
            TrustAnchor::production().unwrap(),
            Endorsements::from_json(&endorsements).unwrap(),
        ),
        ..good.clone()
    };
    // The same measurement under another root is another code identity, so the chain is not even looked at.
    let refused = reason(connect(&stack, production).await);
    assert!(refused.contains("not among the approved"), "{refused}");

    // The first entry is the founding of the service.
    assert_eq!(log_length(&stack).await, 1, "no command arrived");
    connect(&stack, good).await.unwrap();
    assert_eq!(log_length(&stack).await, 2);
    stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_with_the_same_code_on_the_same_platform_is_refused_because_it_lacks_the_identity()
{
    let (folder, stack) = start().await;
    let clone_folder = tempfile::tempdir().unwrap();
    let (from, to) = ("state/platform", clone_folder.path().join("state/platform"));
    std::fs::create_dir_all(to.join("public")).unwrap();
    for file in [
        "machine.json",
        "public/root.der",
        "public/root.pem",
        "public/collateral.json",
    ] {
        std::fs::copy(folder.path().join(from).join(file), to.join(file)).unwrap();
    }
    let (_clone_folder, clone) = start_in(clone_folder).await;
    assert_eq!(
        stack.facts.keyservice_code, clone.facts.keyservice_code,
        "the very same measurement"
    );
    let swapped = Client::connect(
        Identity::generate().unwrap(),
        keyservice(&clone.facts),
        trust(&stack.facts).unwrap(),
    );
    assert!(reason(swapped.await).contains("a clone, or the wrong address"));
    stack.stop().await.unwrap();
    clone.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_code_on_another_platform_is_refused() {
    let (_folder, stack) = start().await;
    let (_other_folder, other) = start().await;
    // The same binaries, so the same measurement; another simulated platform, so another root.
    assert_ne!(stack.facts.keyservice_code, other.facts.keyservice_code);
    let swapped = Client::connect(
        Identity::generate().unwrap(),
        keyservice(&other.facts),
        trust(&stack.facts).unwrap(),
    );
    assert!(reason(swapped.await).contains("the evidence does not verify"));
    stack.stop().await.unwrap();
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_speak_garbage_or_nothing_do_not_harm_others() {
    use std::io::Write as _;
    let (_folder, stack) = start().await;
    let address = keyservice(&stack.facts);
    let mut silent = Vec::new();
    for i in 0..20 {
        let mut tcp = std::net::TcpStream::connect(address).unwrap();
        if i % 2 == 0 {
            tcp.write_all(&[0x16, 0x03, 0x01, 0xff, 0xff, 0, 0, 0, 0])
                .unwrap();
        }
        silent.push(tcp);
    }
    connect(&stack, trust(&stack.facts).unwrap()).await.unwrap();
    drop(silent);
    stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyservice_that_is_governed_by_others_than_expected_is_refused() {
    let (_folder, stack) = start().await;
    let mut custodians = Vec::new();
    for _ in 0..2 {
        custodians.push(connect(&stack, trust(&stack.facts).unwrap()).await.unwrap());
    }
    let governed_by = |digest| Trust {
        custodians: Some(digest),
        ..trust(&stack.facts).unwrap()
    };
    let nobody = connect(&stack, governed_by(Digest([7; 32]))).await;
    assert!(reason(nobody).contains("(none, not"));
    let ids = custodians.iter().map(Client::id).collect();
    custodians[0].name_custodians(ids, 2).await.unwrap();
    custodians[0].check_state().await.unwrap();
    let right = custodians[0].custodians().unwrap();
    assert!(connect(&stack, governed_by(right)).await.is_ok());
    let others = connect(&stack, governed_by(Digest([7; 32]))).await;
    assert!(reason(others).contains("other custodians than expected"));
    stack.stop().await.unwrap();
}
