//! Why a platform did not do what it was asked. Every error says its whole cause in its text, and has a hint (what a person
//! can do about it) and a code (what a program can match on). None of them quotes a body.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::{ActionName, ActivationId, InstanceId};

/// Where an invocation was when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It waited for an instance with room.
    Waiting,
    /// It waited for its instance to become ready.
    Starting,
    /// Its instance was at work on it.
    Running,
}

impl Stage {
    fn words(self) -> &'static str {
        match self {
            Self::Waiting => "while the invocation waited for an instance",
            Self::Starting => "while its instance was starting",
            Self::Running => "while its instance was running it",
        }
    }
}

/// Why an instance did not become ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartFailure {
    /// Its log files could not be made.
    #[error("its log files could not be created: {0}")]
    Logs(io::Error),
    /// Its image is a container, and this driver starts programs.
    #[error("its image is a container, and this platform starts programs of the host")]
    NotAProgram,
    /// The operating system did not start the program.
    #[error("the program could not be started: {0}")]
    Spawn(io::Error),
    /// The process ended before it was ready.
    #[error("the process ended early ({0})")]
    Exited(ExitStatus),
    /// Waiting for the process failed.
    #[error("the process could not be watched: {0}")]
    Watch(io::Error),
    /// It was not ready in time.
    #[error("it was not ready within {0:?}")]
    TooSlow(Duration),
    /// It listens elsewhere than on this host alone.
    #[error("it announced an address that is not on the loopback interface")]
    ForeignAddress,
    /// `/init` was refused.
    #[error("it answered /init with status {0}")]
    InitRefused(u16),
    /// `/init` got no answer.
    #[error("it did not answer /init: {0}")]
    InitFailed(String),
    /// It was told to end while it was starting.
    #[error("it was ended while it was starting")]
    Stopped,
}

/// Why the platform did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// No such action.
    #[error("there is no action {action}")]
    UnknownAction {
        /// The name asked for.
        action: ActionName,
    },
    /// An action has this name already.
    #[error("there is an action {action} already")]
    AlreadyExists {
        /// The name asked for.
        action: ActionName,
    },
    /// The action cannot be deployed as it is described.
    #[error("action {action} cannot be deployed: {problem}")]
    InvalidSpec {
        /// The action.
        action: ActionName,
        /// What is wrong, as a phrase.
        problem: String,
    },
    /// One instance would need more memory than the platform has.
    #[error(
        "an instance of {action} needs {wanted_mib} MiB and the platform has {budget_mib} MiB in all"
    )]
    NotEnoughMemory {
        /// The action.
        action: ActionName,
        /// Memory of one instance, in MiB.
        wanted_mib: u32,
        /// Memory of the platform, in MiB.
        budget_mib: u32,
    },
    /// Too many invocations wait already.
    #[error("{capacity} invocations wait already")]
    QueueFull {
        /// How many may wait.
        capacity: usize,
    },
    /// The caller's or the action's time ran out.
    #[error("the time ran out {}", .stage.words())]
    DeadlineExceeded {
        /// Where the invocation was.
        stage: Stage,
    },
    /// The instance for this invocation did not become ready.
    #[error("instance {instance} of {action} did not start: {cause}")]
    StartFailed {
        /// The action.
        action: ActionName,
        /// The instance.
        instance: InstanceId,
        /// Why.
        cause: Arc<StartFailure>,
    },
    /// The instance broke off while it had this invocation.
    #[error("instance {instance} of {action} failed: {cause}")]
    InstanceFailed {
        /// The action.
        action: ActionName,
        /// The instance.
        instance: InstanceId,
        /// Why, as a phrase.
        cause: String,
    },
    /// The answer is larger than the platform passes on.
    #[error("the response is larger than {limit} bytes")]
    ResponseTooLarge {
        /// The most that is passed on, in bytes.
        limit: usize,
    },
    /// The request is larger than the platform takes.
    #[error("the request has {size} bytes and the platform takes {limit}")]
    RequestTooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The most, in bytes.
        limit: usize,
    },
    /// The platform found the request too large, although it is not by what we know of its limits.
    #[error("the platform found the request too large: {said}")]
    PayloadRefused {
        /// What it said.
        said: String,
    },
    /// The platform takes no request of these credentials.
    #[error("the platform at {address} refuses the credentials: {said}")]
    Unauthorized {
        /// The platform.
        address: String,
        /// What it said.
        said: String,
    },
    /// The platform takes no more requests for now.
    #[error("the platform takes no more invocations for now: {said}")]
    Throttled {
        /// What it said.
        said: String,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// An instance ran the invocation, or should have, and the platform has no answer of it.
    #[error("activation {activation} of {action} ended with {status}: {said}")]
    ActivationFailed {
        /// The action.
        action: ActionName,
        /// The activation, by which the platform knows more.
        activation: ActivationId,
        /// How the platform calls it: `application error`, `action developer error` or `whisk internal error`.
        status: String,
        /// What the instance or the platform said of it.
        said: String,
    },
    /// The platform cannot be reached.
    #[error("the platform at {address} cannot be reached: {cause}")]
    Unreachable {
        /// The platform.
        address: String,
        /// Why, as a phrase.
        cause: String,
    },
    /// The platform has trouble of its own, or speaks another language.
    #[error("the platform at {address} answered with status {status}: {said}")]
    Unexpected {
        /// The platform.
        address: String,
        /// The HTTP status.
        status: u16,
        /// What it said, or what is wrong with it.
        said: String,
    },
    /// The platform ends and takes nothing new.
    #[error("the platform is shutting down")]
    ShuttingDown,
    /// The platform itself could not be set up.
    #[error("the platform cannot run: {problem}")]
    Setup {
        /// What is wrong, as a phrase.
        problem: String,
    },
}

