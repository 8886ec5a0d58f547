//! Why a run could not go on. What a run is there to find out (something lost, something that nobody sent) is no error: it is
//! counted, see [`crate::findings`].

use std::path::PathBuf;

use sesemi_attest::AppraisalError;
use sesemi_attest::channel::ChannelError;
use sesemi_protocol::cbor::CborError;
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::receipt::SignedError;
use sesemi_simtee::SimteeError;

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CrashError {
    /// A file, a folder or a process.
    #[error("cannot use {0}")]
    Io(String, #[source] std::io::Error),
    /// The simulated machine.
    #[error("the simulated machine failed")]
    Machine(#[from] SimteeError),
    /// KeyService ended by itself.
    #[error("KeyService ended by itself ({when}); its last words:\n{tail}")]
    Ended {
        /// What was going on.
        when: &'static str,
        /// The end of its log.
        tail: String,
    },
    /// KeyService did not say where it listens.
    #[error("KeyService did not start within {seconds} s; its last words:\n{tail}")]
    TooSlow {
        /// How long it had.
        seconds: u64,
        /// The end of its log.
        tail: String,
    },
    /// It survived SIGKILL.
    #[error("KeyService was killed and did not end: {0}")]
    Survived(PathBuf),
    /// There is no attested channel.
    #[error("there is no attested channel")]
    Channel(#[from] ChannelError),
    /// A policy cannot be used.
    #[error(transparent)]
    Policy(#[from] AppraisalError),
    /// An identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A signed message is not what it should be.
    #[error("a signed message is not what it should be")]
    Signed(#[from] SignedError),
    /// Something cannot be encoded or decoded.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// KeyService answered something else than it should.
    #[error("KeyService answered {0}")]
    Answer(String),
    /// A name of this run's own making is refused.
    #[error("a name is refused")]
    Name(#[from] sesemi_protocol::id::IdError),
    /// A task of this process ended early.
    #[error("a task of this process ended early")]
    Task(#[from] tokio::task::JoinError),
}

/// Names what could not be used.
pub(crate) fn io(what: impl core::fmt::Display) -> impl FnOnce(std::io::Error) -> CrashError {
    let what = what.to_string();
    move |source| CrashError::Io(what, source)
}
