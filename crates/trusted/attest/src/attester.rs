//! The attester: the TEE that this process runs in.

use sesemi_protocol::SecretKey;
use sesemi_protocol::kdf::DeriveError;

use crate::code_identity::TeeKind;
use crate::evidence::{Evidence, EvidenceError};

/// Why the TEE did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AttesterError {
    /// No TEE is there.
    #[error(
        "no TEE found: start this binary inside one, or with `simtee run` for a simulated one that protects nothing"
    )]
    NoTee,
    /// A TEE is there, but was not set up so that it can be used.
    #[error("{tee} is there but cannot be used: {hint}")]
    Unusable {
        /// The TEE's name.
        tee: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A TEE is there that this code does not know.
    #[error(
        "the TEE calls itself {0:?}, which this version does not know: known are sgx (dcap), tdx_guest and sev_guest"
    )]
    UnknownProvider(String),
    /// Talking to the TEE failed.
    #[error("the TEE's device cannot be used")]
    Device(#[from] std::io::Error),
    /// The device answered something else than its contract says.
    #[error("the TEE's device broke its contract: {0}")]
    Contract(&'static str),
    /// The device did not answer in time.
    #[error("the TEE's device did not {0} in time")]
    TimedOut(&'static str),
    /// The device failed before and is not asked again, so that nobody waits for it in vain or reads an old answer.
    #[error("the TEE's device is out of service: {0}")]
    OutOfService(&'static str),
    /// Somebody else kept changing what was asked of the TEE.
    #[error(
        "another program kept changing this program's requests to the TEE; see who else writes to configfs"
    )]
    Raced,
    /// The TEE refused.
    #[error("the TEE refused: {0}")]
    Refused(String),
    /// The TEE has no key to seal with.
    #[error("{tee} has no sealing key: {hint}")]
    NoSealingKey {
        /// The TEE's name.
        tee: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// The TEE's key could not be stretched into a sealing key.
    #[error(transparent)]
    Derive(#[from] DeriveError),
    /// What it gave is no evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// What a sealing key is bound to, besides the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealBinding {
    /// The exact code. An upgraded program gets another key.
    Measurement,
    /// The code's signer and product, and a security version not above the code's own: an upgraded program can derive the
    /// keys of the versions before it, never the other way round.
    Signer {
        /// The security version that the key is for; `None` for the code's own.
        security_version: Option<u16>,
    },
}

/// A TEE, seen from inside. Calls block for the time the hardware takes, microseconds to seconds, and have a deadline of
/// their own: in asynchronous code they belong on a blocking thread.
pub trait Attester: Send + Sync {
    /// Its name, for logs: `simulated-sgx`, `sgx`, `tdx`, `snp`.
    fn name(&self) -> &'static str;

    /// The kind of TEE that its evidence is of.
    fn tee(&self) -> TeeKind;

    /// Fresh evidence about this process, bound to `report_data`.
    ///
    /// # Errors
    /// [`AttesterError`].
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError>;

    /// A key that only code with this binding on this very platform gets, the same after each start. It is the root of
    /// [sealing](crate::sealing), never used directly.
    ///
    /// # Errors
    /// [`AttesterError::NoSealingKey`] where the TEE has none, which says what to do instead.
    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError>;
}
