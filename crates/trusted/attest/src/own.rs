//! Which code this process is, by its own evidence.
//!
//! Nobody is asked to believe it: it is for finding one's own files and for telling an upgrade from a restart. It is verified
//! like anybody else's all the same, because the trust domain, which is part of a code identity, is known only then, and
//! because evidence that does not verify here will not verify elsewhere either.

use sesemi_protocol::{CodeIdentityDigest, Entropy, EntropyError};

use crate::attester::{Attester, AttesterError};
use crate::verifier::{EvidenceVerifier, VerifyError};

/// Why this process cannot tell which code it is.
#[derive(Debug, thiserror::Error)]
pub enum OwnCodeError {
    /// The TEE gave no evidence.
    #[error(transparent)]
    Attester(#[from] AttesterError),
    /// The evidence does not verify.
    #[error(
        "this program's own evidence does not verify, so nobody else would accept it either; see to the endorsements"
    )]
    Verify(#[from] VerifyError),
    /// Randomness is missing.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Makes evidence and verifies it at the time `now`, in seconds since 1970.
///
/// # Errors
/// [`OwnCodeError`].
pub fn own_code(
    attester: &dyn Attester,
    verifier: &EvidenceVerifier,
    entropy: &dyn Entropy,
    now: u64,
) -> Result<CodeIdentityDigest, OwnCodeError> {
    let mut nonce = [0; 64];
    entropy.fill(&mut nonce)?;
    let evidence = attester.evidence(&nonce)?;
    let verified = verifier.verify(&evidence, &nonce, now)?;
    Ok(verified.claims.code)
}