impl PlatformError {
    /// A stable `snake_case` word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownAction { .. } => "unknown_action",
            Self::AlreadyExists { .. } => "already_exists",
            Self::InvalidSpec { .. } => "invalid_spec",
            Self::NotEnoughMemory { .. } => "not_enough_memory",
            Self::QueueFull { .. } => "queue_full",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::StartFailed { .. } => "start_failed",
            Self::InstanceFailed { .. } => "instance_failed",
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::RequestTooLarge { .. } | Self::PayloadRefused { .. } => "request_too_large",
            Self::Unauthorized { .. } => "platform_unauthorized",
            Self::Throttled { .. } => "throttled",
            Self::ActivationFailed { .. } => "activation_failed",
            Self::Unreachable { .. } => "platform_unreachable",
            Self::Unexpected { .. } => "platform_failed",
            Self::ShuttingDown => "shutting_down",
            Self::Setup { .. } => "setup",
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::UnknownAction { .. } => "deploy the action first, or correct its name",
            Self::AlreadyExists { .. } => "delete the action first, or choose another name",
            Self::InvalidSpec { .. } => "correct the action's description",
            Self::NotEnoughMemory { .. } => {
                "give the platform more user memory, or the action less"
            }
            Self::QueueFull { .. } => {
                "try again later, or add memory so that more instances can run"
            }
            Self::DeadlineExceeded {
                stage: Stage::Running,
            } => "allow more time, or use a smaller model or input",
            Self::DeadlineExceeded { .. } => {
                "allow more time, or add memory so that more instances can run"
            }
            Self::StartFailed { .. } => "read the instance's log files in the log directory",
            Self::InstanceFailed { .. } => {
                "try again; if it happens again, read the instance's log files"
            }
            Self::ResponseTooLarge { .. } => {
                "raise the response limit, or fetch the result by reference"
            }
            Self::RequestTooLarge { .. } | Self::PayloadRefused { .. } => {
                "put the sealed request into the object store and send a reference to it"
            }
            Self::Unauthorized { .. } => "correct the platform's credentials (UUID:KEY)",
            Self::Throttled { .. } => {
                "try again later, or raise the platform's limits for this namespace"
            }
            Self::ActivationFailed { .. } => {
                "look the activation up at the platform; if it happens again, read the action's logs"
            }
            Self::Unreachable { .. } => "check the platform's address and that it runs",
            Self::Unexpected { .. } => "check that the address is that of an OpenWhisk controller",
            Self::ShuttingDown => "use another platform, or wait until this one is back",
            Self::Setup { .. } => "correct the platform's configuration",
        }
    }
}
