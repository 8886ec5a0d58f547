//! The way of a request through the enclave, from ciphertext to ciphertext.
//!
//! It enters when it gets along with those inside, gets its keys, is opened, gets a model and a slot, is run and sealed, and
//! leaves. No lock is held across any of these. A request that is refused before its key is at hand gets a refusal in the clear
//! that says no more than a code; after that, refusals travel sealed like answers.

mod batches;
mod journey;
mod run;
mod under_way;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi_process::wipe_everything;
use sesemi_protocol::envelope::{
    EnvelopeError, OpenedRequest, ParsedRequest, Report, Route, parse_request,
};
use sesemi_protocol::id::{ModelRef, VersionSelector};
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_protocol::{Entropy, Refusal, RefusalCode};
use sesemi_traces::{Key, Outcome, Span};
use tokio::time::Instant;

use crate::engine::Plain;
use crate::keys::{Keys, LiveLease};
use crate::metrics::{Gauges, Metrics};
use crate::models::{Models, Prefetch};
use crate::occupancy::{Occupancy, Place};
use crate::slots::{Slots, Watchdog};
use batches::Batches;
use journey::Journey;
use run::Request;

/// Serves requests.
pub struct Runtime {
    keys: Arc<Keys>,
    models: Arc<Models>,
    occupancy: Occupancy,
    slots: Slots,
    batches: Batches,
    watchdog: Arc<Watchdog>,
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
    /// Requests that may wait for a slot, and requests that may wait for the enclave.
    pub queue: usize,
    /// How long a request waits for others that it may be run with; none for not at all.
    pub batch_window: Duration,
}

/// What became of a request whose user is known.
struct Served {
    report: Report,
    /// Whether the operator may be told how long its steps took.
    told: bool,
    refused: Option<RefusalCode>,
    answer: Vec<u8>,
}

/// A request inside the enclave, with its keys.
struct Admitted {
    lease: Arc<LiveLease>,
    level: IsolationLevel,
    place: Arc<Place>,
    /// The model's package, on its way since the keys were asked for.
    _ahead: Option<Prefetch>,
}

impl Runtime {
    /// A runtime that has served nothing yet.
    ///
    /// # Errors
    /// [`std::io::Error`] if the threads of the slots cannot be started.
    pub fn new(
        keys: Keys,
        models: Arc<Models>,
        capacity: Capacity,
        watchdog: Arc<Watchdog>,
        entropy: Arc<dyn Entropy>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let keys = Arc::new(keys);
        let clear = clearing(keys.clone(), models.clone(), wipe_everything);
        let slots = Slots::new(capacity.slots, capacity.queue)?;
        let batches = Batches::new(
            capacity.batch_window,
            slots.clone(),
            models.clone(),
            watchdog.clone(),
            metrics.clone(),
        );
        Ok(Self {
            keys,
            models,
            occupancy: Occupancy::new(capacity.queue, clear),
            slots,
            batches,
            watchdog,
            used: AtomicBool::new(false),
            entropy,
            metrics,
        })
    }

    /// The keys, which somebody has to tend.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What notices an engine that hangs.
    #[must_use]
    pub fn watchdog(&self) -> &Arc<Watchdog> {
        &self.watchdog
    }

    /// What the operator may count, as it is now.
    #[must_use]
    pub fn metrics(&self) -> String {
        let (inside, outside) = self.occupancy.counts();
        self.metrics.render(Gauges {
            slots: self.slots.count(),
            taken: self.slots.taken(),
            waiting: self.slots.waiting().saturating_add(outside),
            inside,
            model_bytes: self.models.used(),
        })
    }

    /// Counts a refusal of a request that never came here.
    pub fn count_refusal(&self, code: RefusalCode) {
        self.metrics.refused(code);
        self.models.rests();
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
        let deliver = |sealed| core::future::ready(Ok(sealed));
        self.serve_into(message, deadline, span, deliver).await
    }

