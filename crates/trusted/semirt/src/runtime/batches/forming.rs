//! Batches that form: who waits in them, who leaves, and when they are closed and run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sesemi_protocol::PrincipalId;
use sesemi_protocol::envelope::OpenedRequest;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::alike::Size;
use super::run::Run;
use super::{Candidate, Joining, Key, Outcome};
use crate::keys::LiveLease;
use crate::metrics::Metrics;
use crate::models::shelf::Held;
use crate::models::{Model, Models};
use crate::occupancy::Place;
use crate::runtime::under_way::UnderWay;
use crate::slots::{Slots, Turn, Watchdog};
use crate::sync::{Mutex, lock, spawn};

/// All batches that form.
pub(super) struct Forming {
    window: Duration,
    slots: Slots,
    models: Arc<Models>,
    watchdog: Arc<Watchdog>,
    metrics: Arc<Metrics>,
    next: AtomicU64,
    /// Batches that others may join. Members are added under this lock, and only to what is in here.
    open: Mutex<HashMap<Key, Arc<Batch>>>,
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

/// A request in a batch.
pub(super) struct Member {
    id: u64,
    pub(super) opened: Arc<OpenedRequest>,
    pub(super) place: Arc<Place>,
    pub(super) lease: Arc<LiveLease>,
    user: PrincipalId,
    pub(super) size: Size,
    pub(super) told: oneshot::Sender<Outcome>,
}

/// Held by all who wait for a batch. When the last of them leaves, its run is stopped.
pub(super) struct Interest {
    abandoned: Arc<Notify>,
    /// The run, once there is one.
    pub(super) under_way: Mutex<Option<UnderWay>>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.abandoned.notify_one();
    }
}

/// Held by one who waits. Dropping it takes the request out of a batch that is not run yet, with all that it holds.
pub(super) struct Waiting {
    id: u64,
    batch: Arc<Batch>,
    _interest: Arc<Interest>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut members = lock(&self.batch.members);
        let found = members.iter().position(|member| member.id == self.id);
        let left = found.map(|place| members.swap_remove(place));
        drop(members);
        drop(left);
    }
}

/// Takes a batch out of those that others may join, however the work on it ends. Whoever is still in it then waits for nothing.
struct Closing<'f> {
    forming: &'f Forming,
    key: &'f Key,
    batch: &'f Arc<Batch>,
}

