//! What KeyService acknowledged survives SIGKILL right after the acknowledgement.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use support::{input, join, push, rows, semirt, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_acknowledged_is_there_after_kill_9() {
    let (_folder, mut stack) = start().await;
    let mut owner = join(&stack.facts).await;
    let model = push(&stack.facts, &mut owner).await;
    let code = semirt(&stack.facts);
    let row = input(&rows()[0]);
    for _ in 0..4 {
        let mut user = join(&stack.facts).await;
        user.approve_code(&model, [code]).await.unwrap();
        let receipt = owner.grant(&model, user.id(), code).await.unwrap();
        stack.crash_keyservice().await.unwrap();

        // The log goes as far as the receipt says, the service is the same, and the grant works.
        let state = user.check_state().await.unwrap();
        assert_eq!(state, receipt.state);
        let inference = user
            .infer(&stack.facts.gateway, &model, std::slice::from_ref(&row))
            .await;
        assert_eq!(inference.unwrap().outputs[0].shape, [1, 2]);
    }
    stack.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_state_was_rolled_back_is_noticed_by_a_client_that_saw_more() {
    let (folder, mut stack) = start().await;
    let mut owner = join(&stack.facts).await;
    let database = folder.path().join("state/keyservice/state.redb");
    let older = folder.path().join("older.redb");

    // A copy of a consistent, older state: taken while the service is down.
    stack
        .crash_keyservice_and(|| std::fs::copy(&database, &older).map(drop))
        .await
        .unwrap();
    let model = push(&stack.facts, &mut owner).await;
    let mut user = join(&stack.facts).await;
    user.approve_code(&model, [semirt(&stack.facts)])
        .await
        .unwrap();
    let seen = user.seen().sequence;
    stack
        .crash_keyservice_and(|| std::fs::copy(&older, &database).map(drop))
        .await
        .unwrap();

    match user.check_state().await {
        Err(sesemi::Error::Stale {
            found, seen: saw, ..
        }) => {
            assert_eq!(saw, seen);
            assert!(found < seen);
        }
        other => panic!("{other:?}"),
    }
    stack.stop().await.unwrap();
}
