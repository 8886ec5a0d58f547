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

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi_platform::Platform;
use sesemi_platform::http::Connections;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::{HttpConfig, PoolConfig, ServeError};

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
        let connections = Connections::new(&self.shared.http.bounds());
        let shared = &self.shared;
        let close_grace = {
            let answering = shared.clone();
            let answer = move |from, request| routes::answer(answering.clone(), from, request);
            let mut accepting = pin!(connections.accept(&listener, answer));
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
