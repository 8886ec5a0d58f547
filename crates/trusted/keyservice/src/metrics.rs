//! What the operator may count: decisions by reason, connections, the log. No identity is ever a label.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How something ended: `ok`, or the reason why not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok` or a refusal code.
    pub outcome: String,
}

impl Outcome {
    /// The label for a result.
    #[must_use]
    pub fn of(refusal: Option<sesemi_protocol::RefusalCode>) -> Self {
        Self {
            outcome: refusal
                .map_or("ok", sesemi_protocol::RefusalCode::as_str)
                .to_owned(),
        }
    }
}

/// KeyService's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Release decisions by reason.
    pub releases: Family<Outcome, Counter>,
    /// Commands by reason.
    pub commands: Family<Outcome, Counter>,
    /// Handshakes that failed.
    pub failed_handshakes: Counter,
    /// Open channels.
    pub channels: Gauge,
    /// Entries in the log.
    pub log_entries: Gauge<u64, AtomicU64>,
    /// Grants.
    pub grants: Gauge<u64, AtomicU64>,
    /// Whether the last write to the log succeeded.
    pub writable: Gauge,
    /// Enclaves and registered principals that have seen another or a newer history of this service: it was rolled back or forked.
    pub stale: Counter,
    /// Strangers that say so.
    pub stale_claims: Counter,
    /// Connections and calls that came too often.
    pub rate_limited: Counter,
    /// Connections closed for want of a place.
    pub crowded: Counter,
    /// How far the host's clock is behind the log's time, in seconds.
    pub clock_behind: Gauge<u64, AtomicU64>,
    /// Questions by reason.
    pub queries: Family<Outcome, Counter>,
    /// Time from a command to its receipt, in seconds.
    pub command_seconds: Histogram,
    /// Time to decide the releases of one call, in seconds.
    pub release_seconds: Histogram,
    /// Entries in one durable write.
    pub batch: Histogram,
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("sesemi_keyservice");
        let releases = Family::default();
        let commands = Family::default();
        let failed_handshakes = Counter::default();
        let channels = Gauge::default();
        let log_entries = Gauge::default();
        let grants = Gauge::default();
        let writable = Gauge::default();
        let stale = Counter::default();
        let stale_claims = Counter::default();
        let rate_limited = Counter::default();
        let crowded = Counter::default();
        let clock_behind = Gauge::default();
        let queries = Family::default();
        let command_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let release_seconds = Histogram::new(exponential_buckets(0.000_002, 2.0, 16));
        let batch = Histogram::new(exponential_buckets(1.0, 2.0, 11));
        registry.register("releases", "Release decisions by outcome", releases.clone());
        registry.register("commands", "Commands by outcome", commands.clone());
        registry.register(
            "failed_handshakes",
            "Connections that did not become an attested channel",
            failed_handshakes.clone(),
        );
        registry.register("channels", "Open channels", channels.clone());
        registry.register(
            "log_entries",
            "Entries in the sealed log",
            log_entries.clone(),
        );
        registry.register_with_unit(
            "command_duration",
            "From a command to its durable receipt",
            Unit::Seconds,
            command_seconds.clone(),
        );
        registry.register("grants", "Grants", grants.clone());
        registry.register(
            "writable",
            "Whether the last write to the log succeeded",
            writable.clone(),
        );
        registry.register(
            "stale",
            "Enclaves and registered principals that have seen another or a newer history of this service",
            stale.clone(),
        );
        registry.register(
            "stale_claims",
            "Callers that nobody vouches for and that say they have seen another or a newer history",
            stale_claims.clone(),
        );
        registry.register(
            "rate_limited",
            "Connections and calls that came too often",
            rate_limited.clone(),
        );
        registry.register(
            "crowded",
            "Connections closed because their address, or principals together, hold as many as they may",
            crowded.clone(),
        );
        registry.register_with_unit(
            "clock_behind",
            "How far the host's clock is behind the latest time in the log",
            Unit::Seconds,
            clock_behind.clone(),
        );
        registry.register("queries", "Questions by outcome", queries.clone());
        registry.register_with_unit(
            "release_duration",
            "Deciding the releases of one call",
            Unit::Seconds,
            release_seconds.clone(),
        );
        registry.register("batch", "Entries in one durable write", batch.clone());
        sesemi_traces::metrics::register(&mut registry);
        Arc::new(Self {
            registry,
            releases,
            commands,
            failed_handshakes,
            channels,
            log_entries,
            grants,
            writable,
            stale,
            stale_claims,
            rate_limited,
            crowded,
            clock_behind,
            queries,
            command_seconds,
            release_seconds,
            batch,
        })
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
