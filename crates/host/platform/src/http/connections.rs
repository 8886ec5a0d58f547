//! The connections of one server. Each is a task; whatever one of them does, the others do not notice.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::stall::StallGuard;
use super::{Answer, Bounds};

/// Headers of one request; the limit on their bytes is configured.
const MAX_HEADERS: usize = 64;
/// The least that hyper takes for the size of a head.
const LEAST_HEAD_BYTES: usize = 8192;
/// After an error of `accept` (no more file descriptors, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connections of one server, bounded in number. Dropping it cuts them.
#[derive(Debug)]
pub struct Connections {
    bounds: Bounds,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Finish what is being answered, then close.
    closing: CancellationToken,
    /// Close now.
    cut: CancellationToken,
}

impl Connections {
    /// None yet, and never more than the bounds say.
    pub fn new(bounds: &Bounds) -> Self {
        let most = bounds.max_connections.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            bounds: bounds.clone(),
            permits: Arc::new(Semaphore::new(most)),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts for ever, and has every request answered by `answer`, which never fails.
    pub async fn accept<A, F>(&self, listener: &TcpListener, answer: A)
    where
        A: Fn(IpAddr, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        // The semaphore is never closed.
        while let Ok(permit) = self.permits.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => self.spawn((stream, from.ip()), permit, answer.clone()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn<A, F>(
        &self,
        (stream, from): (TcpStream, IpAddr),
        permit: OwnedSemaphorePermit,
        answer: A,
    ) where
        A: Fn(IpAddr, Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let (closing, cut) = (self.closing.clone(), self.cut.clone());
        let bounds = self.bounds.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            // Answers are written at once; without it their last segment might wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(StallGuard::new(stream, bounds.stall_timeout));
            let service = service_fn(move |request| {
                let answering = answer(from, request);
                async move { Ok::<_, Infallible>(answering.await) }
            });
            let connection = builder(&bounds).serve_connection(io, service);
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => finish(connection, &cut).await,
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended early");
            }
        });
    }

    /// Ends them: what is being answered has `grace`, the rest ends at once.
    pub async fn close(self, grace: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // Also when the server is dropped instead of shut down: nobody is left to serve them.
        self.closing.cancel();
        self.cut.cancel();
    }
}

fn builder(bounds: &Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(bounds.max_head_bytes.max(LEAST_HEAD_BYTES));
    builder
}

async fn finish<S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<StallGuard<TcpStream>>, S>>,
    cut: &CancellationToken,
) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = http_body_util::Full<bytes::Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = cut.cancelled() => Ok(()),
    }
}
