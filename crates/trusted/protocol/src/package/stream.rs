//! Tink's streaming AEAD, type AES256_GCM_HKDF_1MB, so that any Tink library can write or read a package's ciphertext.
//!
//! Source: Tink's wire format, "AES-GCM-HKDF Streaming AEAD", and the online authenticated encryption of Hoang, Reyhanitabar,
//! Rogaway and Vizár (CRYPTO 2015). A 40-byte header holds a random salt and nonce prefix; the segment key is HKDF-SHA-256
//! of the key with that salt and the associated data as info. Each segment's nonce is prefix, segment number and a flag for
//! the last one, so that segments cannot be cut off, swapped or repeated.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::entropy::{Entropy, random};
use crate::kdf::derive;
use crate::secret::SecretKey;

/// Ciphertext bytes of a full segment.
pub const SEGMENT: usize = 1 << 20;
const TAG: usize = 16;
const SALT: usize = 32;
const PREFIX: usize = 7;
/// Bytes before the first segment's ciphertext: the header's own length, salt, nonce prefix.
pub const HEADER: usize = 1 + SALT + PREFIX;
/// The first byte: the header's length. Written as a literal so that no cast can go wrong; see the test.
const HEADER_BYTE: u8 = 40;

/// Why a ciphertext does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The header's first byte is not that of this type.
    #[error("not a ciphertext of type AES256_GCM_HKDF_1MB")]
    Header,
    /// A segment's tag does not verify: changed, cut, reordered, or another key, model or version.
    #[error("segment {0} is not authentic: changed on the way, cut short, or under another key")]
    NotAuthentic(u32),
    /// It ends within the header.
    #[error("the ciphertext is cut short")]
    CutShort,
    /// More plaintext than allowed here.
    #[error("the plaintext is above the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// More than 2^32 segments.
    #[error("the stream has too many segments")]
    TooManySegments,
    /// The provider failed.
    #[error("the cryptographic provider failed: {0}")]
    Provider(&'static str),
}

/// The key and nonces of one ciphertext.
struct Segments {
    key: LessSafeKey,
    prefix: [u8; PREFIX],
}

impl Segments {
    fn new(
        key: &SecretKey,
        associated_data: &[u8],
        salt: &[u8; SALT],
        prefix: [u8; PREFIX],
    ) -> Result<Self, StreamError> {
        let derived = derive(key.expose(), salt, associated_data)
            .map_err(|_| StreamError::Provider("derivation"))?;
        let key = UnboundKey::new(&AES_256_GCM, derived.expose())
            .map(LessSafeKey::new)
            .map_err(|_| StreamError::Provider("key"))?;
        Ok(Self { key, prefix })
    }

    /// Prefix (7 bytes), segment number (4, big-endian), 1 for the last segment (1).
    fn nonce(&self, number: u32, last: bool) -> Nonce {
        let [a, b, c, d, e, f, g] = self.prefix;
        let [n3, n2, n1, n0] = number.to_be_bytes();
        Nonce::assume_unique_for_key([a, b, c, d, e, f, g, n3, n2, n1, n0, u8::from(last)])
    }
}

/// Plaintext bytes of segment `number`: the first one shares its megabyte with the header.
fn capacity(number: u32) -> usize {
    let full = SEGMENT.saturating_sub(TAG);
    if number == 0 {
        full.saturating_sub(HEADER)
    } else {
        full
    }
}

/// Encrypts `plaintext`, appending to `out`.
///
/// # Errors
/// [`StreamError::Provider`] without randomness, [`StreamError::TooManySegments`] above 4 PiB.
pub fn seal(
    key: &SecretKey,
    associated_data: &[u8],
    plaintext: &[u8],
    entropy: &dyn Entropy,
    out: &mut Vec<u8>,
) -> Result<(), StreamError> {
    let no_entropy = |_| StreamError::Provider("no randomness");
    let salt: [u8; SALT] = random(entropy).map_err(no_entropy)?;
    let prefix: [u8; PREFIX] = random(entropy).map_err(no_entropy)?;
    let segments = Segments::new(key, associated_data, &salt, prefix)?;
    out.push(HEADER_BYTE);
    out.extend_from_slice(&salt);
    out.extend_from_slice(&prefix);

    let mut rest = plaintext;
    let mut number = 0u32;
    loop {
        let (segment, after) = rest.split_at(capacity(number).min(rest.len()));
        rest = after;
        let last = rest.is_empty();
        let starts = out.len();
        out.extend_from_slice(segment);
        let place = out.get_mut(starts..).unwrap_or_default();
        let tag = segments
            .key
            .seal_in_place_separate_tag(segments.nonce(number, last), Aad::empty(), place)
            .map_err(|_| StreamError::Provider("encryption"))?;
        out.extend_from_slice(tag.as_ref());
        if last {
            return Ok(());
        }
        number = number.checked_add(1).ok_or(StreamError::TooManySegments)?;
    }
}

