//! What one request met on its way, and how long each step took.

use std::time::Duration;

use sesemi_protocol::envelope::{Path, Report, Steps};
use sesemi_protocol::id::ModelVersion;
use sesemi_protocol::isolation::Isolation;
use sesemi_traces::Span;
use tokio::time::Instant;

use crate::models::LoadTimes;

/// One request's way through the enclave.
pub(super) struct Journey<'a> {
    span: &'a Span,
    began: Instant,
    last: Instant,
    /// Nothing was served here before.
    pub(super) first: bool,
    /// A key, the model or an execution was missing.
    pub(super) missed: bool,
    steps: Steps,
    /// What the leases demand that it goes under.
    quantum: Option<Duration>,
}

impl<'a> Journey<'a> {
    pub(super) fn new(span: &'a Span) -> Self {
        let now = Instant::now();
        Self {
            span,
            began: now,
            last: now,
            first: false,
            missed: false,
            steps: Steps::default(),
            quantum: None,
        }
    }

    /// When it began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Notes what a lease demands. The host is told no times from then on that are finer than the quantum.
    pub(super) fn goes_under(&mut self, isolation: &Isolation) {
        self.quantum = self.quantum.max(isolation.quantum());
    }

    /// The time of which the answer's own has to be a multiple.
    pub(super) fn quantum(&self) -> Option<Duration> {
        self.quantum
    }

    /// Whether an answer may leave before the deadline.
    pub(super) fn can_answer_before(&self, deadline: Instant) -> bool {
        let first = self
            .quantum
            .map_or(Some(self.began), |quantum| self.began.checked_add(quantum));
        first.is_some_and(|first| first < deadline)
    }

    /// Adds the time since the last step to this one.
    pub(super) fn lap(&mut self, name: &'static str, step: impl FnOnce(&mut Steps) -> &mut u64) {
        self.lap_until(Instant::now(), name, step);
    }

    /// Adds the time from the last step until then to this one.
    pub(super) fn lap_until(
        &mut self,
        now: Instant,
        name: &'static str,
        step: impl FnOnce(&mut Steps) -> &mut u64,
    ) {
        add(step(&mut self.steps), now.duration_since(self.last));
        self.record(name, now);
        self.last = now;
    }

    /// Adds the time since the last step to those of a load.
    pub(super) fn loaded(&mut self, times: LoadTimes) {
        let now = Instant::now();
        // Between them and here there is at most a moment.
        let times = times.within(now.duration_since(self.last));
        add(&mut self.steps.fetch_us, times.fetch);
        add(&mut self.steps.decrypt_us, times.decrypt);
        add(&mut self.steps.load_us, times.load);
        self.record("load", now);
        self.last = now;
    }

    /// Records what went on since the last step.
    pub(super) fn record(&self, name: &'static str, now: Instant) {
        if self.quantum.is_none() {
            self.span.step(name, self.last.into_std(), now.into_std());
        }
    }

    /// What the user is told.
    pub(super) fn report(&self, version: ModelVersion) -> Report {
        let path = match (self.first, self.missed) {
            (true, _) => Path::Cold,
            (false, true) => Path::Warm,
            (false, false) => Path::Hot,
        };
        Report {
            path,
            steps: self.steps,
            version,
        }
    }
}

fn add(step: &mut u64, took: Duration) {
    let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    *step = step.saturating_add(took);
}
