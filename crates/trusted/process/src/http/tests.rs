//! Against a real server on a port of its own: what holds for HTTP/1.1, for HTTP/2, and for both.

mod frames;
mod leaving;
mod memory;

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

/// Answers by path, and tells what goes on.
struct Endpoint {
    /// One permit lets one request at `/gate` go on.
    gate: Semaphore,
    /// Requests inside the handler.
    inside: watch::Sender<usize>,
}

struct Inside<'e>(&'e watch::Sender<usize>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|inside| *inside -= 1);
    }
}

impl Handler for Endpoint {
    async fn answer(&self, request: Received) -> Answer {
        self.inside.send_modify(|inside| *inside += 1);
        let _inside = Inside(&self.inside);
        let path = request.uri().path().to_owned();
        let (body, _room) = request.into_body().into_parts();
        match path.as_str() {
            "/gate" => self.gate.acquire().await.unwrap().forget(),
            "/capacity" => return text(StatusCode::OK, body.capacity().to_string()),
            "/large" => return text(StatusCode::OK, vec![b'x'; 32 << 20]),
            _ => {}
        }
        text(StatusCode::OK, body)
    }

    fn patience(&self, headers: &HeaderMap) -> Duration {
        match headers.get("hurry") {
            None => Duration::MAX,
            Some(_) => Duration::from_millis(20),
        }
    }
}

struct Running {
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

const PATIENT: HttpBounds = HttpBounds {
    connections: 8,
    head: Duration::from_secs(60),
    body: Duration::from_secs(60),
    body_bytes: 1 << 20,
    memory: 4 << 20,
    answer: Duration::from_secs(60),
    streams: 4,
};

/// Bounds that are short in time.
const HASTY: HttpBounds = HttpBounds {
    head: Duration::from_millis(200),
    body: Duration::from_millis(200),
    answer: Duration::from_millis(200),
    ..PATIENT
};

impl Running {
    async fn new(bounds: HttpBounds) -> Self {
        let endpoint = Arc::new(Endpoint {
            gate: Semaphore::new(0),
            inside: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, endpoint.clone(), bounds, stopped));
        Self {
            address,
            endpoint,
            stop,
            server,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes, and reads until the server closes.
    async fn talk(&self, request: impl AsRef<[u8]>) -> String {
        let mut tcp = self.connect().await;
        tcp.write_all(request.as_ref()).await.unwrap();
        let mut answer = Vec::new();
        // Whatever came before a reset counts.
        let _ = tcp.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn inside(&self, count: usize) {
        let mut inside = self.endpoint.inside.subscribe();
        inside.wait_for(|inside| *inside == count).await.unwrap();
    }

    /// A client of HTTP/2, which goes on by itself.
    async fn client(&self) -> http2::SendRequest<Full<Bytes>> {
        let io = TokioIo::new(self.connect().await);
        let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn is_well(&self) {
        assert!(self.talk(post("/", "ok")).await.ends_with("ok"));
        assert_eq!(ask(&mut self.client().await, "/", "ok").await.1, "ok");
    }
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn request(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("http://x{path}");
    Request::post(uri).body(Full::new(body.into())).unwrap()
}

async fn ask(
    client: &mut http2::SendRequest<Full<Bytes>>,
    path: &str,
    body: impl Into<Bytes>,
) -> (StatusCode, Bytes) {
    read(client.send_request(request(path, body)).await.unwrap()).await
}

async fn read(answer: Response<hyper::body::Incoming>) -> (StatusCode, Bytes) {
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap();
    (status, body.to_bytes())
}

#[tokio::test]
async fn both_protocols_are_answered_on_one_port() {
    let running = Running::new(PATIENT).await;
    running.is_well().await;
}

#[tokio::test]
async fn bodies_above_the_limit_are_refused_and_others_answered() {
    let bounds = HttpBounds {
        body_bytes: 10,
        ..PATIENT
    };
    let running = Running::new(bounds).await;
    let answered = running.talk(post("/", "0123456789")).await;
    assert!(answered.ends_with("0123456789"), "{answered}");
    let refused = running.talk(post("/", "0123456789x")).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
        6\r\n012345\r\n5\r\n6789x\r\n0\r\n\r\n";
    let refused = running.talk(chunked).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let mut client = running.client().await;
    assert_eq!(ask(&mut client, "/", "0123456789").await.1, "0123456789");
    let (status, _) = ask(&mut client, "/", "0123456789x").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_whole() {
    let running = Running::new(PATIENT).await;
    let chunked = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
        6\r\n012345\r\n5\r\n6789x\r\n0\r\n\r\n";
    assert!(running.talk(chunked).await.ends_with("0123456789x"));
}

struct Broken;

impl Handler for Broken {
    async fn answer(&self, _: Received) -> Answer {
        let (send, receive) = mpsc::channel(4);
        send.send(Ok(Bytes::from_static(b"first"))).await.unwrap();
        let cause = std::io::Error::other("the disk failed");
        send.send(Err(cause)).await.unwrap();
        pieces(StatusCode::OK, "text/plain", receive)
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(listener, Arc::new(Broken), PATIENT, stopped));
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(post("/", "").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
    // The last chunk, of length 0, would say that this was all (RFC 9112, 7.1).
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    // The stream is reset, before its head left or after.
    if let Ok(answer) = client.send_request(request("/", "")).await {
        assert!(answer.into_body().collect().await.is_err());
    }
    server.abort();
}

#[tokio::test]
async fn malformed_requests_do_not_end_the_server() {
    let running = Running::new(HASTY).await;
    for bad in [
        "\r\n\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\n\r\n\r\n",
    ] {
        let answer = running.talk(bad).await;
        assert!(!answer.contains(" 200 "), "{bad:?}: {answer}");
    }
    running.is_well().await;
    running.stop.send(true).unwrap();
    running.server.await.unwrap();
}

#[tokio::test]
async fn whoever_says_nothing_or_not_enough_is_hung_up_on() {
    let running = Running::new(HASTY).await;
    for begun in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "POST / HT",
        "POST / HTTP/1.1\r\nhost: x\r\n",
    ] {
        let answer = running.talk(begun).await;
        assert!(!answer.contains(" 200 "), "{begun:?}: {answer}");
    }
    running.is_well().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_refused() {
    let running = Running::new(HASTY).await;
    let part = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n01234";
    let refused = running.talk(part).await;
    assert!(refused.starts_with("HTTP/1.1 408"), "{refused}");
    running.is_well().await;
}

#[tokio::test]
async fn requests_under_way_are_finished_before_the_server_ends() {
    let running = Running::new(PATIENT).await;
    let mut client = running.client().await;
    let second = client.send_request(request("/gate", "two"));
    let second = tokio::spawn(second);
    running.inside(1).await;
    let mut tcp = running.connect().await;
    tcp.write_all(post("/gate", "one").as_bytes())
        .await
        .unwrap();
    running.inside(2).await;
    // Without a request, so that they end at once.
    let (idle, idle_client) = (running.connect().await, running.client().await);
    running.stop.send(true).unwrap();
    running.endpoint.gate.add_permits(2);
    let mut first = String::new();
    tcp.read_to_string(&mut first).await.unwrap();
    assert!(first.ends_with("one"), "{first}");
    assert_eq!(read(second.await.unwrap().unwrap()).await.1, "two");
    running.server.await.unwrap();
    drop((idle, idle_client));
}
