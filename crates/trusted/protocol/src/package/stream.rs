//! Tink's streaming AEAD, type AES256_GCM_HKDF_1MB, so that any Tink library can write or read a package's ciphertext.
//!
//! Source: Tink's wire format, "AES-GCM-HKDF Streaming AEAD", and the online authenticated encryption of Hoang, Reyhanitabar,
//! Rogaway and Vizár (CRYPTO 2015). A 40-byte header holds a random salt and nonce prefix; the segment key is HKDF-SHA-256
//! of the key with that salt and the associated data as info. Each segment's nonce is prefix, segment number and a flag for
//! the last one, so that segments cannot be cut off, swapped or repeated.

use core::ops::Range;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::entropy::{Entropy, random};
use crate::kdf::derive;
use crate::secret::SecretKey;

/// Ciphertext bytes of a full segment.
pub const SEGMENT: usize = 1 << 20;
/// Bytes of a segment that follow its ciphertext proper.
pub const TAG: usize = 16;
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
    /// 2^32 segments or more.
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
    let tags = plaintext.len().div_ceil(SEGMENT).saturating_add(1);
    let more = plaintext.len().saturating_add(HEADER);
    out.reserve(more.saturating_add(tags.saturating_mul(TAG)));
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

/// Where the segments of a ciphertext lie, as its length says.
///
/// The length comes from whoever stores the ciphertext. One that is not true makes the last segment another one, and what is
/// taken for it does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    length: u64,
    segments: u32,
}

impl Layout {
    /// The layout of a ciphertext of `length` bytes, header included.
    ///
    /// # Errors
    /// [`StreamError::CutShort`] or [`StreamError::TooManySegments`] if there is no ciphertext of this length.
    pub fn of_length(length: u64) -> Result<Self, StreamError> {
        let full = SEGMENT as u64;
        let segments = length.div_ceil(full);
        // The last segment has a tag at least, and no segment but an only one is empty.
        let tail = length.saturating_sub(full.saturating_mul(segments.saturating_sub(1)));
        let least = if segments > 1 {
            TAG.saturating_add(1)
        } else {
            HEADER.saturating_add(TAG)
        };
        if tail < least as u64 {
            return Err(StreamError::CutShort);
        }
        let segments = u32::try_from(segments).map_err(|_| StreamError::TooManySegments)?;
        Ok(Self { length, segments })
    }

    /// How many segments there are; at least one.
    #[must_use]
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Bytes of plaintext.
    #[must_use]
    pub fn plaintext(&self) -> u64 {
        let tags = u64::from(self.segments).saturating_mul(TAG as u64);
        self.length
            .saturating_sub(HEADER as u64)
            .saturating_sub(tags)
    }

    /// Where segment `number` lies in the ciphertext, its tag included; an empty range if there is no such segment.
    #[must_use]
    pub fn sealed(&self, number: u32) -> Range<u64> {
        let boundary = |number: u32| match number {
            0 => HEADER as u64,
            _ => u64::from(number)
                .saturating_mul(SEGMENT as u64)
                .min(self.length),
        };
        boundary(number)..boundary(number.saturating_add(1))
    }

    /// What of the plaintext segment `number` holds; nothing if there is no such segment.
    #[must_use]
    pub fn opened(&self, number: u32) -> Range<u64> {
        let full = SEGMENT.saturating_sub(TAG) as u64;
        let boundary = |number: u32| {
            let whole = u64::from(number).saturating_mul(full);
            whole.saturating_sub(HEADER as u64).min(self.plaintext())
        };
        boundary(number)..boundary(number.saturating_add(1))
    }

    /// The segments that hold a range of the plaintext; none for an empty range.
    #[must_use]
    pub fn holding(&self, plaintext: &Range<u64>) -> Range<u32> {
        let full = SEGMENT.saturating_sub(TAG) as u64;
        let of = |position: u64| {
            let segment = position.saturating_add(HEADER as u64).checked_div(full);
            u32::try_from(segment.unwrap_or(0)).unwrap_or(u32::MAX)
        };
        if plaintext.is_empty() {
            return 0..0;
        }
        let last = of(plaintext.end.saturating_sub(1));
        of(plaintext.start).min(self.segments)..last.saturating_add(1).min(self.segments)
    }

    fn is_last(&self, number: u32) -> bool {
        number.saturating_add(1) == self.segments
    }
}

/// Opens the segments of one ciphertext, in any order and on any thread.
pub struct Opener {
    segments: Segments,
    layout: Layout,
}

impl Opener {
    /// An opener for a ciphertext of `layout` that begins with `header`.
    ///
    /// # Errors
    /// [`StreamError::Header`] if it is of another type.
    pub fn new(
        key: &SecretKey,
        associated_data: &[u8],
        header: &[u8; HEADER],
        layout: Layout,
    ) -> Result<Self, StreamError> {
        let (length, rest) = header.split_first().ok_or(StreamError::Header)?;
        let (salt, prefix) = rest
            .split_first_chunk::<SALT>()
            .ok_or(StreamError::Header)?;
        let prefix = prefix.try_into().map_err(|_| StreamError::Header)?;
        if *length != HEADER_BYTE {
            return Err(StreamError::Header);
        }
        let segments = Segments::new(key, associated_data, salt, prefix)?;
        Ok(Self { segments, layout })
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Opens segment `number` where it lies; its plaintext is the part of `sealed` that is returned.
    ///
    /// # Errors
    /// [`StreamError::NotAuthentic`]. What is left in `sealed` is then of no use.
    pub fn open<'s>(&self, number: u32, sealed: &'s mut [u8]) -> Result<&'s mut [u8], StreamError> {
        let nonce = self.segments.nonce(number, self.layout.is_last(number));
        let expected = self.layout.sealed(number);
        if number >= self.layout.segments
            || sealed.len() as u64 != expected.end.saturating_sub(expected.start)
        {
            return Err(StreamError::NotAuthentic(number));
        }
        self.segments
            .key
            .open_in_place(nonce, Aad::empty(), sealed)
            .map_err(|_| StreamError::NotAuthentic(number))
    }

    /// Opens segment `number` where it lies, apart from its tag.
    ///
    /// # Errors
    /// [`StreamError::NotAuthentic`]. What is left in `body` is then of no use.
    pub fn open_separate(
        &self,
        number: u32,
        body: &mut [u8],
        tag: &[u8; TAG],
    ) -> Result<(), StreamError> {
        let nonce = self.segments.nonce(number, self.layout.is_last(number));
        let expected = self.layout.opened(number);
        if number >= self.layout.segments
            || body.len() as u64 != expected.end.saturating_sub(expected.start)
        {
            return Err(StreamError::NotAuthentic(number));
        }
        self.segments
            .key
            .open_in_place_separate_tag(nonce, Aad::empty(), Tag::from(*tag), body, 0..)
            .map(drop)
            .map_err(|_| StreamError::NotAuthentic(number))
    }
}