/// Decrypts a ciphertext that arrives in pieces of any size. Plaintext of a segment exists only once its tag is verified,
/// and is handed out only once the last one is.
pub struct Opener {
    key: SecretKey,
    associated_data: Vec<u8>,
    limit: u64,
    segments: Option<Segments>,
    /// Ciphertext of the segment at hand (or the header), at most one segment and one byte.
    pending: Vec<u8>,
    number: u32,
    plaintext: Zeroizing<Vec<u8>>,
}

impl Opener {
    /// Expects a ciphertext under `key` and `associated_data` with at most `limit` bytes of plaintext.
    #[must_use]
    pub fn new(key: SecretKey, associated_data: Vec<u8>, limit: u64) -> Self {
        Self {
            key,
            associated_data,
            limit,
            segments: None,
            pending: Vec::new(),
            number: 0,
            plaintext: Zeroizing::new(Vec::new()),
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`StreamError`]; the opener is then of no more use.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), StreamError> {
        while !piece.is_empty() {
            let wanted = match self.segments {
                None => HEADER,
                // One byte more than a segment shows that this segment is not the last.
                Some(_) => capacity(self.number).saturating_add(TAG).saturating_add(1),
            };
            let room = wanted.saturating_sub(self.pending.len());
            let (taken, rest) = piece.split_at(room.min(piece.len()));
            self.pending.extend_from_slice(taken);
            piece = rest;
            if self.pending.len() < wanted {
                return Ok(());
            }
            match self.segments {
                None => self.read_header()?,
                Some(_) => self.open_segment(false)?,
            }
        }
        Ok(())
    }

    /// Says that the last piece was pushed, and hands out the plaintext.
    ///
    /// # Errors
    /// [`StreamError`] if the last segment is missing, cut or not authentic.
    pub fn finish(mut self) -> Result<Zeroizing<Vec<u8>>, StreamError> {
        if self.segments.is_none() {
            return Err(StreamError::CutShort);
        }
        self.open_segment(true)?;
        Ok(core::mem::take(&mut self.plaintext))
    }

    fn read_header(&mut self) -> Result<(), StreamError> {
        let header: [u8; HEADER] = self
            .pending
            .as_slice()
            .try_into()
            .map_err(|_| StreamError::CutShort)?;
        let (length, rest) = header.split_first().ok_or(StreamError::Header)?;
        let (salt, prefix) = rest
            .split_first_chunk::<SALT>()
            .ok_or(StreamError::Header)?;
        let prefix = prefix.try_into().map_err(|_| StreamError::Header)?;
        if *length != HEADER_BYTE {
            return Err(StreamError::Header);
        }
        self.segments = Some(Segments::new(
            &self.key,
            &self.associated_data,
            salt,
            prefix,
        )?);
        self.pending.clear();
        Ok(())
    }

    /// Opens the pending segment; unless it is the last, one byte of the next one is pending too and stays.
    fn open_segment(&mut self, last: bool) -> Result<(), StreamError> {
        let segments = self.segments.as_ref().ok_or(StreamError::CutShort)?;
        let length = if last {
            self.pending.len()
        } else {
            self.pending.len().saturating_sub(1)
        };
        let content = length
            .checked_sub(TAG)
            .ok_or(StreamError::NotAuthentic(self.number))?;
        let total = self.plaintext.len().saturating_add(content);
        if total as u64 > self.limit {
            return Err(StreamError::TooLarge { limit: self.limit });
        }
        let sealed = self.pending.get_mut(..length).unwrap_or_default();
        let opened = segments
            .key
            .open_in_place(segments.nonce(self.number, last), Aad::empty(), sealed)
            .map_err(|_| StreamError::NotAuthentic(self.number))?;
        append(&mut self.plaintext, opened);
        opened.zeroize();
        self.pending.drain(..length);
        self.number = self
            .number
            .checked_add(1)
            .ok_or(StreamError::TooManySegments)?;
        Ok(())
    }
}

/// Appends without ever leaving plaintext in memory that a growing `Vec` gave back.
fn append(plaintext: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let needed = plaintext.len().saturating_add(more.len());
    if needed > plaintext.capacity() {
        let mut grown = Zeroizing::new(Vec::with_capacity(
            needed.max(plaintext.len().saturating_mul(2)),
        ));
        grown.extend_from_slice(plaintext);
        *plaintext = grown;
    }
    plaintext.extend_from_slice(more);
}
