//! Requests over real connections: refusals in each protocol's form, requests by reference, and clients that leave.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sesemi_process::http;
use sesemi_protocol::envelope::PendingResponse;
use sesemi_protocol::limits::MAX_ENVELOPE;
use sesemi_protocol::reference::{ObjectName, Reference, Stored};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::http::{Endpoints, Exchange, bounds};

/// A world with a server, and a store for requests by reference.
struct Served {
    world: World,
    exchange: Arc<InMemory>,
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

impl Served {
    async fn new() -> Self {
        Self::with(true, 256 << 20).await
    }

    async fn with(by_reference: bool, memory: usize) -> Self {
        let (world, exchange) = (world().await, Arc::new(InMemory::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let store = by_reference.then(|| Exchange::new(exchange.clone()));
        let endpoints = Endpoints::new(world.runtime.clone(), store, stopped.clone());
        let server = http::serve(listener, Arc::new(endpoints), bounds(memory), stopped);
        tokio::spawn(server);
        Self {
            world,
            exchange,
            address,
            _stop: stop,
        }
    }

    async fn connect(&self, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.write_all(&[head.as_bytes(), body].concat())
            .await
            .unwrap();
        tcp
    }

    /// Status, head and body of an answer.
    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut tcp = self.connect(path, headers, body).await;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let body = answer.split_off(end + 4);
        let head = String::from_utf8(answer).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, body)
    }

    /// Status and code of a refusal at `/v1/infer`.
    async fn refused(&self, headers: &str, body: &[u8]) -> (u16, String) {
        let (status, _, body) = self.post("/v1/infer", headers, body).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"].is_string(), "{body}");
        (status, body["code"].as_str().unwrap().to_owned())
    }

    /// Puts an object and gives a reference to it.
    async fn refer(&self, content: Vec<u8>, request: &str, response: &str) -> Vec<u8> {
        let path = object_store::path::Path::from(request);
        let content = PutPayload::from(content);
        self.exchange.put(&path, content).await.unwrap();
        reference(request, response)
    }

    async fn object(&self, name: &str) -> Option<Vec<u8>> {
        let path = object_store::path::Path::from(name);
        let found = self.exchange.get(&path).await.ok()?;
        Some(found.bytes().await.unwrap().to_vec())
    }
}

fn reference(request: &str, response: &str) -> Vec<u8> {
    let reference = Reference {
        request: ObjectName::new(request).unwrap(),
        response: ObjectName::new(response).unwrap(),
    };
    reference.encode().unwrap().to_vec()
}

fn sealed() -> (Vec<u8>, PendingResponse) {
    let sent = request(1, &request_key(1), &[1.0; 30], Point::START);
    (sent.bytes, sent.pending)
}

#[tokio::test]
async fn a_request_is_answered_in_cose_and_in_the_platforms_json() {
    let served = Served::new().await;
    let (bytes, pending) = sealed();
    let (status, head, body) = served.post("/v1/infer", "", &bytes).await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: application/cose\r\n"),
        "{head}"
    );
    pending.open(body).unwrap().outcome.unwrap();
    let (bytes, pending) = sealed();
    let body = serde_json::json!({"value": {"request": BASE64.encode(bytes)}, "deadline": "99999999999999"});
    let (status, _, body) = served.post("/run", "", body.to_string().as_bytes()).await;
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let answer = BASE64.decode(body["response"].as_str().unwrap()).unwrap();
    pending.open(answer).unwrap().outcome.unwrap();
}

#[tokio::test]
async fn each_way_to_ask_has_its_own_form_of_a_refusal() {
    let served = Served::with(false, 1000).await;
    let infer = async |headers: &str, body: &[u8]| served.refused(headers, body).await;
    assert_eq!(infer("", b"what").await, (400, "malformed".into()));
    // Longer than all memory for bodies.
    assert_eq!(infer("", &[0; 1001]).await, (413, "malformed".into()));
    let late = infer("sesemi-deadline-ms: 0\r\n", b"").await;
    assert_eq!(late, (504, "deadline_exceeded".into()));

    let run = async |body: &[u8]| {
        let (status, _, body) = served.post("/run", "", body).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["error"]["message"].is_string(), "{body}");
        (status, body["error"]["code"].as_str().unwrap().to_owned())
    };
    for bad in [
        &b"what"[..],
        b"{}",
        br#"{"value":{"request":"?"}}"#,
        br#"{"value":{"request":"AAAA"},"deadline":"soon"}"#,
        &[0; 1001],
    ] {
        assert_eq!(run(bad).await, (200, "malformed".into()));
    }
    let late = run(br#"{"value":{"request":"AAAA"},"deadline":1}"#).await;
    assert_eq!(late, (200, "deadline_exceeded".into()));
    let reset = served.post("/other", "", b"").await;
    assert_eq!(reset.0, 404);
}

#[tokio::test]
async fn a_body_that_finds_no_memory_in_time_is_refused_as_busy() {
    let served = Served::with(false, 1 << 16).await;
    // Announced, and not sent yet.
    let mut first = TcpStream::connect(served.address).await.unwrap();
    let head = "POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 65000\r\nexpect: 100-continue\r\n\r\n";
    first.write_all(head.as_bytes()).await.unwrap();
    // It has its room when it is invited to send the body.
    let mut invited = [0; 25];
    first.read_exact(&mut invited).await.unwrap();
    assert_eq!(&invited, b"HTTP/1.1 100 Continue\r\n\r\n");
    let refused = served.refused("sesemi-deadline-ms: 20\r\n", &[0; 1000]);
    assert_eq!(refused.await, (429, "busy".into()));
    drop(first);
    let (bytes, _) = sealed();
    assert_eq!(served.post("/v1/infer", "", &bytes).await.0, 200);
}

