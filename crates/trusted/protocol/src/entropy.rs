//! Where randomness comes from: passed in, so that a protocol step can be replayed exactly in a test.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of cryptographically secure random bytes.
pub trait Entropy: Send + Sync {
    /// Fills `dest` with random bytes.
    ///
    /// # Errors
    /// [`EntropyError`] if the source has none to give; `dest` is then unspecified and must not be used.
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError>;
}

/// The source of randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct EntropyError;

/// The operating system's generator. Inside a TEE this is the instruction that the kernel or library OS wraps.
#[derive(Debug, Clone)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The one source for production.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        self.0.fill(dest).map_err(|_| EntropyError)
    }
}

/// `N` random bytes.
///
/// # Errors
/// [`EntropyError`] if the source failed.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> Result<[u8; N], EntropyError> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(bytes)
}
