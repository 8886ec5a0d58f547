//! HKDF-SHA-256 (RFC 5869), with the derived key going straight into a type that wipes itself.

use ring::hkdf;
use sesemi_hardening::stack::wiped_after;

use crate::secret::SecretKey;

struct Length32;

impl hkdf::KeyType for Length32 {
    fn len(&self) -> usize {
        32
    }
}

/// Derives 32 bytes from `key`. `salt` makes the derivation unique, `info` says what the result is for.
///
/// # Errors
/// [`DeriveError`] only if the provider fails; 32 bytes are always within HKDF's range.
pub fn derive(key: &[u8], salt: &[u8], info: &[u8]) -> Result<SecretKey, DeriveError> {
    wiped_after(|| {
        SecretKey::filled(|out| {
            hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
                .extract(key)
                .expand(&[info], Length32)
                .and_then(|okm| okm.fill(out))
                .map_err(|_| DeriveError)
        })
    })
}

/// The cryptographic provider could not derive a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("key derivation failed in the cryptographic provider")]
pub struct DeriveError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_is_rfc_5869_test_case_1() {
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        let okm = derive(&[0x0b; 22], &salt, &info).unwrap();
        assert_eq!(
            hex::encode(okm.expose()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
    }
}
