//! The embedded serverless platform: instances are processes on this host, scheduled as OpenWhisk's invoker does it.
//!
//! [`schedule`] decides and does no I/O. Around it, one task supervises each instance's process, and each invocation runs
//! in its caller's task: dropping it gives back what it held.
//!
//! # What an instance is
//!
//! A program that is started with the image's arguments and environment, prints one line
//! `{"event":"listening","address":"127.0.0.1:PORT"}` on stdout and then speaks HTTP/1.1 there: `POST /init` with
//! OpenWhisk's body once, to be answered with 200, then `POST /v1/infer` with `content-type: application/cose` and
//! `sesemi-deadline-ms`, or OpenWhisk's `POST /run` if the invocation has that form. An answer 503 means that it drains: the invocation goes to another instance, once. Any other answer
//! is the activation's. It ends on SIGTERM.
//!
//! If the host's process itself is killed it cannot end its instances; put `setpriv --pdeathsig KILL --` before the launcher
//! where that matters.

mod client;
mod config;
mod driver;
mod instance;
mod link;
mod output;
mod process;
pub mod schedule;
mod tap;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::client::{Answer, CallError};
pub use self::config::LocalConfig;
use self::driver::{Driver, Slot, State};
use self::output::LogDir;
use self::schedule::{ActionBounds, Bounds, Scheduler};
use self::tap::Tap;
use crate::{
    ActionName, ActionSpec, ActionStatus, Activation, ActivationId, Form, Image, Invocation,
    Limits, Platform, PlatformError, Stage, StartFailure,
};

/// What an instance that drains answers.
const DRAINING: u16 = 503;

/// The embedded platform. Dropping it kills its instances; [`shutdown`](Self::shutdown) ends them in good order.
#[derive(Debug)]
pub struct LocalPlatform {
    driver: Arc<Driver>,
}

impl LocalPlatform {
    /// Sets the platform up on the current tokio runtime. Starts no instance.
    pub fn new(config: LocalConfig) -> Result<Self, PlatformError> {
        let setup = |problem: String| PlatformError::Setup { problem };
        if config.queue_capacity == 0 || config.user_memory_mib == 0 {
            return Err(setup(
                "queue capacity and user memory must be at least 1".to_owned(),
            ));
        }
        let runtime = Handle::try_current().map_err(|error| setup(error.to_string()))?;
        let logs = LogDir::open(&config.log_dir)
            .map_err(|error| setup(format!("the log directory cannot be made: {error}")))?;
        let tap = config.tap.as_deref().map(Tap::open).transpose();
        let tap =
            tap.map_err(|error| setup(format!("the tap's directory cannot be made: {error}")))?;
        let mut random = [0; 16];
        getrandom(&mut random, GetRandomFlags::empty())
            .map_err(|error| setup(format!("the system gives no random numbers: {error}")))?;
        let scheduler = Scheduler::new(Bounds {
            user_memory_mib: config.user_memory_mib,
            idle_timeout: config.idle_timeout,
            queue_capacity: config.queue_capacity,
        });
        let driver = Arc::new(Driver {
            config,
            logs,
            tap,
            halt: CancellationToken::new(),
            supervisors: TaskTracker::new(),
            runtime,
            first_activation: u128::from_le_bytes(random),
            activations: AtomicU64::new(0),
            alarm: Notify::new(),
            state: Mutex::new(State::new(scheduler)),
        });
        tokio::spawn(driver.clone().keep_house());
        Ok(Self { driver })
    }

    /// Takes nothing new, gives what is in flight the configured grace, ends all instances and returns when they are gone.
    pub async fn shutdown(&self) {
        let driver = &self.driver;
        driver.tell(|state, _| ((), state.scheduler.shut_down()));
        driver.supervisors.close();
        if timeout(driver.config.stop_grace, driver.supervisors.wait())
            .await
            .is_err()
        {
            driver.tell(|state, _| ((), state.scheduler.stop_all()));
            driver.supervisors.wait().await;
        }
        driver.halt.cancel();
    }

