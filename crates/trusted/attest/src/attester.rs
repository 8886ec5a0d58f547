//! The attester: the TEE that this process runs in.

use sesemi_protocol::SecretKey;

use crate::evidence::{Evidence, EvidenceError};

/// Why the TEE did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AttesterError {
    /// No TEE is there.
    #[error(
        "no TEE found: start this binary inside one, or with `simtee run` for a simulated one that protects nothing"
    )]
    NoTee,
    /// Talking to the TEE failed.
    #[error("the TEE's device cannot be used")]
    Device(#[from] std::io::Error),
    /// The device answered something else than its contract says.
    #[error("the TEE's device broke its contract: {0}")]
    Contract(&'static str),
    /// The TEE refused.
    #[error("the TEE refused: {0}")]
    Refused(String),
    /// What it gave is no evidence.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// A TEE, seen from inside. Calls block for the time the hardware takes: microseconds to milliseconds.
pub trait Attester: Send + Sync {
    /// Its name, for logs: `simulated`, `sgx`.
    fn name(&self) -> &'static str;

    /// Fresh evidence about this process, bound to `report_data`.
    ///
    /// # Errors
    /// [`AttesterError`].
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError>;

    /// A key that only this very code on this very platform gets, the same after each start.
    ///
    /// # Errors
    /// [`AttesterError`].
    fn sealing_key(&self) -> Result<SecretKey, AttesterError>;
}
