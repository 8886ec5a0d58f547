//! An instance for tests: a real process that keeps the contract of the local platform, and misbehaves on demand.
//!
//! The test executable starts itself as the instance: one of its tests, [`acts_as_an_instance_when_told`], becomes the
//! program when the environment says so and does nothing otherwise. So there is no second binary to build or to find, and
//! FnPacker's tests include this file and have the same instance.
//!
//! What it does is said by the request's body:
//!
//! | body | answer |
//! |---|---|
//! | `echo ...` | 200, the body |
//! | `gate ADDR NAME` | 200 when the [`Gate`] at ADDR lets NAME pass |
//! | `exit` | none: the process ends |
//! | `status N` | N |
//! | `drain PATH` | 503 the first time (and makes the file PATH), 200 from then on |
//! | `big N`, `endless N` | N bytes, with and without `content-length` |
//! | `deadline`, `init`, `env NAME` | 200, what it was told |
//! | `pid` | 200, its process |
//!
//! OpenWhisk's `/run` has it in the value: `{"command": TEXT}` is one of the above, or one of these, and answered in JSON;
//! `{"request": TEXT}` gets `{"response": TEXT}`, as SeMIRT would answer, or its refusal if the text is that of `busy` in base64; any
//! other value gets `{"run": BODY}`, all that it was told.
//!
//! | command | answer |
//! |---|---|
//! | `say TEXT` | 200 and TEXT, whatever it is |
//! | `chunked` | 200 and an object, without `content-length` |

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Says that the process is an instance, and which: `good`, `mute`, `crash`, `refuse`, `foreign`, `stubborn`, or
/// `crash-once PATH`.
pub const MODE: &str = "TEST_INSTANCE_MODE";

#[test]
fn acts_as_an_instance_when_told() {
    if let Ok(mode) = std::env::var(MODE) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(&mode));
        std::process::exit(0);
    }
}

/// The executable and its arguments.
pub fn command() -> (PathBuf, Vec<OsString>) {
    let args = [
        "instance::acts_as_an_instance_when_told",
        "--exact",
        "--nocapture",
        "--test-threads=1",
    ];
    (
        std::env::current_exe().unwrap(),
        args.map(OsString::from).to_vec(),
    )
}

pub fn environment(mode: &str) -> BTreeMap<String, String> {
    [(MODE.to_owned(), mode.to_owned())].into()
}

/// Where requests with the body `gate ADDR NAME` wait until they are let through.
pub struct Gate {
    listener: TcpListener,
}

/// A request that waits at a gate, seen from the test.
pub struct Held {
    pub name: String,
    stream: TcpStream,
}

impl Gate {
    pub async fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub fn body(&self, name: &str) -> Bytes {
        format!("gate {} {name}", self.listener.local_addr().unwrap()).into()
    }

    /// The next request that arrives.
    pub async fn arrival(&self) -> Held {
        let arrival = async {
            let mut stream = BufReader::new(self.listener.accept().await.unwrap().0);
            let mut name = String::new();
            stream.read_line(&mut name).await.unwrap();
            Held {
                name: name.trim().to_owned(),
                stream: stream.into_inner(),
            }
        };
        within(arrival, "a request at the gate").await
    }

    /// Whether a request is at the gate right now.
    pub async fn is_empty(&self) -> bool {
        futures::poll!(std::pin::pin!(self.listener.accept())).is_pending()
    }
}

impl Held {
    pub async fn release(mut self) {
        self.stream.write_all(b"!").await.unwrap();
    }
}

/// Awaits something that must happen, and says what if it does not.
pub async fn within<T>(what: impl Future<Output = T>, description: &str) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(60), what).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {description}"))
}

/// Awaits a condition that nobody announces.
pub async fn until<F: Future<Output = bool>>(description: &str, mut condition: impl FnMut() -> F) {
    let mut beat = tokio::time::interval(Duration::from_millis(5));
    let holds = async {
        while !condition().await {
            beat.tick().await;
        }
    };
    within(holds, description).await;
}