    /// The id of an activation that is about to be invoked with [`invoke_as`](Self::invoke_as). No other has it.
    pub fn next_activation(&self) -> ActivationId {
        self.driver.next_activation()
    }

    /// [`Platform::invoke`] for a caller who has to know the activation's id before it ends.
    ///
    /// # Errors
    /// As for [`Platform::invoke`].
    pub async fn invoke_as(
        &self,
        id: ActivationId,
        action: &ActionName,
        invocation: Invocation,
    ) -> Result<Activation, PlatformError> {
        let arrived = Instant::now();
        let (ticket, mut slot) = self
            .driver
            .acquire(action, invocation.deadline, None)
            .await?;
        let mut assigned = Instant::now();
        let mut answer = self.run(&slot, id, &invocation).await?;
        if answer.status == DRAINING {
            tracing::info!(%action, instance = %slot.instance, "instance drains, the invocation goes to another one");
            self.driver.tell_of(slot.instance, Scheduler::drain);
            // First given back: the other instance may need this one's memory.
            drop(slot);
            (_, slot) = self
                .driver
                .acquire(action, invocation.deadline, Some(ticket))
                .await?;
            assigned = Instant::now();
            answer = self.run(&slot, id, &invocation).await?;
        }
        let ends_instance = match invocation.form {
            Form::Sealed => answer.status == DRAINING,
            // OpenWhisk throws away an instance whose answer to `/run` has any other status.
            Form::Whisk => answer.status != 200,
        };
        if ends_instance {
            self.driver.tell_of(slot.instance, Scheduler::drain);
        }
        let init_time = slot.cold.then_some(slot.link.init_time);
        let waited = assigned.saturating_duration_since(arrived);
        Ok(Activation {
            id,
            status: answer.status,
            content_type: answer.content_type(),
            body: answer.body,
            wait_time: waited.saturating_sub(init_time.unwrap_or_default()),
            init_time,
            instance: Some(slot.instance),
        })
    }

    /// Runs an invocation in the slot it has got.
    async fn run(
        &self,
        slot: &Slot,
        id: ActivationId,
        invocation: &Invocation,
    ) -> Result<Answer, PlatformError> {
        let now = Instant::now();
        let action_ends = now.checked_add(slot.spec.timeout);
        let ends = action_ends.map_or(invocation.deadline, |ends| ends.min(invocation.deadline));
        let question = slot.link.ask();
        match timeout_at(
            ends.into(),
            self.call(slot, id, invocation, ends.saturating_duration_since(now)),
        )
        .await
        {
            Ok(Ok(answer)) => {
                question.answered();
                Ok(answer)
            }
            Ok(Err(CallError::TooLarge(limit))) => {
                question.answered();
                Err(PlatformError::ResponseTooLarge { limit })
            }
            Ok(Err(error @ (CallError::Broken(_) | CallError::NoLength))) => {
                self.driver.tell_of(slot.instance, Scheduler::failed);
                let action = slot.spec.name.clone();
                Err(PlatformError::InstanceFailed {
                    action,
                    instance: slot.instance,
                    cause: error.to_string(),
                })
            }
            Err(_) => {
                drop(question);
                // A caller's impatience says nothing about the instance. Exceeding the action's own limit does, and so
                // does silence towards everyone for as long, however early each of them left.
                let overran =
                    action_ends.is_some_and(|action_ends| action_ends <= invocation.deadline);
                let patience = slot.spec.timeout.saturating_mul(slot.spec.concurrency);
                if overran || slot.link.unanswered() >= patience {
                    self.driver.tell_of(slot.instance, Scheduler::drain);
                }
                Err(PlatformError::DeadlineExceeded {
                    stage: Stage::Running,
                })
            }
        }
    }

