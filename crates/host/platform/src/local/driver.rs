//! Carries out what the scheduler decides.
//!
//! All state is behind one mutex that is never held across an await: an event is told to the scheduler under the lock, and
//! what follows from it (starting a process, waking an invocation) happens after the lock is given back. Places in the
//! queue and slots in an instance are guards: whatever becomes of their owner, dropping them tells the scheduler.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::LocalConfig;
use super::instance;
use super::link::Link;
use super::output::LogDir;
use super::schedule::{Effect, Refusal, Rejection, Scheduler, Ticket};
use super::tap::Tap;
use crate::{
    ActionName, ActionSpec, ActivationId, InstanceId, InstanceStatus, PlatformError, Stage,
    StartFailure,
};

/// The platform behind its handle; supervisors and guards share it.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) config: LocalConfig,
    pub(super) logs: LogDir,
    pub(super) tap: Option<Tap>,
    /// Ends every grace period.
    pub(super) halt: CancellationToken,
    /// One task an instance.
    pub(super) supervisors: TaskTracker,
    pub(super) runtime: Handle,
    /// Activation ids are numbered from a random start: unique among platforms, and no system call each.
    pub(super) first_activation: u128,
    pub(super) activations: AtomicU64,
    pub(super) alarm: Notify,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    pub(super) specs: HashMap<ActionName, Arc<ActionSpec>>,
    instances: HashMap<InstanceId, Supervised>,
    waiters: HashMap<Ticket, oneshot::Sender<Result<Slot, Refused>>>,
    /// When the housekeeper wakes by itself.
    alarm_at: Option<Instant>,
}

/// An instance, as its supervisor is reached.
#[derive(Debug)]
struct Supervised {
    spec: Arc<ActionSpec>,
    stop: CancellationToken,
    /// There once it is ready.
    link: Option<Arc<Link>>,
    failure: Option<Arc<StartFailure>>,
}

/// Why somebody who waited gets no slot.
#[derive(Debug)]
enum Refused {
    Expired,
    ActionDeleted,
    ShuttingDown,
    StartFailed(InstanceId, Arc<StartFailure>),
}

/// What is left to do when the lock is given back.
enum Job {
    Supervise(InstanceId, Arc<ActionSpec>, CancellationToken),
    Stop(CancellationToken),
    Answer(
        oneshot::Sender<Result<Slot, Refused>>,
        Result<Slot, Refused>,
    ),
}

impl State {
    pub(super) fn new(scheduler: Scheduler) -> Self {
        let (specs, instances, waiters) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self {
            scheduler,
            specs,
            instances,
            waiters,
            alarm_at: None,
        }
    }

    pub(super) fn instances_of(&self, action: &ActionName) -> Vec<InstanceStatus> {
        let instances = self
            .scheduler
            .instances()
            .filter(|(_, instance)| instance.action == *action);
        let pid = |id| {
            self.instances
                .get(&id)
                .and_then(|supervised| supervised.link.as_ref()?.pid)
        };
        instances
            .map(|(id, it)| InstanceStatus {
                id,
                phase: it.phase,
                in_flight: it.in_flight,
                pid: pid(id),
            })
            .collect()
    }
}

impl Driver {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The scheduler changes its state without anything that panics in between; poison tells nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_activation(&self) -> ActivationId {
        let number = self.activations.fetch_add(1, Ordering::Relaxed);
        ActivationId::from_u128(self.first_activation.wrapping_add(u128::from(number)))
    }

