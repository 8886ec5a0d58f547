//! Ed25519 identities of principals and services (RFC 8032). An id is the SHA-256 of the public key.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::cose::CoseError;
use crate::entropy::{Entropy, EntropyError};
use crate::id::{PrincipalId, ServiceId, sha256};
use crate::secret::SecretKey;

/// Length of an Ed25519 signature, in bytes.
pub const SIGNATURE_LENGTH: usize = 64;

/// A private identity. Its seed wipes itself; nothing prints it.
pub struct SigningIdentity {
    seed: SecretKey,
    pair: Ed25519KeyPair,
    public: PublicIdentity,
}

/// A public identity: the Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicIdentity {
    key: [u8; 32],
}

/// A seed was not accepted as an Ed25519 private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The provider refused the seed.
    #[error("the seed is not an Ed25519 private key")]
    Seed,
    /// No randomness for a new seed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl SigningIdentity {
    /// A new random identity.
    ///
    /// # Errors
    /// [`IdentityError::Entropy`] without randomness.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, IdentityError> {
        Self::from_seed(SecretKey::generate(entropy)?)
    }

    /// The identity of a 32-byte seed (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// [`IdentityError::Seed`] if the provider does not take it.
    pub fn from_seed(seed: SecretKey) -> Result<Self, IdentityError> {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(seed.expose()).map_err(|_| IdentityError::Seed)?;
        let key = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| IdentityError::Seed)?;
        Ok(Self {
            seed,
            pair,
            public: PublicIdentity { key },
        })
    }

    /// The seed, to be sealed or stored.
    #[must_use]
    pub fn seed(&self) -> &SecretKey {
        &self.seed
    }

    /// The public part.
    #[must_use]
    pub fn public(&self) -> &PublicIdentity {
        &self.public
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let signature = self.pair.sign(message);
        let mut out = [0; SIGNATURE_LENGTH];
        for (to, from) in out.iter_mut().zip(signature.as_ref()) {
            *to = *from;
        }
        out
    }
}

impl core::fmt::Debug for SigningIdentity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("SigningIdentity")
            .field(&PrincipalId(self.public.key_id()))
            .finish()
    }
}

impl PublicIdentity {
    /// The identity of a public key.
    #[must_use]
    pub fn from_key(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The public key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// SHA-256 of the public key.
    #[must_use]
    pub fn key_id(&self) -> [u8; 32] {
        sha256(&self.key)
    }

    /// This identity as a principal.
    #[must_use]
    pub fn principal_id(&self) -> PrincipalId {
        PrincipalId(self.key_id())
    }

    /// This identity as a service.
    #[must_use]
    pub fn service_id(&self) -> ServiceId {
        ServiceId(self.key_id())
    }

    /// Verifies a signature over `message`.
    ///
    /// # Errors
    /// [`CoseError::NotAuthentic`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CoseError> {
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(message, signature)
            .map_err(|_| CoseError::NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_rfc_8032_test_1() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let mut bytes = [0; 32];
        hex::decode_to_slice(seed, &mut bytes).unwrap();
        let identity = SigningIdentity::from_seed(SecretKey::from_bytes(bytes)).unwrap();
        assert_eq!(
            hex::encode(identity.public().key()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert!(hex::encode(identity.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a"));
    }

    #[test]
    fn a_private_identity_prints_only_its_public_id() {
        let identity = SigningIdentity::from_seed(SecretKey::from_bytes([9; 32])).unwrap();
        assert!(!format!("{identity:?}").contains(&hex::encode([9; 32])));
    }
}
