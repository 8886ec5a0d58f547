//! One entry: how it is sealed to its place, and how the chain goes on after it.
//!
//! The stored value is `chain before (32 bytes) || sealed`. What is sealed is deterministic CBOR `{0: public, 1: secret}`, to the
//! place `[number, chain before]`. The chain covers the public part alone, `SHA-256(place || SHA-256(public))`, so that it can
//! be checked by whoever may see public parts but no secret; a public part commits to the secrets it comes with.

use minicbor::{Decode, Encode};
use sesemi_attest::sealing::{OVERHEAD, Sealer};
use sesemi_protocol::audit::{extend, place};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::{Digest, Entropy};
use zeroize::Zeroizing;

use super::{LogError, Point};

/// Longest public part of an entry, in bytes.
pub const MAX_PUBLIC: usize = 192 * 1024;
/// Longest secret part of an entry, in bytes.
pub const MAX_SECRET: usize = 4 * 1024;
/// What the encoding adds to the two parts, at most.
const ENCODING: usize = 32;
/// Longest stored value, in bytes.
pub(super) const MAX_STORED: usize = 32 + OVERHEAD + MAX_PUBLIC + MAX_SECRET + ENCODING;

/// What is to be appended as one entry.
pub struct Draft {
    /// What the chain covers and what may be shown to whom it concerns: at most [`MAX_PUBLIC`] bytes, without any secret.
    pub public: Vec<u8>,
    /// Keys that belong to it: at most [`MAX_SECRET`] bytes.
    pub secret: Option<Zeroizing<Vec<u8>>>,
}

impl core::fmt::Debug for Draft {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Draft")
            .field("public", &self.public.len())
            .finish_non_exhaustive()
    }
}

/// An entry that was read back.
pub struct Opened {
    /// Its number, from 1.
    pub sequence: u64,
    /// What the chain covers.
    pub public: Vec<u8>,
    /// Keys that belong to it.
    pub secret: Option<Zeroizing<Vec<u8>>>,
    /// The chain's digest before it.
    pub chain_before: Digest,
    /// The chain's digest after it.
    pub chain_after: Digest,
}

impl Opened {
    /// The log's end when this entry was the last.
    #[must_use]
    pub fn point(&self) -> Point {
        Point {
            sequence: self.sequence,
            chain: self.chain_after,
        }
    }
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opened")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Plain<'b> {
    #[cbor(n(0), with = "minicbor::bytes")]
    public: &'b [u8],
    #[cbor(n(1), with = "minicbor::bytes")]
    secret: Option<&'b [u8]>,
}

/// Seals `draft` as the entry after `before`; gives the value to store and the log's end with it.
pub(super) fn seal(
    sealer: &Sealer,
    before: Point,
    draft: &Draft,
    entropy: &dyn Entropy,
) -> Result<(Vec<u8>, Point), LogError> {
    let secret = draft.secret.as_ref().map(|secret| secret.as_slice());
    for (length, limit) in [
        (draft.public.len(), MAX_PUBLIC),
        (secret.map_or(0, <[u8]>::len), MAX_SECRET),
    ] {
        if length > limit {
            return Err(LogError::TooLarge { length, limit });
        }
    }
    let sequence = before.sequence.saturating_add(1);
    let plain = Plain {
        public: &draft.public,
        secret,
    };
    // Large enough from the start: a buffer that grows would leave a copy of the secret behind.
    let room = MAX_STORED.min(
        draft
            .public
            .len()
            .saturating_add(secret.map_or(0, <[u8]>::len))
            .saturating_add(ENCODING),
    );
    let mut plaintext = Zeroizing::new(Vec::with_capacity(room));
    minicbor::encode(&plain, &mut *plaintext).map_err(|error| LogError::Entry {
        sequence,
        source: CborError::Encode(error.to_string()),
    })?;
    let place = place(sequence, &before.chain);
    let sealed = sealer
        .seal(&place, &plaintext, entropy)
        .map_err(LogError::Seal)?;
    let value = [before.chain.as_bytes().as_slice(), &sealed].concat();
    Ok((value, extend(&before, &Digest::of(&draft.public))))
}

/// Opens the stored value of entry `sequence`. What comes back was sealed for this number after the chain that it names;
/// whether that chain is this log's own is for the caller to compare.
pub(super) fn open(sealer: &Sealer, sequence: u64, value: &[u8]) -> Result<Opened, LogError> {
    let not_authentic = |source| LogError::NotAuthentic { sequence, source };
    let (before, sealed) = value
        .split_first_chunk::<32>()
        .filter(|_| value.len() <= MAX_STORED)
        .ok_or(not_authentic(
            sesemi_attest::sealing::SealError::NotAuthentic,
        ))?;
    let chain_before = Digest(*before);
    let place = place(sequence, &chain_before);
    let plaintext = sealer.unseal(&place, sealed).map_err(not_authentic)?;
    let plain: Plain<'_> = cbor::decode(&plaintext, MAX_STORED)
        .map_err(|source| LogError::Entry { sequence, source })?;
    let before = Point {
        sequence: sequence.saturating_sub(1),
        chain: chain_before,
    };
    let after = extend(&before, &Digest::of(plain.public));
    Ok(Opened {
        sequence,
        public: plain.public.to_vec(),
        secret: plain.secret.map(|secret| Zeroizing::new(secret.to_vec())),
        chain_before,
        chain_after: after.chain,
    })
}
