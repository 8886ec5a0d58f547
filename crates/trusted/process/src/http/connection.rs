//! One connection: HTTP/1.1, or HTTP/2 if it begins with that protocol's preface (RFC 9113, section 3.3, "prior knowledge").

use std::convert::Infallible;
use std::io::Cursor;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncReadExt as _, join};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use super::content::receive;
use super::pace::{End, Open, Pace};
use super::sent::{Sent, sent};
use super::{Handler, HttpBounds, stopped};

/// What a client of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What is read of a connection before a request's bytes find their place, at most: also the longest head.
const READ: usize = 128 * 1024;
/// The same in HTTP/2: what a peer may send for one stream and for all before somebody reads it. One body that waits for room
/// does not stop the others of its connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Longest frame and longest list of header fields, decoded.
const FRAME: u32 = 16 * 1024;
const HEADERS: u32 = 16 * 1024;
/// Streams that a peer may open and reset before they are accepted, and streams that we reset for its mistakes (CVE-2023-44487,
/// CVE-2025-8671): one more, and the connection ends.
const RESETS: usize = 20;
const MISTAKES: usize = 64;
/// After how long a silent peer is asked whether it is there, and for how long it may think about it.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// How long a connection without requests may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);

/// What all connections share.
pub(super) struct Server<H> {
    pub(super) handler: Arc<H>,
    pub(super) bounds: HttpBounds,
    pub(super) budget: Budget,
}

impl<H: Handler> Server<H> {
    /// Serves one connection to its end.
    pub(super) async fn serve(
        self: Arc<Self>,
        mut tcp: TcpStream,
        mut stop: watch::Receiver<bool>,
    ) {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "connection ended");
            return;
        }
        let bounds = self.bounds;
        let begun = tokio::select! {
            () = stopped(&mut stop) => return,
            begun = timeout(bounds.head, begin(&mut tcp)) => begun,
        };
        let Ok(Ok((front, version))) = begun else {
            tracing::debug!("connection ended before it began");
            return;
        };
        let (read, write) = tcp.into_split();
        let io = TokioIo::new(join(Cursor::new(front).chain(read), write));
        let pace = Pace::new();
        let service = {
            let pace = pace.clone();
            service_fn(move |request| {
                let (server, open) = (self.clone(), pace.begin());
                async move { Ok::<_, Infallible>(server.answer(request, open).await) }
            })
        };
        match version {
            Version::One => {
                let connection = one(bounds).serve_connection(io, service);
                drive(connection, &pace, bounds, stop).await;
            }
            Version::Two => {
                let connection = two(bounds).serve_connection(io, service);
                drive(connection, &pace, bounds, stop).await;
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, open: Open) -> hyper::Response<Sent> {
        let arrived = Instant::now();
        let patience = self.handler.patience(request.headers());
        let limit = self.bounds.body.min(patience);
        let until = arrived.checked_add(limit).unwrap_or(arrived);
        let longest = self.bounds.body_bytes;
        let answer = match receive(request, longest, &self.budget, arrived, until).await {
            Ok(received) => self.handler.answer(received).await,
            Err((head, why)) => self.handler.unread(head, why),
        };
        sent(answer, &self.budget, open)
    }
}

enum Version {
    One,
    Two,
}

/// Reads no more than tells the versions apart.
async fn begin(tcp: &mut TcpStream) -> std::io::Result<(Vec<u8>, Version)> {
    let mut front = Vec::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&front) {
        let missing = PREFACE.len().saturating_sub(front.len());
        if missing == 0 {
            return Ok((front, Version::Two));
        }
        // No more than is missing, so that the vector stays as it is.
        if tcp.take(missing as u64).read_buf(&mut front).await? == 0 {
            break;
        }
    }
    Ok((front, Version::One))
}

fn one(bounds: HttpBounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(READ);
    builder
}

fn two(bounds: HttpBounds) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_send_buf_size(READ)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(MISTAKES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    builder
}

/// Serves until the connection ends, or must.
async fn drive<C>(connection: C, pace: &Pace, bounds: HttpBounds, mut stop: watch::Receiver<bool>)
where
    C: GracefulConnection,
    C::Error: core::fmt::Display,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        end = pace.end(bounds.head, bounds.answer) => match end {
            End::Silent => None,
            End::NotTaken => return tracing::debug!("an answer was not taken"),
        },
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                end = pace.end(GRACE, bounds.answer) => {
                    return tracing::debug!(?end, "connection cut off");
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
