//! How an attested enclave asks KeyService for keys, and the lease it gets.

use core::time::Duration;

use minicbor::{Decode, Encode};

use crate::id::{Digest, ModelRef, PrincipalId};
use crate::receipt::StatePoint;
use crate::secret::SecretKey;

/// An enclave asks for what it needs to serve one user on one model version. Which enclave asks is not in the message:
/// the channel's verified evidence says so.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct ReleaseRequest {
    /// The model version to run.
    #[n(0)]
    pub model: ModelRef,
    /// The user who asks for it.
    #[n(1)]
    pub user: PrincipalId,
    /// Which of the user's request keys.
    #[n(2)]
    pub epoch: u32,
    /// The log position that the service must have reached, because somebody holds a receipt for it; 0 if unknown.
    #[n(3)]
    pub at_least: u64,
}

/// Keys for a bounded time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lease {
    /// Opens the model package of this version.
    #[n(0)]
    pub model_key: SecretKey,
    /// What the manifest inside the package must hash to.
    #[n(1)]
    pub manifest: Digest,
    /// Opens this user's requests of this epoch.
    #[n(2)]
    pub request_key: SecretKey,
    /// How long the keys may be used, in seconds.
    #[n(3)]
    pub seconds: u32,
    /// The service and its state when it decided.
    #[n(4)]
    pub state: StatePoint,
}

impl Lease {
    /// How long the keys may be used, counted from when they were asked for.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}
