//! From an open request to its outputs: a lease that agrees, a model, a slot, and the run in it.

use std::sync::Arc;

use sesemi_protocol::envelope::{OpenedRequest, Route};
use sesemi_protocol::id::ModelVersion;
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::tensor::TensorView;
use sesemi_protocol::{Refusal, RefusalCode};
use tokio::time::Instant;

use super::Runtime;
use super::batches::{Joining, Outcome};
use super::journey::Journey;
use super::under_way::UnderWay;
use crate::engine::{EngineError, Plain};
use crate::keys::LiveLease;
use crate::models::shelf::Held;
use crate::models::{Buffers, Model};
use crate::occupancy::Place;
use crate::slots::Turn;

/// A request that is open.
pub(super) struct Request<'r> {
    pub(super) route: &'r Route,
    pub(super) opened: &'r Arc<OpenedRequest>,
    /// How strictly it is kept apart.
    pub(super) level: IsolationLevel,
    pub(super) place: &'r Arc<Place>,
    pub(super) deadline: Instant,
}

impl Request<'_> {
    /// What it would bring into a batch.
    fn joining(&self, lease: Arc<LiveLease>) -> Joining {
        Joining {
            user: self.route.user,
            opened: self.opened.clone(),
            place: self.place.clone(),
            lease,
            deadline: self.deadline,
        }
    }
}

/// What a batch told a request: its outputs, or nothing if its lease ended.
fn told(
    outcome: Outcome,
    journey: &mut Journey<'_>,
) -> Result<Option<Result<Plain, EngineError>>, Refusal> {
    match outcome {
        Outcome::Ran(ran) => {
            journey.missed |= ran.fresh;
            journey.lap_until(ran.began, "queue", |steps| &mut steps.queue_us);
            journey.lap("run", |steps| &mut steps.run_us);
            Ok(Some(ran.outputs))
        }
        Outcome::LeaseEnded | Outcome::Alone => {
            journey.lap("queue", |steps| &mut steps.queue_us);
            Ok(None)
        }
        Outcome::Refused(refusal) => Err(refusal),
    }
}

impl Runtime {
    /// Runs the model, and says in `version` which one that was.
    pub(super) async fn run(
        &self,
        request: &Request<'_>,
        lease: Arc<LiveLease>,
        journey: &mut Journey<'_>,
        version: &mut ModelVersion,
    ) -> Result<Plain, Refusal> {
        let mut lease = self.agreeing(request, lease, journey).await?;
        let mut alone = false;
        loop {
            *version = lease.lease().model.version;
            let model = self.model(&lease, request.place, journey).await?;
            let joining = request.joining(lease.clone());
            let candidate = self.batches.candidate(&model, &joining);
            let outputs = match candidate.filter(|_| !alone) {
                Some(candidate) => {
                    let outcome = self.batches.join(candidate, joining, model).await;
                    if matches!(outcome, Outcome::Alone) {
                        alone = true;
                        continue;
                    }
                    told(outcome, journey)?
                }
                None => self.run_alone(request, &lease, model, journey).await?,
            };
            if let Some(outputs) = outputs {
                return outputs.map_err(|error| match error {
                    EngineError::Input(_) => Refusal::new(RefusalCode::InvalidInput, error),
                    _ => Refusal::new(RefusalCode::EngineFailed, error),
                });
            }
            // The lease ended while this request waited for the model or for a slot: nothing may be run under it any more.
            lease = self
                .fetch_again(request, request.opened.seen().point, journey)
                .await?;
        }
    }

