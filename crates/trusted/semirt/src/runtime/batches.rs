//! Requests of one model that are run together, as the rows of one run. Off unless the operator sets a window; then a request
//! waits that long for others, and longer only while all slots are taken. A batch waits, and is charged, in the name of whoever
//! began it.
//!
//! Who may meet in one tensor is not the operator's choice. The owner says in the manifest that the model's rows have nothing to
//! do with each other; but a model that lies, or is wrong, could carry one row into another. So the requests of one user are run
//! together, and those of several only under leases whose level is [`IsolationLevel::Batched`]: owner and user both asked for it.

mod alike;
mod forming;
mod run;

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::envelope::OpenedRequest;
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::{ModelRef, PrincipalId, Refusal, RefusalCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::{EngineError, Plain};
use crate::keys::LiveLease;
use crate::metrics::Metrics;
use crate::models::shelf::Held;
use crate::models::{Model, Models};
use crate::occupancy::Place;
use crate::slots::{Slots, Watchdog};
use alike::{Alike, Size};
use forming::Forming;

/// Forms batches and runs them.
#[derive(Clone)]
pub(super) struct Batches {
    window: Duration,
    forming: Arc<Forming>,
}

/// Whose requests are run together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    model: ModelRef,
    /// Nobody in particular, if users may meet.
    user: Option<PrincipalId>,
    alike: Alike,
}

/// A request that may be run with others.
pub(super) struct Candidate {
    key: Key,
    size: Size,
}

/// A request on its way into a batch.
pub(super) struct Joining {
    pub(super) user: PrincipalId,
    pub(super) opened: Arc<OpenedRequest>,
    pub(super) place: Arc<Place>,
    pub(super) lease: Arc<LiveLease>,
    pub(super) deadline: Instant,
}

/// What became of one request.
pub(super) enum Outcome {
    /// It was run.
    Ran(Ran),
    /// Its lease ended while it waited: nothing was run under it.
    LeaseEnded,
    /// There was no slot, or no memory, for the batch.
    Refused(Refusal),
    /// There was no slot in the name of whoever began the batch: it may get one in its own.
    Alone,
}

/// A run of one request, among others or not.
pub(super) struct Ran {
    pub(super) outputs: Result<Plain, EngineError>,
    pub(super) began: Instant,
    /// Whether buffers had to be made for it.
    pub(super) fresh: bool,
    /// Whoever must not be inside together with this request comes in once nothing of it is here any more.
    pub(super) _place: Arc<Place>,
}

impl Batches {
    pub(super) fn new(
        window: Duration,
        slots: Slots,
        models: Arc<Models>,
        watchdog: Arc<Watchdog>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let forming = Forming::new(window, slots, models, watchdog, metrics);
        Self { window, forming }
    }

    /// Whether a request may be run with others, and with which.
    pub(super) fn candidate(&self, model: &Model, joining: &Joining) -> Option<Candidate> {
        if self.window.is_zero() {
            return None;
        }
        // Waiting for others would be all that it has time for.
        let waits = self.window.saturating_add(model.expected());
        if Instant::now().checked_add(waits)? >= joining.deadline {
            return None;
        }
        let user = match joining.lease.level() {
            IsolationLevel::Batched => None,
            IsolationLevel::Shared | IsolationLevel::DedicatedUser => Some(joining.user),
            IsolationLevel::Sequential => return None,
        };
        if !model.has_rows() {
            return None;
        }
        let (alike, size) = alike::of(&model.manifest, &joining.opened)?;
        let model = joining.lease.lease().model.clone();
        let key = Key { model, user, alike };
        Some(Candidate { key, size })
    }

    /// Waits for others, and is run with them. Whoever drops this leaves the batch.
    pub(super) async fn join(
        &self,
        candidate: Candidate,
        joining: Joining,
        model: Arc<Held<Model>>,
    ) -> Outcome {
        let (told, outcome) = oneshot::channel();
        let _waiting = self.forming.clone().add(candidate, joining, model, told);
        let gone = |_| Outcome::Refused(RefusalCode::Internal.into());
        outcome.await.unwrap_or_else(gone)
    }
}
