//! What the operator may count: requests by path and outcome, and time. No user, model or size is ever a label.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sesemi_protocol::RefusalCode;
use sesemi_protocol::envelope::Path;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

/// SeMIRT's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    served: Family<Served, Counter>,
    refused: Family<Refused, Counter>,
    seconds: Histogram,
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("sesemi_semirt");
        let (served, refused) = (Family::default(), Family::default());
        let seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 18));
        registry.register("served", "Requests answered, by path", served.clone());
        registry.register("refused", "Requests refused, by reason", refused.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's last byte to its answer",
            Unit::Seconds,
            seconds.clone(),
        );
        sesemi_traces::metrics::register(&mut registry);
        Arc::new(Self {
            registry,
            served,
            refused,
            seconds,
        })
    }

    /// Counts a request that was answered.
    pub fn served(&self, path: Path, took: Duration) {
        let path = path.as_str();
        self.served.get_or_create(&Served { path }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts a request that was refused.
    pub fn refused(&self, code: RefusalCode) {
        let reason = code.as_str();
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}
