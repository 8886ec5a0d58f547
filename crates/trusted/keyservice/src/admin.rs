//! What the operator may ask over plain HTTP: is it alive, is it ready, and the metrics. Nothing here is secret, and
//! nothing can be changed.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use sesemi_process::http::{Answer, Handler, HttpBounds, Received, operator_page, text};
use tokio::sync::watch;

use crate::metrics::Metrics;

/// Bounds of the operator's server: few connections, no bodies to speak of.
pub const BOUNDS: HttpBounds = HttpBounds {
    connections: 16,
    head: Duration::from_secs(10),
    body: Duration::from_secs(5),
    body_bytes: 1024,
};

/// Answers the operator.
#[derive(Debug)]
pub struct Admin {
    /// What to show.
    pub metrics: Arc<Metrics>,
    /// Whether the service is draining.
    pub stopping: watch::Receiver<bool>,
}

impl Handler for Admin {
    async fn answer(&self, request: Received) -> Answer {
        let stopping = *self.stopping.borrow();
        operator_page(request.uri().path(), stopping, || self.metrics.render())
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "no such page\n"))
    }
}
