//! Sealing: state that only this code on this platform can read again.
//!
//! The TEE's sealing key is never used directly: each purpose has a key of its own, derived with HKDF. Sealing does not notice
//! that the host restored older state; the formats above it (hash chains, receipts) do.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sesemi_protocol::entropy::{Entropy, random};
use sesemi_protocol::{SecretKey, kdf};
use zeroize::Zeroizing;

/// Bytes that sealing adds: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + 16;

/// Why something could not be sealed or unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Sealed by other code, on another platform, for another purpose or place, or changed since.
    #[error(
        "the sealed data does not open: it was sealed by other code or on another platform, or was changed"
    )]
    NotAuthentic,
    /// The provider failed.
    #[error("the cryptographic provider failed while sealing")]
    Provider,
}

/// Seals for one purpose.
pub struct Sealer {
    key: LessSafeKey,
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// Derives the key for `purpose` from the TEE's sealing key.
    ///
    /// # Errors
    /// [`SealError::Provider`].
    pub fn new(sealing_key: &SecretKey, purpose: &str) -> Result<Self, SealError> {
        let key = kdf::derive(
            sealing_key.expose(),
            b"sesemi/v1/sealing",
            purpose.as_bytes(),
        )
        .map_err(|_| SealError::Provider)?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| SealError::Provider)?;
        Ok(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// Seals `plaintext`; `place` says where it belongs and must be the same to unseal it.
    ///
    /// # Errors
    /// [`SealError::Provider`] without randomness.
    pub fn seal(
        &self,
        place: &[u8],
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = random(entropy).map_err(|_| SealError::Provider)?;
        let mut out = Vec::with_capacity(plaintext.len().saturating_add(OVERHEAD));
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let content = out.get_mut(NONCE_LEN..).ok_or(SealError::Provider)?;
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place),
                content,
            )
            .map_err(|_| SealError::Provider)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Unseals what was sealed for the same purpose and place.
    ///
    /// # Errors
    /// [`SealError::NotAuthentic`].
    pub fn unseal(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (nonce, content) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::NotAuthentic)?;
        let mut buffer = Zeroizing::new(content.to_vec());
        let length = self
            .key
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(place),
                &mut buffer,
            )
            .map_err(|_| SealError::NotAuthentic)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use sesemi_protocol::SystemEntropy;

    use super::*;

    fn sealer(key: u8, purpose: &str) -> Sealer {
        Sealer::new(&SecretKey::from_bytes([key; 32]), purpose).unwrap()
    }

    #[test]
    fn sealed_data_opens_only_for_the_same_key_purpose_and_place() {
        let sealed = sealer(1, "log")
            .seal(b"entry 1", b"data", &SystemEntropy::new())
            .unwrap();
        assert_eq!(sealed.len(), 4 + OVERHEAD);
        assert_eq!(
            sealer(1, "log")
                .unseal(b"entry 1", &sealed)
                .unwrap()
                .as_slice(),
            b"data"
        );
        for wrong in [
            sealer(2, "log").unseal(b"entry 1", &sealed),
            sealer(1, "identity").unseal(b"entry 1", &sealed),
            sealer(1, "log").unseal(b"entry 2", &sealed),
            sealer(1, "log").unseal(b"entry 1", &sealed[..sealed.len() - 1]),
            sealer(1, "log").unseal(b"entry 1", b"short"),
        ] {
            assert_eq!(wrong, Err(SealError::NotAuthentic));
        }
    }
}