    async fn call(
        &self,
        slot: &Slot,
        id: ActivationId,
        invocation: &Invocation,
        left: Duration,
    ) -> Result<Answer, CallError> {
        let client = &slot.link.client;
        let (form, body) = (invocation.form, invocation.body.clone());
        let request = match form {
            Form::Sealed => client.infer_request(body, left, invocation.trace)?,
            Form::Whisk => client.run_request(&slot.spec.entity(), id, &body, left)?,
        };
        let Some(tap) = &self.driver.tap else {
            return client.invoke(request, form).await;
        };
        tap.request(
            id,
            request.uri().to_string(),
            request.headers(),
            request.body().clone(),
        )
        .await;
        let answer = client.invoke(request, form).await?;
        tap.response(id, answer.status, &answer.headers, answer.body.clone())
            .await;
        Ok(answer)
    }
}

impl Platform for LocalPlatform {
    async fn deploy(&self, spec: ActionSpec) -> Result<(), PlatformError> {
        let action = spec.name.clone();
        if spec.memory_mib == 0 || spec.concurrency == 0 || spec.timeout.is_zero() {
            let problem = "memory, concurrency and timeout must be at least 1".to_owned();
            return Err(PlatformError::InvalidSpec { action, problem });
        }
        if matches!(spec.image, Image::Container(_)) {
            let problem = StartFailure::NotAProgram.to_string();
            return Err(PlatformError::InvalidSpec { action, problem });
        }
        let budget_mib = self.driver.config.user_memory_mib;
        if spec.memory_mib > budget_mib {
            return Err(PlatformError::NotEnoughMemory {
                action,
                wanted_mib: spec.memory_mib,
                budget_mib,
            });
        }
        let bounds = ActionBounds {
            memory_mib: spec.memory_mib,
            concurrency: spec.concurrency,
        };
        let mut state = self.driver.lock();
        if !state.scheduler.add_action(action.clone(), bounds) {
            return Err(PlatformError::AlreadyExists { action });
        }
        state.specs.insert(action, Arc::new(spec));
        Ok(())
    }

    async fn invoke(
        &self,
        action: &ActionName,
        invocation: Invocation,
    ) -> Result<Activation, PlatformError> {
        self.invoke_as(self.next_activation(), action, invocation)
            .await
    }

    async fn list(&self) -> Result<Vec<ActionStatus>, PlatformError> {
        let state = self.driver.lock();
        let status = |(name, bounds): (&ActionName, ActionBounds)| ActionStatus {
            name: name.clone(),
            memory_mib: bounds.memory_mib,
            concurrency: bounds.concurrency,
            instances: state.instances_of(name),
            waiting: state
                .scheduler
                .waiting()
                .filter(|(_, action)| *action == name)
                .count(),
        };
        Ok(state.scheduler.actions().map(status).collect())
    }

    async fn delete(&self, action: &ActionName) -> Result<(), PlatformError> {
        let deleted =
            self.driver.tell(
                |state, now| match state.scheduler.remove_action(action, now) {
                    Some(effects) => {
                        state.specs.remove(action);
                        (true, effects)
                    }
                    None => (false, Vec::new()),
                },
            );
        if !deleted {
            return Err(PlatformError::UnknownAction {
                action: action.clone(),
            });
        }
        Ok(())
    }

    fn limits(&self) -> Limits {
        let config = &self.driver.config;
        Limits {
            user_memory_mib: config.user_memory_mib,
            queue_capacity: config.queue_capacity,
            // Bodies are in memory already, and go on as they are.
            max_request_bytes: usize::MAX,
            max_response_bytes: config.max_response_bytes,
        }
    }
}

impl Drop for LocalPlatform {
    fn drop(&mut self) {
        // Nobody waits for them any more, so that no grace is given.
        self.driver.halt.cancel();
        self.driver
            .tell(|state, _| ((), state.scheduler.stop_all()));
    }
}