impl Closing<'_> {
    /// Takes the members.
    fn close(&self) -> Vec<Member> {
        remove(&mut lock(&self.forming.open), self.key, self.batch);
        core::mem::take(&mut *lock(&self.batch.members))
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

impl Forming {
    pub(super) fn new(
        window: Duration,
        slots: Slots,
        models: Arc<Models>,
        watchdog: Arc<Watchdog>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            window,
            slots,
            models,
            watchdog,
            metrics,
            next: AtomicU64::new(0),
            open: Mutex::default(),
        })
    }

    /// Adds a request to a batch that has room for it, or begins one.
    pub(super) fn add(
        self: Arc<Self>,
        candidate: Candidate,
        joining: Joining,
        model: Arc<Held<Model>>,
        told: oneshot::Sender<Outcome>,
    ) -> Waiting {
        let Candidate { key, size } = candidate;
        let most = model.manifest.batch.map_or(1, |most| u64::from(most.get()));
        let (user, deadline) = (joining.user, joining.deadline);
        let member = Member {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            opened: joining.opened,
            place: joining.place,
            lease: joining.lease,
            user,
            size,
            told,
        };
        let mut open = lock(&self.open);
        let fits = |batch: &&Arc<Batch>| batch.size().and(size).fits(most);
        let joined = open.get(&key).filter(fits).cloned();
        let batch = joined.clone().unwrap_or_default();
        let waiting = batch.join(member);
        if batch.size().rows >= most {
            remove(&mut open, &key, &batch);
            batch.full.notify_one();
        } else if joined.is_none()
            && let Some(other) = open.insert(key.clone(), batch.clone())
        {
            // It has no room for this one, so it need not wait for more.
            other.full.notify_one();
        }
        drop(open);
        if joined.is_none() {
            spawn(async move { self.conduct(&key, &batch, user, deadline, model).await });
        }
        waiting
    }

    /// From the first request of a batch to the last answer.
    async fn conduct(
        &self,
        key: &Key,
        batch: &Arc<Batch>,
        user: PrincipalId,
        deadline: Instant,
        model: Arc<Held<Model>>,
    ) {
        let closing = Closing {
            forming: self,
            key,
            batch,
        };
        let formed = async {
            let _ = tokio::time::timeout(self.window, batch.full.notified()).await;
            self.slots.turn(user, deadline, model.expected()).await
        };
        let abandoned = async {
            while !self.is_abandoned(key, batch) {
                batch.abandoned.notified().await;
            }
        };
        let turn = tokio::select! {
            turn = formed => turn,
            () = abandoned => return,
        };
        let members = closing.close();
        let interest = lock(&batch.interest).clone();
        match turn {
            Ok(_) if members.is_empty() => {}
            Ok(turn) => self.run(members, interest, model, turn).await,
            Err(refusal) => {
                // Others may have room in the queue, or a right to its.
                let began = |member: &Member| member.user == user;
                let (own, others): (Vec<_>, Vec<_>) = members.into_iter().partition(began);
                tell(own, || Outcome::Refused(refusal.clone()));
                tell(others, || Outcome::Alone);
            }
        }
    }

    /// Whether nobody waits for a batch any more, which nobody joins then.
    fn is_abandoned(&self, key: &Key, batch: &Arc<Batch>) -> bool {
        let mut open = lock(&self.open);
        let abandoned = lock(&batch.interest).upgrade().is_none();
        if abandoned {
            remove(&mut open, key, batch);
        }
        abandoned
    }

    async fn run(
        &self,
        members: Vec<Member>,
        interest: Weak<Interest>,
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
        // Nothing is run for who left meanwhile, or under a lease that ended.
        let members = members.into_iter().filter(|it| !it.told.is_closed());
        let (ended, members): (Vec<_>, Vec<_>) = members.partition(|it| it.lease.has_ended());
        tell(ended, || Outcome::LeaseEnded);
        if members.is_empty() {
            return model.give_back(execution);
        }
        let under_way = UnderWay::new(execution.stopper());
        let still_wanted = under_way.still_wanted();
        match interest.upgrade() {
            Some(interest) => *lock(&interest.under_way) = Some(under_way),
            None => return,
        }
        let run = Run {
            members,
            interest,
            model,
            execution: Some(execution),
            watchdog: self.watchdog.clone(),
            models: self.models.clone(),
            fresh,
        };
        let metrics = self.metrics.clone();
        let ran = turn.run(move || run.run(&still_wanted, &metrics)).await;
        // If it panicked, nobody is told anything, which is an answer as well.
        for (told, outcome) in ran.into_iter().flatten() {
            let _ = told.send(outcome);
        }
    }
}

/// Takes a batch out, if it is the one that others would join.
fn remove(open: &mut HashMap<Key, Arc<Batch>>, key: &Key, batch: &Arc<Batch>) {
    if open.get(key).is_some_and(|it| Arc::ptr_eq(it, batch)) {
        open.remove(key);
    }
}

fn tell(members: Vec<Member>, outcome: impl Fn() -> Outcome) {
    for member in members {
        // What it holds is given back before anybody knows.
        let told = member.into_told();
        let _ = told.send(outcome());
    }
}

impl Member {
    /// Gives back all but the way to tell it what became of it.
    pub(super) fn into_told(self) -> oneshot::Sender<Outcome> {
        self.told
    }
}

impl Batch {
    fn size(&self) -> Size {
        let members = lock(&self.members);
        let sizes = members.iter().map(|member| member.size);
        sizes.fold(Size::default(), Size::and)
    }

    fn join(self: &Arc<Self>, member: Member) -> Waiting {
        let id = member.id;
        lock(&self.members).push(member);
        let mut interest = lock(&self.interest);
        let interest = interest.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Interest {
                abandoned: self.abandoned.clone(),
                under_way: Mutex::new(None),
            });
            *interest = Arc::downgrade(&new);
            new
        });
        Waiting {
            id,
            batch: self.clone(),
            _interest: interest,
        }
    }
}
