//! OpenWhisk's REST interface and clients that know no key, send nonsense, stall, leave, or want more than there is.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod instance;
mod whisk;

use std::time::Duration;

use hyper::Method;
use instance::{Gate, until, within};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use whisk::{BASIC, Whisk};

const ACTION: &str = "/api/v1/namespaces/_/actions/a";

/// Sends bytes as they are, and gives back all that is answered until the connection is closed.
async fn raw(whisk: &Whisk, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(whisk.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A reset counts as a close.
    let _ = within(read, "the connection to be closed").await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
        .into_bytes()
}

async fn gated(whisk: &Whisk, gate: &Gate, query: &str) -> tokio::task::JoinHandle<whisk::Reply> {
    let command = String::from_utf8(gate.body("x").to_vec()).unwrap();
    whisk.begin("a", query, json!({"command": command}))
}

#[tokio::test]
async fn nothing_is_told_or_done_without_the_right_key() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    for authorization in [
        "",
        "authorization: Basic\r\n",
        "authorization: Basic Og==\r\n",
        "authorization: Basic dXNlcjprZXk=\r\n",
        "authorization: Bearer x\r\n",
        &format!("authorization: {BASIC}\r\nauthorization: {BASIC}\r\n"),
        &format!("authorization: {}\r\n", BASIC.replace("cw==", "dA==")),
        &format!("authorization: {}\r\n", BASIC.trim_end_matches("cw==")),
    ] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api/v1/namespaces"),
            ("GET", ACTION),
            ("DELETE", ACTION),
            ("POST", ACTION),
        ] {
            let answer = raw(&whisk, &head(method, path, authorization)).await;
            assert!(
                answer.starts_with("HTTP/1.1 401 "),
                "{method} {path}: {answer}"
            );
            assert!(
                answer.to_lowercase().contains("www-authenticate: basic"),
                "{answer}"
            );
        }
        // Its body is not waited for.
        let headers = format!("{authorization}content-length: 1000000\r\n");
        let answer = raw(&whisk, &head("PUT", ACTION, &headers)).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert_eq!(whisk.get("/_/actions/a").await.status, 200);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_however_it_is_announced() {
    let whisk = Whisk::new(|_, rest| rest.max_payload_bytes = 10_000)
        .await
        .with("a")
        .await;
    for method in [Method::POST, Method::PUT] {
        let body = format!("{{\"x\":\"{}\"}}", "y".repeat(10_000));
        let refused = whisk.ask(method, "/_/actions/a?overwrite=true", body).await;
        assert_eq!(refused.refusal(), 413);
        // Nothing else can be asked on a connection with the rest of a body in it.
        assert_eq!(refused.headers["connection"], "close");
    }
    let headers = format!("authorization: {BASIC}\r\ntransfer-encoding: chunked\r\n");
    let chunks = format!("{:x}\r\n{}\r\n0\r\n\r\n", 20_000, "y".repeat(20_000));
    let request = [head("POST", ACTION, &headers), chunks.into()].concat();
    let answer = raw(&whisk, &request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(whisk.command("a", "pid").await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_or_breaks_off_invokes_nothing() {
    let whisk = Whisk::new(|_, rest| rest.body_timeout = Duration::from_millis(100))
        .await
        .with("a")
        .await;
    let headers = format!("authorization: {BASIC}\r\ncontent-length: 100\r\n");
    let begun = [head("POST", ACTION, &headers), b"{\"x\":".to_vec()].concat();
    let answer = raw(&whisk, &begun).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut leaving = TcpStream::connect(whisk.address).await.unwrap();
    leaving.write_all(&begun).await.unwrap();
    drop(leaving);
    assert_eq!(whisk.command("a", "pid").await.status, 200);
    let records = whisk.get("/_/activations").await.json();
    assert_eq!(records.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nonsense_is_refused_with_the_right_status() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let id = "0".repeat(32);
    for (method, path, body, status) in [
        (Method::GET, "/_/nothing", "", 404),
        (Method::GET, "/_", "", 404),
        (Method::GET, "/_/actions/a/b", "", 404),
        (Method::GET, "/_/actions/a/b/c", "", 404),
        (Method::GET, "/other/actions", "", 403),
        (Method::DELETE, "/other/actions/a", "", 403),
        (Method::GET, "/_/actions/%2e%2e%2fa", "", 400),
        (Method::GET, "/_/actions/%00", "", 400),
        (Method::GET, "/_/actions/-a", "", 400),
        (Method::PATCH, "/_/actions/a", "", 405),
        (Method::POST, "/_/actions", "{}", 405),
        (Method::DELETE, "/_/activations", "", 405),
        (Method::GET, "/_/activations/x", "", 400),
        (Method::GET, &format!("/_/activations/{id}"), "", 404),
        (Method::GET, &format!("/_/activations/{id}/other"), "", 404),
        (Method::GET, "/_/activations?limit=201", "", 400),
        (Method::GET, "/_/activations?since=x", "", 400),
        (Method::GET, "/_/actions?limit=-1", "", 400),
        (Method::POST, "/_/actions/a", "5", 400),
        (Method::POST, "/_/actions/a", "{\"a\":1}}", 400),
        (
            Method::POST,
            "/_/actions/a",
            "{\"a\":1},\"deadline\":\"1\"",
            400,
        ),
        (Method::POST, "/_/actions/a?blocking=maybe", "{}", 400),
        (
            Method::POST,
            "/_/actions/a?blocking=true&timeout=60001",
            "{}",
            400,
        ),
        (Method::POST, "/_/actions/a?timeout=0", "{}", 400),
        (Method::PUT, "/_/actions/b", "", 400),
        (Method::PUT, "/_/actions/b", "{}", 400),
        (Method::PUT, "/_/actions/b", "[]", 400),
        (Method::PUT, "/_/actions/b?overwrite=1", "{}", 400),
    ] {
        let reply = whisk.ask(method.clone(), path, body).await;
        assert_eq!(reply.refusal(), status, "{method} {path} {body}");
    }
    let deep = "[".repeat(100_000);
    let reply = whisk.ask(Method::POST, "/_/actions/a", deep).await;
    assert_eq!(reply.refusal(), 400);
    let reply = raw(
        &whisk,
        &head("GET", "/api/v2/x", &format!("authorization: {BASIC}\r\n")),
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
}

#[tokio::test]
async fn a_caller_can_start_no_program_that_the_operator_did_not_name() {
    let whisk = Whisk::new(|_, _| {}).await;
    for image in ["/bin/sh", "../good", "good ", "sh", "", "good\0"] {
        let exec = json!({"exec": {"kind": "blackbox", "image": image}});
        let refused = whisk.put("a", exec).await;
        assert_eq!(refused.refusal(), 400, "{image:?}");
    }
    assert_eq!(whisk.deployed().await, 0);
}

#[tokio::test]
async fn activations_at_once_are_bounded_and_their_places_come_back() {
    let whisk = Whisk::new(|_, rest| rest.max_activations = 1)
        .await
        .with("a")
        .await;
    let gate = Gate::new().await;
    for query in ["", "blocking=true", "blocking=true&timeout=1"] {
        let running = gated(&whisk, &gate, query).await;
        let held = gate.arrival().await;
        for query in ["", "blocking=true"] {
            let refused = whisk.begin("a", query, json!({})).await.unwrap();
            assert_eq!(refused.refusal(), 429);
            assert!(refused.headers.contains_key("retry-after"));
        }
        held.release().await;
        let id = running.await.unwrap().activation();
        whisk.record(&id).await;
        until("its place to be free", async || {
            whisk.command("a", "pid").await.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn actions_are_bounded_in_number() {
    let whisk = Whisk::new(|_, rest| rest.max_actions = 2).await;
    let whisk = whisk.with("a").await.with("b").await;
    assert_eq!(whisk.put("c", json!({})).await.refusal(), 429);
    assert_eq!(whisk.put("a", json!({})).await.status, 200);
    assert_eq!(whisk.deployed().await, 2);
}

#[tokio::test]
async fn records_are_a_ring() {
    let whisk = Whisk::new(|_, rest| rest.max_records = 3)
        .await
        .with("a")
        .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(whisk.command("a", "pid").await.activation());
    }
    for (number, id) in ids.iter().enumerate() {
        let status = whisk.get(&format!("/_/activations/{id}")).await.status;
        assert_eq!(status, if number < 2 { 404 } else { 200 });
    }
}

#[tokio::test]
async fn an_activation_goes_on_when_its_caller_leaves() {
    let whisk = Whisk::new(|_, _| {}).await.with("a").await;
    let gate = Gate::new().await;
    let leaving = gated(&whisk, &gate, "blocking=true").await;
    let held = gate.arrival().await;
    leaving.abort();
    let _ = leaving.await;
    held.release().await;
    until("its record to be there", async || {
        let listed = whisk.get("/_/activations").await.json();
        listed[0]["statusCode"] == 0
    })
    .await;
}

#[tokio::test]
async fn an_action_larger_than_the_platform_is_refused_when_it_is_made() {
    let whisk = Whisk::new(|local, _| local.user_memory_mib = 256).await;
    let large = json!({"limits": {"memory": 512}});
    assert_eq!(whisk.put("a", large).await.refusal(), 400);
    assert_eq!(
        (
            whisk.deployed().await,
            whisk.get("/_/actions/a").await.status
        ),
        (0, 404)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_replace_delete_and_invoke_an_action_leave_one_or_none() {
    let whisk = Whisk::new(|local, _| local.user_memory_mib = 512)
        .await
        .with("a")
        .await;
    let body = json!({"exec": {"kind": "blackbox", "image": "good"}}).to_string();
    let mut calls = Vec::new();
    for round in 0..8 {
        for _ in 0..4 {
            let path = "/_/actions/a?overwrite=true";
            calls.push((Method::PUT, whisk.spawn(Method::PUT, path, body.clone())));
            let invoked = whisk.begin("a", "blocking=true", json!({}));
            calls.push((Method::POST, invoked));
        }
        if round % 3 == 2 {
            let deleted = whisk.spawn(Method::DELETE, "/_/actions/a", "");
            calls.push((Method::DELETE, deleted));
        }
    }
    for (method, call) in calls {
        let reply = call.await.unwrap();
        let allowed: &[u16] = match method {
            Method::PUT => &[200, 409],
            // Deleted before it ran, or while it waited.
            Method::POST => &[200, 404, 500],
            _ => &[200, 404],
        };
        assert!(allowed.contains(&reply.status), "{method}: {reply:?}");
    }
    let listed = whisk
        .get("/_/actions")
        .await
        .json()
        .as_array()
        .unwrap()
        .len();
    assert_eq!(whisk.deployed().await, listed);
    whisk.put("a", json!({})).await;
    assert_eq!(whisk.command("a", "pid").await.status, 200);
}