    /// Runs one request in a slot of its own; nothing if its lease ended before.
    async fn run_alone(
        &self,
        request: &Request<'_>,
        lease: &LiveLease,
        model: Arc<Held<Model>>,
        journey: &mut Journey<'_>,
    ) -> Result<Option<Result<Plain, EngineError>>, Refusal> {
        let turn = self
            .slots
            .turn(request.route.user, request.deadline, model.expected())
            .await?;
        journey.lap("queue", |steps| &mut steps.queue_us);
        if lease.has_ended() {
            return Ok(None);
        }
        let execution = match model.idle_execution() {
            Some(execution) => execution,
            None => {
                journey.missed = true;
                let place = request.place.clone();
                self.models.new_execution(&model, place).await?
            }
        };
        let outputs = self.execute(model, execution, request, turn).await;
        journey.lap("run", |steps| &mut steps.run_us);
        outputs.map(Some)
    }

    /// A lease that agrees with what the user has seen: this one, or one that KeyService is asked for.
    async fn agreeing(
        &self,
        request: &Request<'_>,
        lease: Arc<LiveLease>,
        journey: &mut Journey<'_>,
    ) -> Result<Arc<LiveLease>, Refusal> {
        let seen: StatePoint = request.opened.seen();
        if seen.service != lease.lease().state.service {
            return Err(RefusalCode::WrongService.into());
        }
        if lease.agrees_with(&seen.point) {
            return Ok(lease);
        }
        self.fetch_again(request, seen.point, journey).await
    }

    /// Another lease for a request that is open already.
    async fn fetch_again(
        &self,
        request: &Request<'_>,
        seen: Point,
        journey: &mut Journey<'_>,
    ) -> Result<Arc<LiveLease>, Refusal> {
        journey.missed = true;
        let place = request.place.clone();
        let lease = self
            .keys
            .fetch(request.route, seen, request.level, place)
            .await?;
        journey.lap("key", |steps| &mut steps.key_us);
        self.check_wipes(&lease)?;
        if lease.level() > request.level {
            // It must be kept apart more strictly since a moment ago, and is open among others. The next attempt will be.
            return Err(RefusalCode::Busy.into());
        }
        journey.goes_under(&lease.lease().isolation);
        lease.mark_used();
        Ok(lease)
    }

    async fn model(
        &self,
        lease: &LiveLease,
        place: &Arc<Place>,
        journey: &mut Journey<'_>,
    ) -> Result<Arc<Held<Model>>, Refusal> {
        let lease = lease.lease();
        if let Some(model) = self.models.held(&lease.model) {
            return Ok(model);
        }
        journey.missed = true;
        let (model, times) = self.models.load(lease, place.clone()).await?;
        journey.loaded(times);
        Ok(model)
    }

    /// Runs on the slot's thread. Slot and place go along, so they are free only once the run has really ended, even if the
    /// client left in the meantime.
    async fn execute(
        &self,
        model: Arc<Held<Model>>,
        mut execution: Buffers,
        request: &Request<'_>,
        turn: Turn,
    ) -> Result<Result<Plain, EngineError>, Refusal> {
        let (opened, place) = (request.opened.clone(), request.place.clone());
        let watchdog = self.watchdog.clone();
        let keep = request.level != IsolationLevel::Sequential;
        let under_way = UnderWay::new(execution.stopper());
        let still_wanted = under_way.still_wanted();
        let run = turn.run(move || {
            let _watched = watchdog.begin("run");
            let began = Instant::now();
            let inputs: Vec<TensorView<'_>> = opened.inputs().collect();
            let outputs = execution.run(&inputs, opened.outputs());
            match &outputs {
                Ok(_) | Err(EngineError::Input(_)) if still_wanted.ended() && keep => {
                    model.give_back(execution);
                }
                // After a failed run its buffers are in an unknown state, and what was stopped stays so.
                _ => drop(execution),
            }
            if outputs.is_ok() {
                model.took(began.elapsed());
            }
            drop(inputs);
            drop(opened);
            // Whoever must not be inside together with this request comes in once nothing of it is here any more. If nobody
            // waits for the outputs, they are wiped first.
            (outputs.map(Plain), place)
        });
        let (outputs, _place) = run.await?;
        Ok(outputs)
    }
}
