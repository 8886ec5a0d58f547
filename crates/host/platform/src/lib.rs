//! Serverless platforms behind one trait.
//!
//! SeSeMI changes no platform: SeMIRT is an ordinary function image and FnPacker an ordinary client. What FnPacker needs
//! of a platform is small (deploy an action, invoke it, see what runs) and is written down here as [`Platform`], so that
//! the same gateway runs on the embedded platform ([`local`]) and on a cluster ([`openwhisk`]). The other way round, [`rest`] lets
//! OpenWhisk's own clients use the embedded platform.
//!
//! Everything in this crate is untrusted host code. It handles request and response bodies as opaque bytes, never decodes
//! them and never writes them to a log; what it learns is who talks to which action, how much and when. The one place
//! that stores bodies is the audit tap of the embedded platform, which is off unless it is asked for.
#![forbid(unsafe_code)]
// Host code counts slots, mebibytes and milliseconds; an overflow is a bug, and costs availability only.
#![allow(clippy::arithmetic_side_effects)]

mod action;
mod activation;
mod credentials;
mod error;
pub mod http;
pub mod local;
pub mod openwhisk;
pub mod rest;

use std::future::Future;

pub use action::{
    ActionName, ActionSpec, ActionStatus, Container, Entity, Image, InstancePhase, InstanceStatus,
    InvalidActionName, Program,
};
pub use activation::{Activation, ActivationId, Form, InstanceId, InvalidActivationId, Invocation};
pub use credentials::{Credentials, CredentialsError};
pub use error::{PlatformError, Stage, StartFailure};
pub use local::{LocalConfig, LocalPlatform};
pub use openwhisk::{OpenWhisk, OpenWhiskConfig};
pub use rest::{RestConfig, RestServer};

/// What a platform can carry; constant while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory that all instances together may take, in MiB.
    pub user_memory_mib: u32,
    /// Invocations that may wait for an instance at the same time.
    pub queue_capacity: usize,
    /// Largest request body that is taken, in bytes.
    pub max_request_bytes: usize,
    /// Largest response body that is passed on, in bytes.
    pub max_response_bytes: usize,
}

/// A serverless platform: actions are deployed once and invoked many times; the platform starts, shares and ends their
/// instances as it sees fit.
///
/// Dropping the future of [`invoke`](Platform::invoke) gives up the invocation and returns everything it held.
pub trait Platform: Send + Sync + 'static {
    /// Makes an action known. Starts nothing.
    fn deploy(&self, spec: ActionSpec) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Runs one invocation and returns what the instance answered, whatever its status. An error means that no instance
    /// answered.
    fn invoke(
        &self,
        action: &ActionName,
        invocation: Invocation,
    ) -> impl Future<Output = Result<Activation, PlatformError>> + Send;

    /// The deployed actions with their instances, ordered by name.
    fn list(&self) -> impl Future<Output = Result<Vec<ActionStatus>, PlatformError>> + Send;

    /// Forgets an action. Waiting invocations are refused, those in flight finish, its instances end.
    fn delete(&self, action: &ActionName)
    -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// What this platform can carry.
    fn limits(&self) -> Limits;
}
