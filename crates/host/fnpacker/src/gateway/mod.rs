//! HTTP in front of the pool: bytes in, bytes out.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/infer` | the instance's status, content type and body as they are; `sesemi-activation`, `sesemi-wait-ms`, and `sesemi-init-ms` if an instance was started for it |
//! | `GET /v1/status` | endpoints, instances and queue, as JSON |
//! | `GET /health/live`, `/health/ready` | 200; ready is 503 while draining |
//! | `GET /metrics` | for Prometheus |
//!
//! Everything a client can do is bounded: connections, the time for a head, its size, the body's size, the time for the
//! body, the time it may leave a response untaken. A slot is held from the moment the whole request is there until the
//! whole answer is there, so that slow clients cost a connection and never a slot.

mod failure;
mod inference;
mod routes;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sesemi_platform::Platform;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::stall::StallGuard;
use crate::{HttpConfig, PoolConfig, ServeError};

/// Headers of one request; the limit on their bytes is configured.
const MAX_HEADERS: usize = 64;
/// The least that hyper takes for the size of a head.
const LEAST_HEAD_BYTES: usize = 8192;
/// After an error of `accept` (no more file descriptors, say), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for responses that are being written when everything else is done.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A pool of endpoints, deployed on a platform, and the HTTP server before it.
pub struct Gateway<P> {
    shared: Arc<Shared<P>>,
}

struct Shared<P> {
    platform: Arc<P>,
    pool: Arc<Pool>,
    http: HttpConfig,
    metrics: Metrics,
    draining: AtomicBool,
    /// Inference requests, from head to answer.
    requests: TaskTracker,
}

impl<P: Platform> Gateway<P> {
    /// Deploys the endpoints of a pool. If one cannot be deployed, none is.
    pub async fn deploy(
        pool: &PoolConfig,
        http: &HttpConfig,
        platform: Arc<P>,
    ) -> Result<Self, ServeError> {
        let actions = pool.actions()?;
        for (done, action) in actions.iter().enumerate() {
            if let Err(error) = platform
                .deploy(pool.action(action.clone(), http.max_timeout))
                .await
            {
                for action in actions.iter().take(done) {
                    let _ = platform.delete(action).await;
                }
                return Err(error.into());
            }
        }
        let shared = Shared {
            platform,
            pool: Pool::new(
                actions
                    .into_iter()
                    .map(|it| (it, pool.capacity()))
                    .collect(),
                pool.rules(),
            ),
            http: http.clone(),
            metrics: Metrics::new(),
            draining: AtomicBool::new(false),
            requests: TaskTracker::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Serves until `shutdown` is done, then drains: new requests are refused and readiness is withdrawn, those in flight
    /// finish within the configured grace, the endpoints are deleted.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let connections = Connections::new(self.shared.http.max_connections);
        let shared = &self.shared;
        let close_grace = {
            let mut accepting = pin!(connections.accept(&listener, shared));
            tokio::select! {
                () = &mut accepting => {}
                () = shutdown => {}
            }
            tracing::info!("draining");
            shared.draining.store(true, Ordering::SeqCst);
            shared.requests.close();
            // Still accepting: whoever asks for readiness shall hear that there is none.
            let drained = tokio::select! {
                () = &mut accepting => false,
                drained = timeout(shared.http.drain_grace, shared.requests.wait()) => drained.is_ok(),
            };
            if drained { CLOSE_GRACE } else { Duration::ZERO }
        };
        drop(listener);
        if close_grace.is_zero() {
            tracing::warn!(grace = ?shared.http.drain_grace, "requests in flight are given up");
        }
        connections.close(close_grace).await;
        for action in shared.pool.actions() {
            if let Err(error) = shared.platform.delete(action).await {
                tracing::warn!(%error, "an endpoint could not be deleted");
            }
        }
        tracing::info!("drained");
    }
}

/// The connections of one server, bounded in number.
struct Connections {
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Finish what is being answered, then close.
    closing: CancellationToken,
    /// Close now.
    cut: CancellationToken,
}

impl Connections {
    fn new(most: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Accepts for ever. Whatever one connection does, the others do not notice.
    async fn accept<P: Platform>(&self, listener: &TcpListener, shared: &Arc<Shared<P>>) {
        // The semaphore is never closed.
        while let Ok(permit) = self.permits.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => self.spawn((stream, from.ip()), permit, shared.clone()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn<P: Platform>(
        &self,
        (stream, from): (TcpStream, IpAddr),
        permit: OwnedSemaphorePermit,
        shared: Arc<Shared<P>>,
    ) {
        let (closing, cut) = (self.closing.clone(), self.cut.clone());
        self.tasks.spawn(async move {
            let _permit = permit;
            // Answers are written at once; without it their last segment might wait for an acknowledgement.
            let _ = stream.set_nodelay(true);
            let io = TokioIo::new(StallGuard::new(stream, shared.http.stall_timeout));
            let answering = shared.clone();
            let service = service_fn(move |request| {
                let shared = answering.clone();
                async move { Ok::<_, Infallible>(routes::answer(shared, from, request).await) }
            });
            let connection = builder(&shared.http).serve_connection(io, service);
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

    async fn close(self, grace: Duration) {
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

fn builder(http: &HttpConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(http.head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(http.max_head_bytes.max(LEAST_HEAD_BYTES));
    builder
}

async fn finish<S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<StallGuard<TcpStream>>, S>>,
    cut: &CancellationToken,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = routes::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = cut.cancelled() => Ok(()),
    }
}
