//! Requests of one model that are run together, as the rows of one run. Off unless the operator sets a window; then a request
//! waits that long for others, and longer only while all slots are taken.
//!
//! Who may meet in one tensor is not the operator's choice. The owner says in the manifest that the model's rows have nothing to
//! do with each other; but a model that lies, or is wrong, could carry one row into another. So the requests of one user are run
//! together, and those of several only under leases whose level is [`IsolationLevel::Batched`]: owner and user both asked for it.

mod alike;
mod run;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use sesemi_protocol::envelope::OpenedRequest;
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::{ModelRef, PrincipalId, Refusal, RefusalCode};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::plain::Plain;
use super::under_way::UnderWay;
use crate::engine::EngineError;
use crate::keys::LiveLease;
use crate::metrics::Metrics;
use crate::models::shelf::Held;
use crate::models::{Model, Models};
use crate::occupancy::Place;
use crate::slots::{Slots, Turn, Watchdog};
use crate::sync::{Mutex, lock};
use alike::Alike;
use run::Run;

/// Forms batches and runs them.
#[derive(Clone)]
pub(super) struct Batches {
    shared: Arc<Shared>,
}

struct Shared {
    window: Duration,
    slots: Slots,
    models: Arc<Models>,
    watchdog: Arc<Watchdog>,
    metrics: Arc<Metrics>,
    /// Batches that others may join. Members are added under this lock, and only to what is in here.
    forming: Mutex<HashMap<Key, Arc<Batch>>>,
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
    rows: u64,
}

/// Requests that wait to be run together.
#[derive(Default)]
struct Batch {
    members: Mutex<Vec<Member>>,
    full: Notify,
    /// Told when the last one who waited left.
    abandoned: Arc<Notify>,
    interest: Mutex<Weak<Interest>>,
}

/// Held by all who wait for a batch. When the last of them leaves, its run is stopped.
struct Interest {
    abandoned: Arc<Notify>,
    under_way: Mutex<Option<UnderWay>>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.abandoned.notify_one();
    }
}

/// A request on its way into a batch.
pub(super) struct Joining {
    pub(super) user: PrincipalId,
    pub(super) opened: Arc<OpenedRequest>,
    pub(super) place: Arc<Place>,
    pub(super) lease: Arc<LiveLease>,
    pub(super) deadline: Instant,
}

/// A request in a batch.
struct Member {
    opened: Arc<OpenedRequest>,
    place: Arc<Place>,
    lease: Arc<LiveLease>,
    rows: u64,
    told: oneshot::Sender<Outcome>,
}

/// What became of one request.
pub(super) enum Outcome {
    /// It was run.
    Ran(Ran),
    /// Its lease ended while it waited: nothing was run under it.
    LeaseEnded,
    /// There was no slot, or no memory, for the batch.
    Refused(Refusal),
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
        Self {
            shared: Arc::new(Shared {
                window,
                slots,
                models,
                watchdog,
                metrics,
                forming: Mutex::default(),
            }),
        }
    }

    /// Whether a request may be run with others, and with which.
    pub(super) fn candidate(&self, model: &Model, joining: &Joining) -> Option<Candidate> {
        if self.shared.window.is_zero() {
            return None;
        }
        let user = match joining.lease.level() {
            IsolationLevel::Batched => None,
            IsolationLevel::Shared | IsolationLevel::DedicatedUser => Some(joining.user),
            IsolationLevel::Sequential => return None,
        };
        let (alike, rows) = alike::of(&model.manifest, &joining.opened)?;
        let model = joining.lease.lease().model.clone();
        let key = Key { model, user, alike };
        Some(Candidate { key, rows })
    }

    /// Waits for others, and is run with them. Whoever drops this leaves the batch.
    pub(super) async fn join(
        &self,
        candidate: Candidate,
        joining: Joining,
        model: Arc<Held<Model>>,
    ) -> Outcome {
        let (told, outcome) = oneshot::channel();
        let _interest = self.shared.clone().add(candidate, joining, model, told);
        let gone = |_| Outcome::Refused(RefusalCode::Internal.into());
        outcome.await.unwrap_or_else(gone)
    }
}

impl Shared {
    /// Adds a request to a batch that has room for it, or begins one.
    fn add(
        self: Arc<Self>,
        candidate: Candidate,
        joining: Joining,
        model: Arc<Held<Model>>,
        told: oneshot::Sender<Outcome>,
    ) -> Arc<Interest> {
        let Candidate { key, rows } = candidate;
        let most = model.manifest.batch.map_or(1, |most| u64::from(most.get()));
        let (user, deadline) = (joining.user, joining.deadline);
        let mut forming = lock(&self.forming);
        let fits = |batch: &&Arc<Batch>| batch.rows().saturating_add(rows) <= most;
        let joined = forming.get(&key).filter(fits).cloned();
        let batch = joined.clone().unwrap_or_default();
        let interest = batch.join(joining, rows, told);
        if batch.rows() >= most {
            forming.remove(&key);
            batch.full.notify_one();
        } else if joined.is_none()
            && let Some(other) = forming.insert(key.clone(), batch.clone())
        {
            // It has no room for this one, so it need not wait for more.
            other.full.notify_one();
        }
        drop(forming);
        if joined.is_none() {
            tokio::spawn(async move { self.conduct(&key, &batch, user, deadline, model).await });
        }
        interest
    }

