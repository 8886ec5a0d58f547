//! Shares of the recovery key, one for each custodian.
//!
//! A share says which service it belongs to, which of how many it is and how many are needed, so that nobody has to keep
//! notes beside it. It has two spellings: CBOR on the wire, and one line of text for a custodian's file or paper
//! ([`Share::to_text`]). It has no `Display` and its `Debug` shows nothing of the secret.
//!
//! Here is only what is about one share alone; KeyService splits and combines.

mod text;

use core::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::cbor;
use crate::entropy::EntropyError;
use crate::id::{Digest, ServiceId};
use crate::secret::SecretKey;
use zeroize::Zeroizing;

pub use self::text::{MAX_TEXT, TextError};

/// Most shares of one key.
pub const MAX_SHARES: u8 = 16;

/// Fewest shares that may be enough: with one, each custodian alone would be the owner of every key.
pub const MIN_THRESHOLD: u8 = 2;

/// Longest CBOR of a share, in bytes.
pub const MAX_ENCODED: usize = 128;

/// Label of the digest by which a service knows its shares again.
const COMMITMENT: &[u8] = b"sesemi/v1/share-commitment";

/// Why there are no shares, or no key from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// So many shares, or so many of them enough, cannot be.
    #[error(
        "{threshold} of {count} shares cannot be: choose at most {MAX_SHARES} shares, of which at least {MIN_THRESHOLD} and at most all are enough"
    )]
    Scheme {
        /// How many should be enough.
        threshold: u8,
        /// How many there should be.
        count: u8,
    },
    /// A share has a number that is not among the shares.
    #[error("a share has the number {index}, but they are numbered 1 to {count}")]
    Index {
        /// Its number.
        index: u8,
        /// How many shares there are.
        count: u8,
    },
    /// A text is not a share.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Fewer shares than are needed.
    #[error("{have} of the {need} shares that are needed are here; ask further custodians")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many are needed.
        need: u8,
    },
    /// One share twice.
    #[error("share {0} is there twice; each custodian has a share with a number of its own")]
    Duplicate(u8),
    /// A share of another service.
    #[error(
        "share {index} belongs to service {found}, not to {expected}; look for the share of this one"
    )]
    OtherService {
        /// Its number.
        index: u8,
        /// The service that it names.
        found: ServiceId,
        /// The service whose key is put together.
        expected: ServiceId,
    },
    /// Shares that do not agree on how many there are, or on how many are enough.
    #[error("share {index} says {found}, the others {expected}; they were not made together")]
    OtherScheme {
        /// Its number.
        index: u8,
        /// What it says.
        found: Scheme,
        /// What the others say.
        expected: Scheme,
    },
    /// A share that the service never gave out.
    #[error(
        "share {0} is not the one that this service gave to a custodian; compare it with the custodian's original"
    )]
    Wrong(u8),
    /// No randomness to make shares with.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The library that splits and combines did not do what it says.
    #[error("the key could not be split or combined: {0}")]
    Library(&'static str),
}

/// How many shares there are, and how many are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    threshold: u8,
    count: u8,
}

impl Scheme {
    /// `threshold` of `count` shares.
    ///
    /// # Errors
    /// [`ShareError::Scheme`] unless 2 <= `threshold` <= `count` <= 16.
    pub fn new(threshold: u8, count: u8) -> Result<Self, ShareError> {
        if (MIN_THRESHOLD..=count).contains(&threshold) && count <= MAX_SHARES {
            Ok(Self { threshold, count })
        } else {
            Err(ShareError::Scheme { threshold, count })
        }
    }

    /// How many shares are enough.
    #[must_use]
    pub fn threshold(self) -> u8 {
        self.threshold
    }

    /// How many shares there are.
    #[must_use]
    pub fn count(self) -> u8 {
        self.count
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.threshold, self.count)
    }
}

/// One custodian's share of a recovery key. Wiped on drop; its `Debug` form shows whose it is, never what it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    service: ServiceId,
    scheme: Scheme,
    index: u8,
    value: SecretKey,
}

impl Share {
    /// A share of this value.
    ///
    /// # Errors
    /// [`ShareError::Index`] unless `index` is among the scheme's numbers.
    pub fn new(
        service: ServiceId,
        scheme: Scheme,
        index: u8,
        value: SecretKey,
    ) -> Result<Self, ShareError> {
        if (1..=scheme.count).contains(&index) {
            Ok(Self {
                service,
                scheme,
                index,
                value,
            })
        } else {
            Err(ShareError::Index {
                index,
                count: scheme.count,
            })
        }
    }

    /// The service whose state it helps to open.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// How many shares there are, and how many are enough.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its number, from 1.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The share itself: 32 bytes, as secret as the key.
    #[must_use]
    pub fn value(&self) -> &SecretKey {
        &self.value
    }

    /// SHA-256 over a label and the share's CBOR: by it a service knows the share again without having it. A share has
    /// 256 bits that nobody can guess, so its digest may be public.
    ///
    /// # Errors
    /// [`ShareError::Library`] never in practice: every share has an encoding.
    pub fn commitment(&self) -> Result<Digest, ShareError> {
        let encoded =
            cbor::encode(self).map_err(|_| ShareError::Library("a share has no encoding"))?;
        let mut labelled = Zeroizing::new(Vec::with_capacity(
            COMMITMENT.len().saturating_add(encoded.len()),
        ));
        labelled.extend_from_slice(COMMITMENT);
        labelled.extend_from_slice(&encoded);
        Ok(Digest::of(&labelled))
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("service", &self.service)
            .field("index", &self.index)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}

/// The map `{0: service, 1: number, 2: how many there are, 3: how many are enough, 4: 32 bytes}`.
impl<C> Encode<C> for Share {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(5)?.u8(0)?.encode_with(self.service, ctx)?;
        e.u8(1)?.u8(self.index)?;
        e.u8(2)?.u8(self.scheme.count)?;
        e.u8(3)?.u8(self.scheme.threshold)?;
        e.u8(4)?.encode_with(&self.value, ctx)?.ok()
    }
}

/// What a share's CBOR holds, before it is known to be one.
#[derive(Decode)]
#[cbor(map)]
struct Fields {
    #[n(0)]
    service: ServiceId,
    #[n(1)]
    index: u8,
    #[n(2)]
    count: u8,
    #[n(3)]
    threshold: u8,
    #[n(4)]
    value: SecretKey,
}

impl<'b, C> Decode<'b, C> for Share {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let fields: Fields = d.decode_with(ctx)?;
        Scheme::new(fields.threshold, fields.count)
            .and_then(|scheme| Self::new(fields.service, scheme, fields.index, fields.value))
            .map_err(minicbor::decode::Error::message)
    }
}
