//! The words of the scheduler: what it is bounded by, what it answers, and what its driver has to do.

use std::time::Duration;

use crate::{ActionName, InstanceId};

/// What the platform may use.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Memory of all instances together, in MiB.
    pub user_memory_mib: u32,
    /// An instance idle for so long ends.
    pub idle_timeout: Duration,
    /// Invocations that may wait; at least 1.
    pub queue_capacity: usize,
}

/// What an action's instances use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionBounds {
    /// Memory of one instance, in MiB.
    pub memory_mib: u32,
    /// Requests that one instance serves at once.
    pub concurrency: u32,
}

/// The place of an invocation in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

/// Why an invocation is not even queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// No such action.
    UnknownAction,
    /// Too many wait already.
    QueueFull,
    /// Its deadline has passed.
    Expired,
    /// The platform takes nothing new.
    ShuttingDown,
}

/// Why a queued invocation is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its deadline has passed.
    Expired,
    /// Its action was deleted.
    ActionDeleted,
    /// The instance it was bound to did not become ready.
    StartFailed(InstanceId),
    /// The platform shuts down.
    ShuttingDown,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start an instance; report [`started`](super::Scheduler::started) or [`start_failed`](super::Scheduler::start_failed), and
    /// [`gone`](super::Scheduler::gone) when its process has ended.
    Start {
        /// The new instance.
        instance: InstanceId,
        /// What it runs.
        action: ActionName,
    },
    /// Run an invocation on an instance that is ready; report [`release`](super::Scheduler::release) when it is over.
    Assign {
        /// The invocation.
        ticket: Ticket,
        /// Where it runs.
        instance: InstanceId,
        /// Whether this invocation caused the instance's start.
        cold: bool,
    },
    /// End an instance; report [`gone`](super::Scheduler::gone).
    Stop {
        /// Which one.
        instance: InstanceId,
    },
    /// Tell an invocation that it will not run.
    Refuse {
        /// The invocation.
        ticket: Ticket,
        /// Why.
        why: Refusal,
    },
}
