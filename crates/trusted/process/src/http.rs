//! A small HTTP/1.1 server with a bound for everything: connections, heads, bodies, silence.
//!
//! One connection is one task. Malformed, slow or half-open ones end that task at most.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// The bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct HttpBounds {
    /// Connections served at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Longest that a request's head may take, and longest silence between requests.
    pub head: Duration,
    /// Longest that a request's body may take.
    pub body: Duration,
    /// Longest body, in bytes.
    pub body_bytes: usize,
}

/// A request whose body was read.
pub type Received = Request<Bytes>;
/// A response.
pub type Answer = Response<Body>;

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// In memory; its length is known.
    Whole(Full<Bytes>),
    /// In pieces, as they are made. A piece that is an error breaks the connection off, so that nobody takes a part for the whole.
    Pieces(mpsc::Receiver<std::io::Result<Bytes>>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole)
                .poll_frame(context)
                .map_err(|never| match never {}),
            Self::Pieces(pieces) => pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Pieces(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// Answers requests. Shared by all connections.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Received) -> impl Future<Output = Answer> + Send;
}

/// Serves until `stop` turns true, then lets requests that are under way finish.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = async {
            (
                places.clone().acquire_owned().await,
                listener.accept().await,
            )
        };
        let (place, accepted) = tokio::select! {
            () = stopped(&mut stop) => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((tcp, _)) => {
                let connection = connection(tcp, handler.clone(), bounds, stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, for example. Waiting lets others finish; ending would end the service.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// Returns once `stop` turned true. Holds no guard on it, so that futures that wait here can move between threads.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection<H: Handler>(
    tcp: TcpStream,
    handler: Arc<H>,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "connection ended");
        return;
    }
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move {
            Ok::<_, Infallible>(match receive(request, bounds).await {
                Ok(received) => handler.answer(received).await,
                Err(status) => text(status, "the request's body is too long or too slow\n"),
            })
        }
    });
    let mut serving = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .serve_connection(TokioIo::new(tcp), service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopped(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn receive(request: Request<Incoming>, bounds: HttpBounds) -> Result<Received, StatusCode> {
    let (parts, body) = request.into_parts();
    let collected = Limited::new(body, bounds.body_bytes).collect();
    let body = tokio::time::timeout(bounds.body, collected)
        .await
        .map_err(|_| StatusCode::REQUEST_TIMEOUT)?
        .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?
        .to_bytes();
    Ok(Request::from_parts(parts, body))
}

/// A plain-text answer.
#[must_use]
pub fn text(status: StatusCode, content: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", content)
}

/// A JSON answer.
#[must_use]
pub fn json(status: StatusCode, content: &serde_json::Value) -> Answer {
    answer(status, "application/json", content.to_string())
}

/// An answer of some media type.
#[must_use]
pub fn answer(status: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Answer {
    with_body(status, media_type, Body::Whole(Full::new(content.into())))
}

/// An answer in pieces.
#[must_use]
pub fn pieces(
    status: StatusCode,
    media_type: &'static str,
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
) -> Answer {
    with_body(status, media_type, Body::Pieces(pieces))
}

fn with_body(status: StatusCode, media_type: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let value = hyper::header::HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, value);
    response
}

/// Answers what every server's operator asks: `/health/live`, `/health/ready`, `/metrics`; `None` for other paths.
#[must_use]
pub fn operator_page(
    path: &str,
    stopping: bool,
    metrics: impl FnOnce() -> String,
) -> Option<Answer> {
    match path {
        "/health/live" => Some(text(StatusCode::OK, "live\n")),
        "/health/ready" if stopping => Some(text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")),
        "/health/ready" => Some(text(StatusCode::OK, "ready\n")),
        "/metrics" => Some(answer(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Echo;

    impl Handler for Echo {
        async fn answer(&self, request: Received) -> Answer {
            text(StatusCode::OK, request.into_body())
        }
    }

    async fn start() -> (
        std::net::SocketAddr,
        watch::Sender<bool>,
        tokio::task::JoinHandle<()>,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let bounds = HttpBounds {
            connections: 4,
            head: Duration::from_secs(5),
            body: Duration::from_secs(5),
            body_bytes: 10,
        };
        let server = tokio::spawn(serve(listener, Arc::new(Echo), bounds, stopped));
        (address, stop, server)
    }

    async fn talk(address: std::net::SocketAddr, request: &str) -> String {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn post(body: &str) -> String {
        format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn bodies_above_the_limit_are_refused_and_others_answered() {
        let (address, _stop, _) = start().await;
        assert!(
            talk(address, &post("0123456789"))
                .await
                .ends_with("0123456789")
        );
        assert!(
            talk(address, &post("0123456789x"))
                .await
                .starts_with("HTTP/1.1 413")
        );
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
        let bounds = HttpBounds {
            connections: 4,
            head: Duration::from_secs(5),
            body: Duration::from_secs(5),
            body_bytes: 10,
        };
        let server = tokio::spawn(serve(listener, Arc::new(Broken), bounds, stopped));
        let answer = talk(address, &post("")).await;
        server.abort();
        // The last chunk, of length 0, would say that this was all (RFC 9112, 7.1).
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn malformed_requests_do_not_end_the_server() {
        let (address, stop, server) = start().await;
        for bad in [
            "\r\n\r\n\r\n",
            "\u{1}\u{2}\u{3}\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
        ] {
            let _ = talk(address, bad).await;
        }
        assert!(talk(address, &post("ok")).await.ends_with("ok"));
        stop.send(true).unwrap();
        server.await.unwrap();
    }
}
