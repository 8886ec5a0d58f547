//! A small HTTP server with a bound for everything: connections, streams, heads, bodies and their memory, silence, and answers
//! that nobody takes. HTTP/1.1 and HTTP/2 (prior knowledge) come on the same port.
//!
//! One connection is one task, and one more for each stream of HTTP/2. Malformed, slow or half-open ones end those tasks at most.
//! A client that leaves, by closing its connection or resetting its stream, ends the work on its request at once: what answers
//! it is dropped.

mod budget;
mod connection;
mod content;
mod pace;
mod sent;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

pub use budget::{Budget, NoRoom, Room};
use connection::Server;
pub use content::{Content, Unread};

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
    /// Bytes of bodies and answers in memory, over all connections. A body that does not fit waits, for as long as bodies may.
    pub memory: usize,
    /// Longest that a client may take to fetch an answer that is not in pieces; its connection is cut off then.
    pub answer: Duration,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
}

/// A request whose body was read.
pub type Received = Request<Content>;
/// A response.
pub type Answer = Response<Body>;

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// In memory; its length is known.
    Whole(Bytes),
    /// In pieces, as they are made. A piece that is an error breaks the connection off, so that nobody takes a part for the whole.
    Pieces(mpsc::Receiver<std::io::Result<Bytes>>),
}

/// Answers requests. Shared by all connections.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped if the client leaves.
    fn answer(&self, request: Received) -> impl Future<Output = Answer> + Send;

    /// How long a request with these headers has: its body must be here by then. The bounds may allow it less.
    fn patience(&self, headers: &HeaderMap) -> Duration {
        let _ = headers;
        Duration::MAX
    }

    /// Answers a request whose body was not read.
    fn unread(&self, head: Parts, why: Unread) -> Answer {
        let _ = head;
        let status = match why {
            Unread::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Unread::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Unread::NoRoom => StatusCode::TOO_MANY_REQUESTS,
            Unread::Broken => StatusCode::BAD_REQUEST,
        };
        text(status, "the request's body was not read\n")
    }
}

/// Serves until `stop` turns true, then lets requests that are under way finish.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    bounds: HttpBounds,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let server = Arc::new(Server {
        handler,
        bounds,
        budget: Budget::new(bounds.memory),
    });
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
                let connection = server.clone().serve(tcp, stop.clone());
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
    with_body(status, media_type, Body::Whole(content.into()))
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
mod tests;
