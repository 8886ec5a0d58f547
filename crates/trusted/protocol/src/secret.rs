//! Keys that nobody can print, copy by accident or leave behind in memory.

use minicbor::{Decode, Decoder, Encode, Encoder};
use sesemi_hardening::secret_memory::SecretBytes32;
use sesemi_hardening::stack::wiped_after;

use crate::entropy::{Entropy, EntropyError};
use crate::id::Digest;

/// 256 bits of key material, in memory that the operating system hides if it can. Wiped on drop; its `Debug` form shows
/// nothing; not `Copy`.
#[derive(Clone)]
pub struct SecretKey(SecretBytes32);

impl SecretKey {
    /// A fresh random key.
    ///
    /// # Errors
    /// [`EntropyError`] if the source failed.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Self::filled(|key| entropy.fill(key))
    }

    /// Takes key material from elsewhere, and wipes the copy that it is given; one that the caller kept is the caller's to
    /// wipe. [`SecretKey::from_slice`] and [`SecretKey::filled`] make no copy.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretBytes32::from_bytes(bytes))
    }

    /// Copies key material straight to where it stays; `None` if it has not 32 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(SecretBytes32::from_slice)
            .map(Self)
    }

    /// Lets `fill` write the key to where it stays, so that it is nowhere else.
    ///
    /// # Errors
    /// Whatever `fill` fails with.
    pub fn filled<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        SecretBytes32::filled(fill).map(Self)
    }

    /// The raw key. Named so that every use shows in review.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// SHA-256 of the key, which says nothing of it. Hashing leaves no copy of the key on the stack.
    #[must_use]
    pub fn digest(&self) -> Digest {
        wiped_after(|| Digest::of(self.expose()))
    }
}

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        // Constant time: the number of equal leading bytes must not show.
        let difference = self
            .expose()
            .iter()
            .zip(other.expose())
            .fold(0u8, |acc, (a, b)| acc | (a ^ b));
        core::hint::black_box(difference) == 0
    }
}

impl Eq for SecretKey {}

impl<C> Encode<C> for SecretKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(self.expose())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SecretKey {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_slice(d.bytes()?)
            .ok_or_else(|| minicbor::decode::Error::message("a key has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_be_printed() {
        let key = SecretKey::from_bytes([0xab; 32]);
        assert_eq!(format!("{key:?}"), "SecretKey(..)");
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for length in [0, 31, 33] {
            let bytes =
                minicbor::to_vec(minicbor::bytes::ByteVec::from(vec![1u8; length])).unwrap();
            assert!(minicbor::decode::<SecretKey>(&bytes).is_err());
        }
    }
}
