//! The way of a request through the enclave, from ciphertext to ciphertext.
//!
//! No lock is held across a run, a fetch or a wait. A request that is refused before its key is at hand gets a refusal in the
//! clear that says no more than a code; after that, refusals travel sealed like answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sesemi_protocol::envelope::{
    EnvelopeError, OpenedRequest, Path, Report, Route, Steps, parse_request,
};
use sesemi_protocol::id::ModelVersion;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{Entropy, Refusal, RefusalCode};
use sesemi_traces::{Key, Outcome, Span};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use zeroize::Zeroize as _;

use crate::engine::{EngineError, Execution};
use crate::keys::{Keys, LiveLease};
use crate::metrics::Metrics;
use crate::models::shelf::Held;
use crate::models::{Model, Models};

/// Serves requests.
pub struct Runtime {
    keys: Keys,
    models: Models,
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    used: AtomicBool,
    entropy: Arc<dyn Entropy>,
    metrics: Arc<Metrics>,
}

impl core::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Runtime(..)")
    }
}

/// How much a runtime does at once.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Runs at once (the paper's TCS count).
    pub slots: usize,
    /// Requests that may wait for a slot.
    pub queue: usize,
}

impl Runtime {
    /// A runtime that has served nothing yet.
    #[must_use]
    pub fn new(
        keys: Keys,
        models: Models,
        capacity: Capacity,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            keys,
            models,
            slots: Arc::new(Semaphore::new(capacity.slots)),
            waiting: AtomicUsize::new(0),
            queue: capacity.queue,
            used: AtomicBool::new(false),
            entropy,
            metrics,
        }
    }

    /// The keys, which somebody has to tend.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What the operator may count.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves one sealed request before `deadline`, and records in `span` which path it took, how long each step was, and how
    /// it ended: what the metrics count, and nothing else.
    ///
    /// # Errors
    /// A [`Refusal`] that goes back in the clear: the request is malformed, no key was released for it, it is not
    /// authentic, or time ran out. Its detail says nothing about content.
    pub async fn serve(
        &self,
        message: Vec<u8>,
        deadline: Instant,
        span: &mut Span,
    ) -> Result<Vec<u8>, Refusal> {
        let started = Instant::now();
        let served = if started < deadline {
            tokio::time::timeout_at(deadline, self.attempt(message, span))
                .await
                .unwrap_or_else(|_| Err(RefusalCode::DeadlineExceeded.into()))
        } else {
            Err(RefusalCode::DeadlineExceeded.into())
        };
        match served {
            Ok((report, refused, answer)) => {
                span.set(Key::Path, report.path.as_str());
                match refused {
                    None => {
                        span.end(Outcome::Done);
                        self.metrics.served(report.path, started.elapsed());
                    }
                    Some(code) => {
                        span.end(outcome(code));
                        self.metrics.refused(code);
                    }
                }
                Ok(answer)
            }
            Err(refusal) => {
                span.end(outcome(refusal.code));
                self.metrics.refused(refusal.code);
                Err(refusal)
            }
        }
    }

    async fn attempt(
        &self,
        message: Vec<u8>,
        span: &Span,
    ) -> Result<(Report, Option<RefusalCode>, Vec<u8>), Refusal> {
        let mut journey = Journey::new(span);
        let parsed = parse_request(&message).map_err(|_| RefusalCode::Malformed)?;
        // Whichever request comes first is the cold one, even if it is refused later: it found nothing here.
        journey.first = !self.used.swap(true, Ordering::Relaxed);
        let route = parsed.route.clone();
        let lease = match self.keys.held(&route) {
            Some(lease) => lease,
            None => {
                journey.missed = true;
                self.keys.fetch(&route, Point::START).await?
            }
        };
        journey.lap("key", |steps| &mut steps.key_us);
        let opened = parsed
            .open(message, &lease.lease().request_key)
            .map_err(|e| match e {
                EnvelopeError::Content(_) => RefusalCode::Malformed,
                _ => RefusalCode::NotAuthentic,
            })?;
        // Only now: whoever does not have the user's key cannot keep its leases alive.
        lease.mark_used();
        journey.lap("open", |steps| &mut steps.open_us);

        // From here on the user's key is proven, and every answer is sealed.
        let opened = Arc::new(opened);
        let mut version = lease.lease().model.version;
        let outcome = self
            .run(&route, lease, &opened, &mut journey, &mut version)
            .await;
        let report = journey.report(version);
        let refused = outcome.as_ref().err().map(|refusal| refusal.code);
        let answer = seal(&opened, outcome, report, &*self.entropy)?;
        journey.record("seal", Instant::now());
        Ok((report, refused, answer))
    }

    /// Runs the model, and says in `version` which one that was.
    async fn run(
        &self,
        route: &Route,
        lease: Arc<LiveLease>,
        opened: &Arc<OpenedRequest>,
        journey: &mut Journey<'_>,
        version: &mut ModelVersion,
    ) -> Result<Vec<Tensor>, Refusal> {
        let mut lease = self.agreeing(route, lease, opened.seen(), journey).await?;
        let (model, slot) = loop {
            *version = lease.lease().model.version;
            let model = self.model(&lease, journey).await?;
            let slot = self.slot().await?;
            journey.lap("queue", |steps| &mut steps.queue_us);
            if !lease.has_ended() {
                break (model, slot);
            }
            // It ended while this request waited for the model or for a slot: nothing may be run under it any more.
            drop(slot);
            journey.missed = true;
            lease = self.keys.fetch(route, opened.seen().point).await?;
            lease.mark_used();
            journey.lap("key", |steps| &mut steps.key_us);
        };
        let execution = match model.idle_execution() {
            Some(execution) => execution,
            None => {
                journey.missed = true;
                model.new_execution()?
            }
        };
        let outputs = execute(model, execution, opened.clone(), slot).await;
        journey.lap("run", |steps| &mut steps.run_us);
        outputs
    }

    /// A lease that agrees with what the user has seen: this one, or one that KeyService is asked for.
    async fn agreeing(
        &self,
        route: &Route,
        lease: Arc<LiveLease>,
        seen: StatePoint,
        journey: &mut Journey<'_>,
    ) -> Result<Arc<LiveLease>, Refusal> {
        if seen.service != lease.lease().state.service {
            return Err(RefusalCode::WrongService.into());
        }
        if lease.agrees_with(&seen.point) {
            return Ok(lease);
        }
        journey.missed = true;
        let lease = self.keys.fetch(route, seen.point).await?;
        lease.mark_used();
        journey.lap("key", |steps| &mut steps.key_us);
        Ok(lease)
    }

    async fn model(
        &self,
        lease: &LiveLease,
        journey: &mut Journey<'_>,
    ) -> Result<Arc<Held<Model>>, Refusal> {
        let lease = lease.lease();
        let model = match self.models.held(&lease.model) {
            Some(model) => model,
            None => {
                journey.missed = true;
                self.models.fetch(lease).await?
            }
        };
        journey.lap("load", |steps| &mut steps.load_us);
        Ok(model)
    }

    /// Waits for a slot, unless too many wait already.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        let _waiting = Waiting::enter(&self.waiting, self.queue).ok_or(RefusalCode::Busy)?;
        self.slots
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| RefusalCode::Internal.into())
    }
}

