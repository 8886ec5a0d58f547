//! What the operator may count: requests by path and outcome, and time. No user, model or size is ever a label.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sesemi_protocol::RefusalCode;
use sesemi_protocol::envelope::{Report, Steps};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    path: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

/// What is read when somebody asks for the metrics.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    /// Execution slots.
    pub slots: usize,
    /// Slots that are taken.
    pub taken: usize,
    /// Requests that wait, for a slot or for the enclave.
    pub waiting: usize,
    /// Requests that are open, or about to be.
    pub inside: usize,
    /// Bytes of the models' budget that are in use.
    pub model_bytes: u64,
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
    batches: Counter,
    batched: Counter,
    seconds: Histogram,
    steps: Family<Step, Histogram>,
    slots: Gauge,
    taken: Gauge,
    waiting: Gauge,
    inside: Gauge,
    model_bytes: Gauge,
}

fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 18))
}

impl Metrics {
    /// Registers all metrics.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("sesemi_semirt");
        let (served, refused) = (Family::default(), Family::default());
        let (batches, batched) = (Counter::default(), Counter::default());
        let seconds = durations();
        let steps = Family::<Step, Histogram>::new_with_constructor(durations);
        registry.register("served", "Requests answered, by path", served.clone());
        registry.register("refused", "Requests refused, by reason", refused.clone());
        registry.register(
            "batches",
            "Runs of several requests at once",
            batches.clone(),
        );
        registry.register(
            "batched",
            "Requests that were run with others",
            batched.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's last byte to its answer",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register_with_unit(
            "step_duration",
            "Steps of requests that were answered, where they were needed",
            Unit::Seconds,
            steps.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let slots = gauge("slots", "Execution slots");
        let taken = gauge("slots_taken", "Execution slots that are taken");
        let waiting = gauge(
            "waiting",
            "Requests that wait for a slot or for the enclave",
        );
        let inside = gauge("inside", "Requests that are open, or about to be");
        let model_bytes = gauge("model_bytes", "Bytes of the models' budget that are in use");
        sesemi_traces::metrics::register(&mut registry);
        Arc::new(Self {
            registry,
            served,
            refused,
            batches,
            batched,
            seconds,
            steps,
            slots,
            taken,
            waiting,
            inside,
            model_bytes,
        })
    }

    /// Counts a request that was answered; its steps, unless they must not be `told`.
    pub fn served(&self, report: &Report, took: Duration, told: bool) {
        let path = report.path.as_str();
        self.served.get_or_create(&Served { path }).inc();
        self.seconds.observe(took.as_secs_f64());
        if !told {
            return;
        }
        for (step, micros) in by_name(&report.steps) {
            if micros > 0 {
                let seconds = Duration::from_micros(micros).as_secs_f64();
                self.steps.get_or_create(&Step { step }).observe(seconds);
            }
        }
    }

    /// Counts a request that was refused.
    pub fn refused(&self, code: RefusalCode) {
        let reason = code.as_str();
        self.refused.get_or_create(&Refused { reason }).inc();
    }

    /// Counts a run of so many requests.
    pub fn batched(&self, requests: u32) {
        self.batches.inc();
        self.batched.inc_by(u64::from(requests));
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self, now: Gauges) -> String {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.slots.set(count(now.slots));
        self.taken.set(count(now.taken));
        self.waiting.set(count(now.waiting));
        self.inside.set(count(now.inside));
        self.model_bytes
            .set(i64::try_from(now.model_bytes).unwrap_or(i64::MAX));
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut out, &self.registry);
        out
    }
}

/// All steps, so that a new one is decided on.
fn by_name(steps: &Steps) -> [(&'static str, u64); 7] {
    let Steps {
        queue_us,
        key_us,
        fetch_us,
        decrypt_us,
        load_us,
        open_us,
        run_us,
    } = *steps;
    [
        ("queue", queue_us),
        ("key", key_us),
        ("fetch", fetch_us),
        ("decrypt", decrypt_us),
        ("load", load_us),
        ("open", open_us),
        ("run", run_us),
    ]
}