    /// Serves a request as [`Runtime::serve`] does, and hands the sealed answer to `deliver`: it counts as served once that has
    /// succeeded.
    ///
    /// # Errors
    /// As [`Runtime::serve`], and what `deliver` refuses.
    pub async fn serve_into<T, D: Future<Output = Result<T, Refusal>>>(
        &self,
        message: Vec<u8>,
        deadline: Instant,
        span: &mut Span,
        deliver: impl FnOnce(Vec<u8>) -> D,
    ) -> Result<T, Refusal> {
        let started = Instant::now();
        let served = if started < deadline {
            tokio::time::timeout_at(deadline, self.attempt(message, deadline, span))
                .await
                .unwrap_or_else(|_| Err(RefusalCode::DeadlineExceeded.into()))
        } else {
            Err(RefusalCode::DeadlineExceeded.into())
        };
        let delivered = match served {
            Ok(served) => {
                span.set(Key::Path, served.report.path.as_str());
                let delivered = deliver(served.answer).await;
                delivered.map(|it| (it, served.report, served.told, served.refused))
            }
            Err(refusal) => Err(refusal),
        };
        let refused = match &delivered {
            Ok((_, report, told, None)) => {
                span.end(Outcome::Done);
                self.metrics.served(report, started.elapsed(), *told);
                None
            }
            Ok((.., refused)) => *refused,
            Err(refusal) => Some(refusal.code),
        };
        if let Some(code) = refused {
            span.end(outcome(code));
            self.metrics.refused(code);
        }
        self.models.rests();
        delivered.map(|(it, ..)| it)
    }

    async fn attempt(
        &self,
        message: Vec<u8>,
        deadline: Instant,
        span: &Span,
    ) -> Result<Served, Refusal> {
        let mut journey = Journey::new(span);
        let parsed = parse_request(&message).map_err(|_| RefusalCode::Malformed)?;
        // Whichever request comes first is the cold one, even if it is refused later: it found nothing here.
        journey.first = !self.used.swap(true, Ordering::Relaxed);
        let admitted = self.admit(&parsed.route, &mut journey).await?;
        if !journey.can_answer_before(deadline) {
            // It would be run for nothing.
            return Err(RefusalCode::DeadlineExceeded.into());
        }
        let served = self
            .serve_inside(parsed, message, admitted, deadline, &mut journey)
            .await?;
        // Outside again: only the sealed answer waits.
        if let Some(quantum) = journey.quantum()
            && let Some(at) = next_multiple(journey.began(), quantum)
        {
            tokio::time::sleep_until(at).await;
        }
        Ok(served)
    }

    /// Enters with the keys. How strictly the request must be kept apart is known only from its lease; if that demands more
    /// than it came in with, it goes out again, without the keys, and comes in as it must.
    async fn admit(&self, route: &Route, journey: &mut Journey<'_>) -> Result<Admitted, Refusal> {
        let mut ahead = None;
        loop {
            let level = self.keys.level(route);
            let place = Arc::new(self.occupancy.enter(route.user, level).await?);
            journey.lap("enter", |steps| &mut steps.queue_us);
            let lease = match self.keys.held(route) {
                Some(lease) => lease,
                None => {
                    journey.missed = true;
                    // Meanwhile the package may be on its way already, if it is clear which one it is.
                    ahead = ahead.or_else(|| self.prefetch(route));
                    self.keys
                        .fetch(route, Point::START, level, place.clone())
                        .await?
                }
            };
            journey.lap("key", |steps| &mut steps.key_us);
            self.check_wipes(&lease)?;
            if lease.level() <= level {
                journey.goes_under(&lease.lease().isolation);
                return Ok(Admitted {
                    lease,
                    level,
                    place,
                    _ahead: ahead,
                });
            }
        }
    }

    /// Refuses what wants its buffers wiped after it, if the engine does not do that.
    fn check_wipes(&self, lease: &LiveLease) -> Result<(), Refusal> {
        if lease.level() == IsolationLevel::Sequential && !self.models.wipes() {
            return Err(Refusal::new(
                RefusalCode::NotPermitted,
                "its owner or user asks for isolation `sequential`, which wipes buffers after each request, and this engine does \
                 not; use RTen, or ask for `dedicated-user`",
            ));
        }
        Ok(())
    }

