//! How an attested enclave asks KeyService for keys, and the lease it gets.

use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::id::{Digest, ModelRef, ModelTarget, PrincipalId};
use crate::isolation::Isolation;
use crate::receipt::{Point, StatePoint};
use crate::refusal::Refusal;
use crate::secret::SecretKey;

/// Which of a user's request keys seals a request for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct RequestKeyName {
    /// Whether it is a key for this model or for all models.
    #[n(0)]
    pub scope: NamedScope,
    /// Its number among the user's keys of that scope.
    #[n(1)]
    pub epoch: u32,
}

/// A key's scope, where the model is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NamedScope {
    /// A key for all models.
    #[n(0)]
    AllModels,
    /// A key for the model in question.
    #[n(1)]
    Model,
}

impl RequestKeyName {
    /// A key for the model in question.
    #[must_use]
    pub fn model(epoch: u32) -> Self {
        Self {
            scope: NamedScope::Model,
            epoch,
        }
    }

    /// A key for all models.
    #[must_use]
    pub fn all_models(epoch: u32) -> Self {
        Self {
            scope: NamedScope::AllModels,
            epoch,
        }
    }
}

/// An enclave asks for what it needs to serve one user on one model. Which enclave asks is not in the message: the channel's
/// verified evidence says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct ReleaseRequest {
    /// What the user asked for.
    #[n(0)]
    pub model: ModelTarget,
    /// The user who asks for it.
    #[n(1)]
    pub user: PrincipalId,
    /// Which of the user's request keys.
    #[n(2)]
    pub key: RequestKeyName,
    /// A point of the log that the service must agree with, because somebody has seen it; [`Point::START`] if unknown.
    #[n(3)]
    pub seen: Point,
}

/// Keys for a bounded time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lease {
    /// The version to run: what the target means now.
    #[n(0)]
    pub model: ModelRef,
    /// Opens the model package of this version.
    #[n(1)]
    pub model_key: SecretKey,
    /// What the manifest inside the package must hash to.
    #[n(2)]
    pub manifest: Digest,
    /// Opens this user's requests that name this key.
    #[n(3)]
    pub request_key: SecretKey,
    /// How long the keys may be used, in seconds: never beyond the end of the grant or of the request key.
    #[n(4)]
    pub seconds: u32,
    /// The service and its log when it decided.
    #[n(5)]
    pub state: StatePoint,
    /// What the enclave must do to keep this user's requests for this version apart from others: the stricter of what the
    /// model's owner and the user asked for.
    #[n(6)]
    pub isolation: Isolation,
}

impl Lease {
    /// How long the keys may be used, counted from when they were asked for.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

/// The answer to one release request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReleaseOutcome {
    /// The keys.
    #[n(0)]
    Lease(#[n(0)] Box<Lease>),
    /// No keys.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}