    /// From the first request of a batch to the last answer. The slot is taken in the name of the user who came first, who waits
    /// least by it and is charged for all.
    async fn conduct(
        &self,
        key: &Key,
        batch: &Arc<Batch>,
        user: PrincipalId,
        deadline: Instant,
        model: Arc<Held<Model>>,
    ) {
        let _ = tokio::time::timeout(self.window, batch.full.notified()).await;
        let turn = loop {
            tokio::select! {
                turn = self.slots.turn(user, deadline, model.expected()) => break turn,
                () = batch.abandoned.notified() => if self.is_abandoned(key, batch) {
                    return;
                },
            }
        };
        let (members, interest) = self.close(key, batch);
        let ended = |member: &Member| member.lease.has_ended();
        let (ended, members): (Vec<_>, Vec<_>) = members.into_iter().partition(ended);
        tell(ended, || Outcome::LeaseEnded);
        let members: Vec<Member> = members
            .into_iter()
            .filter(|member| !member.told.is_closed())
            .collect();
        let turn = match turn {
            Ok(turn) => turn,
            Err(refusal) => return tell(members, || Outcome::Refused(refusal.clone())),
        };
        if !members.is_empty() {
            self.run(members, &interest, model, turn).await;
        }
    }

    /// Whether nobody waits for a batch any more, which nobody joins then.
    fn is_abandoned(&self, key: &Key, batch: &Arc<Batch>) -> bool {
        let mut forming = lock(&self.forming);
        let abandoned = lock(&batch.interest).upgrade().is_none();
        if abandoned {
            remove(&mut forming, key, batch);
        }
        abandoned
    }

    /// Takes the members of a batch, which nobody joins any more.
    fn close(&self, key: &Key, batch: &Arc<Batch>) -> (Vec<Member>, Weak<Interest>) {
        remove(&mut lock(&self.forming), key, batch);
        let members = core::mem::take(&mut *lock(&batch.members));
        (members, lock(&batch.interest).clone())
    }

    async fn run(
        &self,
        members: Vec<Member>,
        interest: &Weak<Interest>,
        model: Arc<Held<Model>>,
        turn: Turn,
    ) {
        let (execution, fresh) = match model.idle_execution() {
            Some(execution) => (execution, false),
            None => {
                let places: Vec<_> = members.iter().map(|member| member.place.clone()).collect();
                match self.models.new_execution(&model, Arc::new(places)).await {
                    Ok(execution) => (execution, true),
                    Err(refusal) => return tell(members, || Outcome::Refused(refusal.clone())),
                }
            }
        };
        let under_way = UnderWay::new(execution.stopper());
        let still_wanted = under_way.still_wanted();
        match interest.upgrade() {
            Some(interest) => *lock(&interest.under_way) = Some(under_way),
            None => return,
        }
        let run = Run {
            members,
            model,
            execution: Some(execution),
            watchdog: self.watchdog.clone(),
            models: self.models.clone(),
            fresh,
        };
        let metrics = self.metrics.clone();
        let ran = turn.run(move || run.run(&still_wanted, &metrics)).await;
        // If it panicked, nobody is told anything, which is an answer as well.
        for (told, ran) in ran.into_iter().flatten() {
            let _ = told.send(Outcome::Ran(ran));
        }
    }
}

/// Takes a batch out, if it is the one that others would join.
fn remove(forming: &mut HashMap<Key, Arc<Batch>>, key: &Key, batch: &Arc<Batch>) {
    if forming.get(key).is_some_and(|it| Arc::ptr_eq(it, batch)) {
        forming.remove(key);
    }
}

fn tell(members: Vec<Member>, outcome: impl Fn() -> Outcome) {
    for member in members {
        // What it holds is given back before anybody knows.
        let Member {
            told,
            opened,
            place,
            lease,
            ..
        } = member;
        drop((opened, place, lease));
        let _ = told.send(outcome());
    }
}

impl Batch {
    fn rows(&self) -> u64 {
        let members = lock(&self.members);
        members
            .iter()
            .fold(0, |sum, it| sum.saturating_add(it.rows))
    }

    fn join(&self, joining: Joining, rows: u64, told: oneshot::Sender<Outcome>) -> Arc<Interest> {
        lock(&self.members).push(Member {
            opened: joining.opened,
            place: joining.place,
            lease: joining.lease,
            rows,
            told,
        });
        let mut interest = lock(&self.interest);
        interest.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Interest {
                abandoned: self.abandoned.clone(),
                under_way: Mutex::new(None),
            });
            *interest = Arc::downgrade(&new);
            new
        })
    }
}