    /// Begins to fetch the package that a request names.
    fn prefetch(&self, route: &Route) -> Option<Prefetch> {
        match route.model.version {
            VersionSelector::Exact(version) => {
                let model = route.model.model.clone();
                self.models.prefetch(&ModelRef { model, version })
            }
            // Which version that is, KeyService alone knows.
            VersionSelector::Alias(_) => None,
        }
    }

    /// From the opening of a request to the sealing of its answer.
    async fn serve_inside(
        &self,
        parsed: ParsedRequest,
        message: Vec<u8>,
        admitted: Admitted,
        deadline: Instant,
        journey: &mut Journey<'_>,
    ) -> Result<Served, Refusal> {
        let route = parsed.route.clone();
        let opened = parsed
            .open(message, &admitted.lease.lease().request_key)
            .map_err(|e| match e {
                EnvelopeError::Content(_) => RefusalCode::Malformed,
                _ => RefusalCode::NotAuthentic,
            })?;
        // Only now: whoever does not have the user's key cannot keep its leases alive.
        admitted.lease.mark_used();
        journey.lap("open", |steps| &mut steps.open_us);

        // From here on the user's key is proven, and every answer is sealed.
        let opened = Arc::new(opened);
        let mut version = admitted.lease.lease().model.version;
        let request = Request {
            route: &route,
            opened: &opened,
            level: admitted.level,
            place: &admitted.place,
            deadline,
        };
        let outcome = self
            .run(&request, admitted.lease.clone(), journey, &mut version)
            .await;
        let report = journey.report(version);
        let refused = outcome.as_ref().err().map(|refusal| refusal.code);
        let answer = seal(&opened, outcome, report, &*self.entropy)?;
        journey.record("seal", Instant::now());
        Ok(Served {
            report,
            told: journey.quantum().is_none(),
            refused,
            answer,
        })
    }
}

/// Forgets what users left. Buffers are larger than what is wiped for everybody: those that were kept `apart` are wiped as they go,
/// and after that it ends.
fn clearing(
    keys: Arc<Keys>,
    models: Arc<Models>,
    wipe_everything: impl Fn(bool) + Send + Sync,
) -> impl Fn(bool) + Send + Sync {
    move |apart| {
        if apart {
            wipe_everything(true);
        }
        keys.forget_all();
        models.drop_executions();
        if !apart {
            wipe_everything(false);
        }
    }
}

/// The next moment that is a multiple of `quantum` after `began`.
fn next_multiple(began: Instant, quantum: Duration) -> Option<Instant> {
    let quantum = quantum.as_nanos();
    // At least one: an answer that took no time at all says so otherwise.
    let quanta = began.elapsed().as_nanos().div_ceil(quantum.max(1)).max(1);
    let after = u64::try_from(quanta.checked_mul(quantum)?).ok()?;
    began.checked_add(Duration::from_nanos(after))
}

/// Seals outputs or refusal for the user.
fn seal(
    opened: &OpenedRequest,
    outcome: Result<Plain, Refusal>,
    report: Report,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, Refusal> {
    let sealed = match outcome {
        Err(refusal) => opened.responder.seal(Err(refusal), report, entropy),
        Ok(outputs) => {
            let views: Vec<TensorView<'_>> = outputs.0.iter().map(Tensor::view).collect();
            opened.responder.seal(Ok(&views), report, entropy)
        }
    };
    sealed.map_err(|_| RefusalCode::Internal.into())
}

/// A refusal is the client's affair, unless this side, or what it depends on, did not do its work.
pub(crate) fn outcome(code: RefusalCode) -> Outcome {
    match code {
        RefusalCode::Internal
        | RefusalCode::EngineFailed
        | RefusalCode::KeyServiceUnavailable
        | RefusalCode::ModelUnavailable
        | RefusalCode::DeadlineExceeded => Outcome::Failed(code.as_str()),
        _ => Outcome::Refused(code.as_str()),
    }
}

#[cfg(test)]
mod tests;
