//! What is counted, in Prometheus' words. No label tells a model, a user or an activation: whoever may read the metrics
//! learns load and health, and nothing about who asks for what.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::pool::PoolStatus;

/// The content type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: a hot request takes milliseconds, a cold start seconds.
const LATENCY_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// The gateway's counters.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Outcome, Counter>,
    cold_starts: Counter,
    latency: Histogram,
    queue_length: Gauge,
    in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("sesemi_fnpacker");
        let metrics = Self {
            requests: Family::default(),
            cold_starts: Counter::default(),
            latency: Histogram::new(LATENCY_BUCKETS),
            queue_length: Gauge::default(),
            in_flight: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "requests",
            "Inference requests by outcome",
            metrics.requests.clone(),
        );
        registry.register(
            "cold_starts",
            "Requests that started an instance",
            metrics.cold_starts.clone(),
        );
        let help = "Time from a request's head to its answer, of answered requests";
        registry.register("request_duration_seconds", help, metrics.latency.clone());
        registry.register(
            "queue_length",
            "Requests that wait for a slot",
            metrics.queue_length.clone(),
        );
        registry.register(
            "in_flight",
            "Requests that have a slot",
            metrics.in_flight.clone(),
        );
        sesemi_traces::metrics::register(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }

    /// A request ended; `outcome` is one of a fixed set of words.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
    }

    /// A request was answered by an instance.
    pub(crate) fn answered(&self, latency: Duration, cold: bool) {
        self.latency.observe(latency.as_secs_f64());
        if cold {
            self.cold_starts.inc();
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn encode(&self, pool: &PoolStatus) -> Result<String, fmt::Error> {
        self.queue_length
            .set(i64::try_from(pool.waiting).unwrap_or(i64::MAX));
        self.in_flight
            .set(i64::try_from(pool.in_flight()).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