pub fn process_exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn run(mode: &str) {
    match mode.split_once(' ').unwrap_or((mode, "")) {
        ("mute", _) => pending().await,
        ("crash", _) => std::process::exit(3),
        ("crash-once", path) if !Path::new(path).exists() => {
            std::fs::write(path, "").unwrap();
            std::process::exit(3);
        }
        ("foreign", _) => announce(SocketAddr::from(([192, 0, 2, 1], 80))),
        ("stubborn", _) => {
            let mut terms =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
            tokio::spawn(async move { while terms.recv().await.is_some() {} });
        }
        _ => {}
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    if mode == "foreign" {
        pending::<()>().await;
    }
    announce(listener.local_addr().unwrap());
    let init = Arc::new(Mutex::new(String::new()));
    let refuse = mode == "refuse";
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let init = init.clone();
        let service = service_fn(move |request| answer(request, init.clone(), refuse));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

/// The test harness may have begun a line of its own.
fn announce(address: SocketAddr) {
    println!("\n{{\"event\":\"listening\",\"address\":\"{address}\"}}");
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(
    request: Request<Incoming>,
    init: Arc<Mutex<String>>,
    refuse: bool,
) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if head.uri.path() == "/init" {
        *init.lock().unwrap() = String::from_utf8_lossy(&body).into_owned();
        return Ok(respond(if refuse { 403 } else { 200 }, "{}"));
    }
    if head.uri.path() == "/run" {
        assert_eq!(head.headers["content-type"], "application/json");
        return Ok(run_action(&body, &init).await);
    }
    assert_eq!(head.headers["content-type"], "application/cose");
    let text = String::from_utf8_lossy(&body).into_owned();
    let words: Vec<&str> = text.split(' ').collect();
    Ok(match words[..] {
        ["gate", address, name] => {
            let mut gate = TcpStream::connect(address).await.unwrap();
            gate.write_all(format!("{name}\n").as_bytes())
                .await
                .unwrap();
            // A gate that is gone lets everything pass.
            let _ = gate.read_u8().await;
            respond(200, name.to_owned())
        }
        ["exit"] => std::process::exit(3),
        ["status", status] => respond(status.parse().unwrap(), "a status"),
        ["drain", path] if Path::new(path).exists() => respond(200, "drained"),
        ["drain", path] => {
            std::fs::write(path, "").unwrap();
            respond(503, "draining")
        }
        ["big", size] => respond(200, vec![b'x'; size.parse().unwrap()]),
        ["endless", size] => endless(size.parse().unwrap()),
        ["deadline"] => respond(200, head.headers["sesemi-deadline-ms"].as_bytes().to_vec()),
        ["init"] => respond(200, init.lock().unwrap().clone()),
        ["pid"] => respond(200, std::process::id().to_string()),
        ["env", name] => respond(200, std::env::var(name).unwrap_or("unset".to_owned())),
        _ => respond(200, body),
    })
}

/// What SeMIRT would find no place for, in base64.
pub const BUSY: &str = "YnVzeQ==";

async fn run_action(body: &[u8], init: &Mutex<String>) -> Answer {
    let run: serde_json::Value = serde_json::from_slice(body).unwrap();
    let json = |status, value: serde_json::Value| respond(status, value.to_string());
    let text = |key: &str| run["value"][key].as_str().map(str::to_owned);
    match text("request").as_deref() {
        Some(BUSY) => {
            let error = serde_json::json!({"code": "busy", "message": "no place is left"});
            return json(200, serde_json::json!({"error": error}));
        }
        Some(sealed) => return json(200, serde_json::json!({"response": sealed})),
        None => {}
    }
    let command = text("command").unwrap_or_default();
    let words: Vec<&str> = command.split(' ').collect();
    match words[..] {
        ["say", ..] => respond(200, command.trim_start_matches("say ").to_owned()),
        ["chunked"] => {
            let frames = [Ok(Frame::data(Bytes::from_static(b"{}")))];
            Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
        }
        ["gate", address, name] => {
            let mut gate = TcpStream::connect(address).await.unwrap();
            gate.write_all(format!("{name}\n").as_bytes())
                .await
                .unwrap();
            let _ = gate.read_u8().await;
            json(200, serde_json::json!({"passed": name}))
        }
        ["exit"] => std::process::exit(3),
        ["status", status] => json(
            status.parse().unwrap(),
            serde_json::json!({"error": "a status"}),
        ),
        ["drain", path] if Path::new(path).exists() => {
            json(200, serde_json::json!({"drained": true}))
        }
        ["drain", path] => {
            std::fs::write(path, "").unwrap();
            respond(503, "draining")
        }
        ["big", size] => json(
            200,
            serde_json::json!({"big": "x".repeat(size.parse().unwrap())}),
        ),
        ["init"] => respond(200, init.lock().unwrap().clone()),
        ["pid"] => json(200, serde_json::json!({"pid": std::process::id()})),
        _ => json(200, serde_json::json!({"run": run})),
    }
}

fn respond(status: u16, body: impl Into<Bytes>) -> Answer {
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/test");
    response.body(Full::new(body.into()).boxed()).unwrap()
}

fn endless(size: usize) -> Answer {
    let chunks =
        (0..size.div_ceil(1024)).map(|_| Ok(Frame::data(Bytes::from_static(&[b'x'; 1024]))));
    Response::new(BodyExt::boxed(StreamBody::new(stream::iter(chunks))))
}
