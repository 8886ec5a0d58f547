//! Clients that leave, stall or talk nonsense harm nobody but themselves; and how the gateway ends.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../../platform/tests/instance/mod.rs"]
mod instance;
mod rig;

use std::time::Duration;

use instance::{Gate, process_exists, until, within};
use rig::{Rig, read_to_end};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ONE: &[(&str, &str)] = &[("sesemi-model", "m")];

async fn single_slot() -> Rig {
    Rig::new(|config| (config.pool.endpoints, config.pool.slots) = (1, 1)).await
}

fn request(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/infer HTTP/1.1\r\nhost: x\r\nsesemi-model: m\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_its_slot_or_its_place_in_the_queue() {
    let rig = single_slot().await;
    let gate = Gate::new().await;
    let mut leaving = rig.connect().await;
    leaving
        .write_all(&request(&gate.body("leaving")))
        .await
        .unwrap();
    let _held = gate.arrival().await;
    let mut queued = rig.connect().await;
    queued.write_all(&request(b"echo")).await.unwrap();
    rig.until_queued(1).await;
    drop(queued);
    rig.until_queued(0).await;
    drop(leaving);
    until("the slot to be free", async || rig.in_flight().await == 0).await;
    assert_eq!(rig.infer("m", "echo").await.status, 200);
    assert!(
        rig.get("/metrics")
            .await
            .text()
            .contains("outcome=\"abandoned\"} 2")
    );
}

#[tokio::test]
async fn malformed_http_ends_its_connection_and_nothing_else() {
    let rig = single_slot().await;
    let long_head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1000));
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/infer HTTP/1.1\r\nsesemi-model: m\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/infer HTTP/1.1\r\nsesemi-model: m\r\ncontent-length: 10\r\n\r\nshort",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long_head.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let mut stream = rig.connect().await;
        let _ = stream.write_all(nonsense).await;
        let _ = stream.shutdown().await;
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.contains("HTTP/1.1 200"), "{answer}");
        assert_eq!(rig.infer("m", "echo").await.status, 200);
    }
    assert_eq!(rig.in_flight().await, 0);
}

#[tokio::test]
async fn connections_that_say_nothing_or_stop_half_way_hold_no_slot_and_end() {
    let rig = Rig::new(|config| {
        (config.pool.endpoints, config.pool.slots) = (1, 1);
        config.http.head_timeout = Duration::from_millis(200);
        config.http.default_timeout = Duration::from_secs(2);
    });
    let rig = rig.await;
    let mut idle = rig.connect().await;
    let mut in_head = rig.connect().await;
    in_head
        .write_all(b"POST /v1/infer HTTP/1.1\r\nhost: x\r\nsese")
        .await
        .unwrap();
    let mut in_body = rig.connect().await;
    let whole = request(b"echo of a body");
    in_body.write_all(&whole[..whole.len() - 3]).await.unwrap();
    assert_eq!(
        rig.infer("m", "echo").await.status,
        200,
        "served while the others stall"
    );
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(!read_to_end(&mut in_head).await.contains("200 OK"));
    let answer = read_to_end(&mut in_body).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"),
        "{answer}"
    );
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let rig = Rig::new(|config| {
        config.http.max_connections = 2;
        config.http.head_timeout = Duration::from_millis(200);
    });
    let rig = rig.await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(rig.connect().await);
    }
    assert_eq!(rig.infer("m", "echo").await.status, 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_slot_and_is_cut_off() {
    let rig = Rig::new(|config| {
        (config.pool.endpoints, config.pool.slots) = (1, 1);
        config.http.max_connections = 2;
        config.http.stall_timeout = Duration::from_millis(500);
    });
    let rig = rig.await;
    const SIZE: usize = 50_000_000;
    let mut stalling = rig.connect().await;
    stalling
        .write_all(&request(format!("big {SIZE}").as_bytes()))
        .await
        .unwrap();
    // The first bytes: the whole answer is at the gateway, and most of it stays there.
    stalling.read_exact(&mut [0; 12]).await.unwrap();
    assert_eq!(rig.infer("m", "echo").await.status, 200);
    // Both connections are taken, one by this test's client: a third is served when the stalling one is cut.
    let mut third = rig.connect().await;
    third
        .write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(read_to_end(&mut third).await.starts_with("HTTP/1.1 200"));
    assert!(read_to_end(&mut stalling).await.len() < SIZE);
}

#[tokio::test]
async fn draining_withdraws_readiness_refuses_what_comes_and_finishes_what_runs() {
    let mut rig = Rig::new(|_| {}).await;
    let gate = Gate::new().await;
    let pid: u32 = rig.infer("m", "pid").await.text().parse().unwrap();
    let running = rig.spawn(ONE, gate.body("x"));
    let held = gate.arrival().await;
    rig.ask_to_stop();
    until("readiness to be withdrawn", async || {
        rig.get("/health/ready").await.status == 503
    })
    .await;
    assert_eq!(rig.get("/health/live").await.status, 200);
    assert_eq!(
        rig.infer("m", "echo").await.refusal(),
        (503, "shutting_down".to_owned())
    );
    held.release().await;
    assert_eq!(running.await.unwrap().status, 200);
    rig.stopped().await;
    assert!(!process_exists(pid));
}

#[tokio::test]
async fn a_drain_does_not_wait_beyond_its_grace() {
    let mut rig = Rig::new(|config| {
        config.http.drain_grace = Duration::from_millis(100);
        config.platform.stop_grace = Duration::from_millis(100);
        config.pool.image.env = instance::environment("stubborn");
    })
    .await;
    let gate = Gate::new().await;
    let pid: u32 = rig.infer("m", "pid").await.text().parse().unwrap();
    let mut running = rig.connect().await;
    running.write_all(&request(&gate.body("x"))).await.unwrap();
    let _held = gate.arrival().await;
    let mut half_open = rig.connect().await;
    half_open.write_all(b"GET /health").await.unwrap();
    rig.ask_to_stop();
    within(rig.stopped(), "the end").await;
    assert!(!process_exists(pid));
    assert!(!read_to_end(&mut running).await.contains("200 OK"));
}