    /// Tells the scheduler of an event and does what follows.
    pub(super) fn tell<R>(
        self: &Arc<Self>,
        event: impl FnOnce(&mut State, Instant) -> (R, Vec<Effect>),
    ) -> R {
        let (result, jobs, earlier) = {
            let mut state = self.lock();
            let (result, effects) = event(&mut state, Instant::now());
            let jobs: Vec<Job> = effects
                .into_iter()
                .filter_map(|effect| self.job(&mut state, effect))
                .collect();
            let expiry = state.scheduler.next_expiry();
            let earlier =
                expiry.is_some_and(|expiry| state.alarm_at.is_none_or(|alarm| expiry < alarm));
            (result, jobs, earlier)
        };
        if earlier {
            self.alarm.notify_one();
        }
        for job in jobs {
            match job {
                Job::Supervise(id, spec, stop) => {
                    let supervisor = instance::supervise(self.clone(), id, spec, stop);
                    self.supervisors.spawn_on(supervisor, &self.runtime);
                }
                Job::Stop(stop) => stop.cancel(),
                // A slot for somebody who has left comes back, and is given back by being dropped.
                Job::Answer(waiter, answer) => drop(waiter.send(answer)),
            }
        }
        result
    }

    /// [`tell`](Self::tell) for events that are only about an instance.
    pub(super) fn tell_of(
        self: &Arc<Self>,
        id: InstanceId,
        event: fn(&mut Scheduler, InstanceId, Instant) -> Vec<Effect>,
    ) {
        self.tell(|state, now| ((), event(&mut state.scheduler, id, now)));
    }

    pub(super) fn tell_started(self: &Arc<Self>, id: InstanceId, link: Link) {
        self.tell(|state, now| {
            if let Some(supervised) = state.instances.get_mut(&id) {
                supervised.link = Some(Arc::new(link));
            }
            ((), state.scheduler.started(id, now))
        });
    }

    pub(super) fn tell_start_failed(self: &Arc<Self>, id: InstanceId, cause: StartFailure) {
        self.tell(|state, now| {
            if let Some(supervised) = state.instances.get_mut(&id) {
                supervised.failure = Some(Arc::new(cause));
            }
            ((), state.scheduler.start_failed(id, now))
        });
    }

    pub(super) fn tell_gone(self: &Arc<Self>, id: InstanceId) {
        self.tell_of(id, Scheduler::gone);
        // Only now: refusals that follow from the event quote why the instance failed.
        self.lock().instances.remove(&id);
    }

    fn job(self: &Arc<Self>, state: &mut State, effect: Effect) -> Option<Job> {
        match effect {
            Effect::Start { instance, action } => {
                let spec = state.specs.get(&action)?.clone();
                let stop = CancellationToken::new();
                let supervised = Supervised {
                    spec: spec.clone(),
                    stop: stop.clone(),
                    link: None,
                    failure: None,
                };
                state.instances.insert(instance, supervised);
                Some(Job::Supervise(instance, spec, stop))
            }
            Effect::Stop { instance } => {
                Some(Job::Stop(state.instances.get(&instance)?.stop.clone()))
            }
            Effect::Assign {
                ticket,
                instance,
                cold,
            } => {
                let supervised = state.instances.get(&instance)?;
                let (spec, link) = (supervised.spec.clone(), supervised.link.clone()?);
                let slot = Slot {
                    driver: self.clone(),
                    instance,
                    spec,
                    link,
                    cold,
                };
                // Without a waiter the job carries the slot to a place where it may be dropped: outside the lock.
                let waiter = state
                    .waiters
                    .remove(&ticket)
                    .unwrap_or_else(|| oneshot::channel().0);
                Some(Job::Answer(waiter, Ok(slot)))
            }
            Effect::Refuse { ticket, why } => {
                let waiter = state.waiters.remove(&ticket)?;
                Some(Job::Answer(waiter, Err(refused(state, why))))
            }
        }
    }