#[tokio::test]
async fn a_request_that_waits_for_a_slot_leaves_the_queue_with_its_client() {
    let served = Served::new().await;
    let runtime = &served.world.runtime;
    // So that nothing but a slot is missing.
    ask(runtime, 1, &[1.0; 30]).await.unwrap();
    let taken = served.world.all_slots().await;
    let (bytes, _) = sealed();
    let leaving = served.connect("/v1/infer", "", &bytes).await;
    until(|| runtime.slots.waiting() == 1).await;
    drop(leaving);
    until(|| runtime.slots.waiting() == 0).await;
    assert_eq!(runtime.occupancy.counts(), (0, 0));
    drop(taken);
    ask(runtime, 1, &[1.0; 30]).await.unwrap();
}

#[tokio::test]
async fn a_request_by_reference_is_answered_by_reference_on_both_ways() {
    let served = Served::new().await;
    let (bytes, pending) = sealed();
    let message = served.refer(bytes, "a/request", "a/response").await;
    let (status, head, body) = served.post("/v1/infer", "", &message).await;
    assert_eq!(status, 200);
    assert!(
        head.contains("application/vnd.sesemi.reference+cbor"),
        "{head}"
    );
    let stored = Stored::decode(&body).unwrap();
    assert_eq!(stored.response.as_str(), "a/response");
    let response = served.object("a/response").await.unwrap();
    assert_eq!(response.len() as u64, stored.length);
    pending.open(response).unwrap().outcome.unwrap();

    let (bytes, pending) = sealed();
    let message = served.refer(bytes, "b.request", "b.response").await;
    let body = serde_json::json!({"value": {"request": BASE64.encode(message)}});
    let (_, _, body) = served.post("/run", "", body.to_string().as_bytes()).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let stored = BASE64.decode(body["response"].as_str().unwrap()).unwrap();
    assert_eq!(
        Stored::decode(&stored).unwrap().response.as_str(),
        "b.response"
    );
    let response = served.object("b.response").await.unwrap();
    pending.open(response).unwrap().outcome.unwrap();
}

#[tokio::test]
async fn references_that_are_not_good_are_refused_and_leave_nothing() {
    let served = Served::new().await;
    let code = async |body: &[u8]| served.refused("", body).await;
    let missing = reference("nothing", "answer");
    assert_eq!(code(&missing).await, (404, "not_found".into()));
    let garbage = served.refer(b"garbage".to_vec(), "garbage", "answer").await;
    assert_eq!(code(&garbage).await, (400, "malformed".into()));
    let empty = served.refer(Vec::new(), "empty", "answer").await;
    assert_eq!(code(&empty).await, (400, "malformed".into()));
    // Another reference is no sealed request: nothing is followed twice.
    let (bytes, _) = sealed();
    let inner = served.refer(bytes.clone(), "good", "answer").await;
    let nested = served.refer(inner, "nested", "answer").await;
    assert_eq!(code(&nested).await, (400, "malformed".into()));
    let long = served
        .refer(vec![0xd0; MAX_ENVELOPE + 1], "long", "answer")
        .await;
    assert_eq!(code(&long).await, (400, "malformed".into()));
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    let changed = served.refer(changed, "changed", "answer").await;
    assert_eq!(code(&changed).await, (401, "not_authentic".into()));
    let good = reference("good", "answer");
    for bad in [
        &good[..good.len() - 1],
        &[&good[..], &[0]].concat(),
        b"\xa2\x00\x62..\x01\x61b",
        b"\xa2\x00\x64/etc\x01\x61b",
        b"\xa2\x00\x64good\x01\x64good",
        b"\xa2\x00\x64good\x01\x67../back",
    ] {
        assert_eq!(code(bad).await, (400, "malformed".into()), "{bad:x?}");
    }
    assert_eq!(served.object("answer").await, None);

    let off = Served::with(false, 1 << 20).await;
    assert_eq!(off.refused("", &good).await, (403, "not_permitted".into()));
}

#[tokio::test]
async fn what_is_there_is_never_overwritten_and_no_request_is_run_for_it() {
    let served = Served::new().await;
    let (bytes, _) = sealed();
    let message = served.refer(bytes, "request", "response").await;
    let there = object_store::path::Path::from("response");
    let old = PutPayload::from_static(b"old");
    served.exchange.put(&there, old).await.unwrap();
    let refused = served.refused("", &message).await;
    assert_eq!(refused, (409, "already_exists".into()));
    assert_eq!(served.object("response").await.unwrap(), b"old");
    assert_eq!(served.world.service.calls(), 0);
}

#[tokio::test]
async fn a_request_by_reference_waits_for_memory_no_longer_than_its_time() {
    let served = Served::with(true, 600).await;
    let (bytes, _) = sealed();
    assert!(bytes.len() > 600);
    let message = served.refer(bytes, "request", "response").await;
    assert_eq!(served.refused("", &message).await, (429, "busy".into()));
    assert_eq!(served.world.runtime.occupancy.counts(), (0, 0));
}
