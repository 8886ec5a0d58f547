//! Connections: how many, how often, and for how long.

use std::time::Duration;

use sesemi_keyservice::server::Bounds;
use sesemi_protocol::wire::Reply;
use tokio::io::AsyncReadExt as _;

use crate::running::{LIMIT, has_status, serve};

/// Longer than a test waits for anything.
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_hold_their_places_no_longer_than_a_handshake_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        handshakes: 4,
        handshake: Duration::from_secs(1),
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100, 100).await;
    // Three times as many as there are places, from more than one address, so that none is spared by where it comes from.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(running.silent().await);
        silent.push(
            tokio::net::TcpStream::connect(running.address)
                .await
                .unwrap(),
        );
    }
    assert!(has_status(&mut running.principal().await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_hold_up_their_own_address_only() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        handshakes: 4,
        handshakes_per_address: 3,
        handshake: NEVER,
        handshake_wait: NEVER,
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100, 100).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(running.silent().await);
    }
    assert!(has_status(&mut running.principal().await).await);
    assert!(has_status(&mut running.enclave().await).await);
    // And not because the silent ones made room.
    assert!(running.counted("sesemi_keyservice_failed_handshakes_total 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_holds_all_that_it_may_is_refused_at_once_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        per_address: 2,
        handshake: NEVER,
        handshake_wait: NEVER,
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100, 100).await;
    let _held = (running.silent().await, running.silent().await);
    let mut third = running.silent().await;
    let ended = tokio::time::timeout(LIMIT, third.read(&mut [0; 1])).await;
    let ended = ended.expect("it is closed, not left waiting");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    assert!(running.counted("sesemi_keyservice_crowded_total 1"));
    assert!(has_status(&mut running.principal().await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_silent_connections_leaves_places_for_arrivals_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        arriving: 4,
        arriving_per_address: 3,
        handshake: NEVER,
        handshake_wait: NEVER,
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100, 100).await;
    // More than all places together: those beyond the address's own are closed and do not wait.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(running.silent().await);
    }
    assert!(has_status(&mut running.principal().await).await);
    assert!(has_status(&mut running.enclave().await).await);
    assert!(running.counted("sesemi_keyservice_crowded_total 9"));
    assert!(running.counted("sesemi_keyservice_failed_handshakes_total 0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_gets_a_place_back_when_it_closes_a_channel() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        per_address: 2,
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 1000, 1000).await;
    let mut kept = running.principal().await;
    let left = running.principal().await;
    assert!(running.try_principal().await.is_none());
    drop(left);
    // The server sees the end a moment later.
    let again = async {
        loop {
            match running.try_principal().await {
                Some(channel) => break channel,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut again = tokio::time::timeout(LIMIT, again).await.expect("a place");
    assert!(has_status(&mut again).await);
    assert!(has_status(&mut kept).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn principals_cannot_take_the_channels_that_are_kept_for_enclaves() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        channels: 4,
        reserve: 2,
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 1000, 1000).await;
    let mut principals = [running.principal().await, running.principal().await];
    for principal in &mut principals {
        assert!(has_status(principal).await);
    }
    // Its handshake may still succeed, because only then it is known what it is.
    if let Some(mut third) = running.try_principal().await {
        assert!(!has_status(&mut third).await);
    }
    let mut enclaves = [running.enclave().await, running.enclave().await];
    for enclave in &mut enclaves {
        assert!(has_status(enclave).await);
    }
    for principal in &mut principals {
        assert!(has_status(principal).await, "nobody was thrown out");
    }
    assert!(running.counted("sesemi_keyservice_channels 4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_often_costs_no_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 3, 100).await;
    let mut served = 0;
    for _ in 0..5 {
        served += u32::from(running.try_principal().await.is_some());
    }
    assert_eq!(served, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_some_age_is_closed_after_its_call_and_its_peer_is_attested_anew() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        age: Duration::from_secs(1),
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100, 100).await;
    for _ in 0..2 {
        let mut channel = running.principal().await;
        assert!(has_status(&mut channel).await);
        let end: Option<Reply> = channel.receive(LIMIT).await.unwrap();
        assert!(end.is_none(), "closed properly");
    }
}