/// Runs on a thread of its own. The slot goes along, so it is free only once the run has really ended, even if the client
/// left in the meantime.
async fn execute(
    model: Arc<Held<Model>>,
    mut execution: Box<dyn Execution>,
    opened: Arc<OpenedRequest>,
    slot: OwnedSemaphorePermit,
) -> Result<Vec<Tensor>, Refusal> {
    let run = tokio::task::spawn_blocking(move || {
        let inputs: Vec<TensorView<'_>> = opened.inputs().collect();
        let outputs = execution.run(&inputs, opened.outputs());
        // After a failed run its buffers are in an unknown state; they are not used again.
        match &outputs {
            Ok(_) | Err(EngineError::Input(_)) => model.give_back(execution),
            Err(_) => drop(execution),
        }
        // Last, so that there are never more executions of a model than slots.
        drop(slot);
        outputs
    });
    run.await
        .map_err(|_| RefusalCode::Internal)?
        .map_err(|error| match error {
            EngineError::Input(_) => Refusal::new(RefusalCode::InvalidInput, error),
            _ => Refusal::new(RefusalCode::EngineFailed, error),
        })
}

/// Seals outputs or refusal for the user, then wipes the outputs.
fn seal(
    opened: &OpenedRequest,
    outcome: Result<Vec<Tensor>, Refusal>,
    report: Report,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, Refusal> {
    let sealed = match outcome {
        Err(refusal) => opened.responder.seal(Err(refusal), report, entropy),
        Ok(mut outputs) => {
            let views: Vec<TensorView<'_>> = outputs.iter().map(Tensor::view).collect();
            let sealed = opened.responder.seal(Ok(&views), report, entropy);
            drop(views);
            outputs.iter_mut().for_each(|output| output.data.zeroize());
            sealed
        }
    };
    sealed.map_err(|_| RefusalCode::Internal.into())
}

/// A refusal is the client's affair, unless this side, or what it depends on, did not do its work.
fn outcome(code: RefusalCode) -> Outcome {
    match code {
        RefusalCode::Internal
        | RefusalCode::EngineFailed
        | RefusalCode::KeyServiceUnavailable
        | RefusalCode::ModelUnavailable
        | RefusalCode::DeadlineExceeded => Outcome::Failed(code.as_str()),
        _ => Outcome::Refused(code.as_str()),
    }
}

/// One place in the queue for a slot.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
                now.checked_add(1).filter(|now| *now <= limit)
            })
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one request met on its way, and how long each step took.
struct Journey<'a> {
    span: &'a Span,
    first: bool,
    missed: bool,
    steps: Steps,
    last: Instant,
}

impl<'a> Journey<'a> {
    fn new(span: &'a Span) -> Self {
        Self {
            span,
            first: false,
            missed: false,
            steps: Steps::default(),
            last: Instant::now(),
        }
    }

    /// Adds the time since the last step to this one.
    fn lap(&mut self, name: &'static str, step: impl FnOnce(&mut Steps) -> &mut u64) {
        let now = Instant::now();
        let took = now.duration_since(self.last).as_micros();
        let step = step(&mut self.steps);
        *step = step.saturating_add(u64::try_from(took).unwrap_or(u64::MAX));
        self.record(name, now);
        self.last = now;
    }

    /// Records what went on since the last step.
    fn record(&self, name: &'static str, now: Instant) {
        self.span.step(name, self.last.into_std(), now.into_std());
    }

    fn report(&self, version: ModelVersion) -> Report {
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

#[cfg(test)]
mod tests;
