//! The TEEs that this code can run in, one file each. Which one it is, is found out from what is there, never from a flag of
//! the host; and if the host fakes one, no verifier believes the evidence.

pub mod simulated;

use std::sync::Arc;

use crate::attester::{Attester, AttesterError};

/// The TEE that this process runs in.
///
/// # Errors
/// [`AttesterError::NoTee`] if there is none.
pub fn detect() -> Result<Arc<dyn Attester>, AttesterError> {
    match simulated::SimulatedTee::detect()? {
        Some(tee) => Ok(Arc::new(tee)),
        None => Err(AttesterError::NoTee),
    }
}