    /// Waits for a slot in an instance; `again` is the ticket of an invocation that its first instance did not want.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        action: &ActionName,
        deadline: Instant,
        again: Option<Ticket>,
    ) -> Result<(Ticket, Slot), PlatformError> {
        let (waiter, answer) = oneshot::channel();
        let submitted = self.tell(|state, now| {
            let scheduler = &mut state.scheduler;
            let submitted = match again {
                Some(ticket) => scheduler
                    .resubmit(ticket, action, deadline, now)
                    .map(|effects| (ticket, effects)),
                None => scheduler.submit(action, deadline, now),
            };
            match submitted {
                Ok((ticket, effects)) => {
                    state.waiters.insert(ticket, waiter);
                    (Ok(ticket), effects)
                }
                Err(rejection) => (Err(rejection), Vec::new()),
            }
        });
        let ticket = submitted.map_err(|rejection| self.rejected(action, rejection))?;
        let place = Place {
            driver: self,
            ticket,
        };
        let answer = timeout_at(deadline.into(), answer).await;
        match answer {
            Ok(Ok(Ok(slot))) => Ok((ticket, slot)),
            Ok(Ok(Err(Refused::Expired))) => Err(PlatformError::DeadlineExceeded {
                stage: Stage::Waiting,
            }),
            Ok(Ok(Err(Refused::ActionDeleted))) => Err(PlatformError::UnknownAction {
                action: action.clone(),
            }),
            Ok(Ok(Err(Refused::StartFailed(instance, cause)))) => Err(PlatformError::StartFailed {
                action: action.clone(),
                instance,
                cause,
            }),
            Ok(Ok(Err(Refused::ShuttingDown)) | Err(_)) => Err(PlatformError::ShuttingDown),
            Err(_) => Err(PlatformError::DeadlineExceeded {
                stage: place.stage(),
            }),
        }
    }

    fn rejected(&self, action: &ActionName, rejection: Rejection) -> PlatformError {
        match rejection {
            Rejection::UnknownAction => PlatformError::UnknownAction {
                action: action.clone(),
            },
            Rejection::QueueFull => PlatformError::QueueFull {
                capacity: self.config.queue_capacity,
            },
            Rejection::Expired => PlatformError::DeadlineExceeded {
                stage: Stage::Waiting,
            },
            Rejection::ShuttingDown => PlatformError::ShuttingDown,
        }
    }

    /// Ends idle instances when their time has come. Wakes at the earliest expiry or when that moves forward.
    pub(super) async fn keep_house(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                state.alarm_at = state.scheduler.next_expiry();
                state.alarm_at
            };
            tokio::select! {
                () = wake_at(next) => self.tell(|state, now| ((), state.scheduler.tick(now))),
                () = self.alarm.notified() => {}
                () = self.halt.cancelled() => return,
            }
        }
    }
}

async fn wake_at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn refused(state: &State, why: Refusal) -> Refused {
    match why {
        Refusal::Expired => Refused::Expired,
        Refusal::ActionDeleted => Refused::ActionDeleted,
        Refusal::ShuttingDown => Refused::ShuttingDown,
        Refusal::StartFailed(id) => {
            let cause = state
                .instances
                .get(&id)
                .and_then(|supervised| supervised.failure.clone());
            Refused::StartFailed(id, cause.unwrap_or_else(|| Arc::new(StartFailure::Stopped)))
        }
    }
}

/// A place in the queue, or among those that wait for a start.
struct Place<'a> {
    driver: &'a Arc<Driver>,
    ticket: Ticket,
}

impl Place<'_> {
    fn stage(&self) -> Stage {
        let state = self.driver.lock();
        let queued = state
            .scheduler
            .waiting()
            .any(|(ticket, _)| ticket == self.ticket);
        if queued {
            Stage::Waiting
        } else {
            Stage::Starting
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waits = self.driver.lock().waiters.contains_key(&self.ticket);
        // Whoever has an answer has no place any more.
        if waits {
            self.driver.tell(|state, now| {
                state.waiters.remove(&self.ticket);
                ((), state.scheduler.cancel(self.ticket, now))
            });
        }
    }
}

/// A slot in an instance that is ready.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) driver: Arc<Driver>,
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<ActionSpec>,
    pub(super) link: Arc<Link>,
    pub(super) cold: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.driver.tell_of(self.instance, Scheduler::release);
    }
}
