//! `COSE_Encrypt0` with AES-256-GCM (RFC 9052, section 5.2; RFC 9053, section 4.1).
//!
//! The protected header is given by the caller as encoded bytes; the unprotected one is `{IV: 12 random bytes}`. Every
//! message has a key of its own, so a repeated IV would do no harm either, but it is random all the same: two defences, not
//! one. Sealing writes the plaintext once, into the buffer that becomes the message; opening works in the message's buffer, where it
//! leaves the plaintext at an aligned address.

use core::ops::Range;

use minicbor::{Decoder, Encoder};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{CoseError, LABEL_IV, infallible, malformed};
use crate::entropy::{Entropy, random};
use crate::limits::MAX_ENVELOPE;
use crate::secret::SecretKey;

/// CBOR tag of `COSE_Encrypt0`.
const TAG: u64 = 16;
/// Plaintext is left at a multiple of this, in bytes: a cache line, and the widest vector register.
const ALIGNMENT: usize = 64;
/// Length of the authentication tag, in bytes.
pub const TAG_LENGTH: usize = 16;

/// A message whose form was checked and whose content was not opened.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Where the encoded protected header stands in the message.
    pub protected: Range<usize>,
    /// Where ciphertext and tag stand in the message.
    ciphertext: Range<usize>,
    iv: [u8; NONCE_LEN],
}

/// Starts a message: everything up to where the plaintext of `plaintext_length` bytes begins, plus room for it and the tag.
/// The caller appends exactly that many bytes and calls [`Draft::seal`].
#[derive(Debug)]
pub struct Draft {
    message: Vec<u8>,
    protected: Vec<u8>,
    iv: [u8; NONCE_LEN],
    content_starts: usize,
    content_length: usize,
}

impl Draft {
    /// Begins a message with this protected header.
    ///
    /// # Errors
    /// [`CoseError::TooLong`] above [`MAX_ENVELOPE`], [`CoseError::Provider`] without randomness.
    pub fn new(
        protected: Vec<u8>,
        plaintext_length: usize,
        entropy: &dyn Entropy,
    ) -> Result<Self, CoseError> {
        let iv = random(entropy).map_err(|_| CoseError::Provider("no randomness"))?;
        let sealed_length = plaintext_length
            .checked_add(TAG_LENGTH)
            .filter(|length| *length <= MAX_ENVELOPE)
            .ok_or(CoseError::TooLong {
                length: plaintext_length,
                limit: MAX_ENVELOPE,
            })?;
        let mut message = prefix(&protected, &iv, sealed_length)?;
        let content_starts = message.len();
        message.reserve_exact(sealed_length);
        Ok(Self {
            message,
            protected,
            iv,
            content_starts,
            content_length: plaintext_length,
        })
    }

    /// The buffer to append the plaintext to.
    pub fn plaintext(&mut self) -> &mut Vec<u8> {
        &mut self.message
    }

    /// Encrypts in place. `external` is the additional data that both sides must already agree on.
    ///
    /// # Errors
    /// [`CoseError::Malformed`] if another number of bytes was appended than announced.
    pub fn seal(mut self, key: &SecretKey, external: &[u8]) -> Result<Vec<u8>, CoseError> {
        let aad = additional_data(&self.protected, external)?;
        let content = self
            .message
            .get_mut(self.content_starts..)
            .filter(|content| content.len() == self.content_length)
            .ok_or(CoseError::Malformed(
                "plaintext is not as long as announced",
            ))?;
        let tag = cipher(key)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(aad),
                content,
            )
            .map_err(|_| CoseError::Provider("encryption failed"))?;
        self.message.extend_from_slice(tag.as_ref());
        Ok(self.message)
    }
}

/// Checks the form of a message.
///
/// # Errors
/// [`CoseError::TooLong`] or [`CoseError::Malformed`].
pub fn parse(bytes: &[u8]) -> Result<Sealed, CoseError> {
    if bytes.len() > MAX_ENVELOPE {
        return Err(CoseError::TooLong {
            length: bytes.len(),
            limit: MAX_ENVELOPE,
        });
    }
    let shape = malformed("COSE_Encrypt0");
    let mut d = Decoder::new(bytes);
    let tag = d.tag().map_err(&shape)?;
    let items = d.array().map_err(&shape)?;
    let protected = d.bytes().map_err(&shape)?;
    let protected_range = span(d.position(), protected.len())?;
    let unprotected = d.map().map_err(&shape)?;
    let label = d.i64().map_err(&shape)?;
    let iv = d.bytes().map_err(&shape)?;
    let iv = iv
        .try_into()
        .map_err(|_| CoseError::Malformed("IV has another length"))?;
    let sealed = d.bytes().map_err(&shape)?;
    let ciphertext = span(d.position(), sealed.len())?;
    if (tag.as_u64(), items, unprotected, label) != (TAG, Some(3), Some(1), LABEL_IV)
        || sealed.len() < TAG_LENGTH
        || d.position() != bytes.len()
    {
        return Err(CoseError::Malformed("COSE_Encrypt0"));
    }
    // One message, one spelling: what we would have written before the ciphertext is what was sent.
    if bytes.get(..ciphertext.start) != Some(&prefix(protected, &iv, sealed.len())?) {
        return Err(CoseError::Malformed("not the deterministic encoding"));
    }
    Ok(Sealed {
        protected: protected_range,
        ciphertext,
        iv,
    })
}

impl Sealed {
    /// Opens the message in its own buffer and gives the plaintext's place in it: at an address that is a multiple of 64, if what
    /// comes before the ciphertext leaves room for that, and where the ciphertext was if not. Decryption writes there at once;
    /// whoever had to align the plaintext afterwards would copy all of it.
    ///
    /// # Errors
    /// [`CoseError::NotAuthentic`]; the buffer is then spoiled but holds no plaintext.
    pub fn open(
        &self,
        message: &mut [u8],
        key: &SecretKey,
        external: &[u8],
    ) -> Result<Range<usize>, CoseError> {
        let protected = message
            .get(self.protected.clone())
            .ok_or(CoseError::NotAuthentic)?;
        let aad = additional_data(protected, external)?;
        let back = self.back_to_aligned(message);
        let start = self.ciphertext.start.saturating_sub(back);
        let content = message
            .get_mut(start..self.ciphertext.end)
            .ok_or(CoseError::NotAuthentic)?;
        let plaintext = cipher(key)?
            .open_within(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(aad),
                content,
                back..,
            )
            .map_err(|_| CoseError::NotAuthentic)?;
        Ok(start..start.saturating_add(plaintext.len()))
    }

    /// How far before the ciphertext the next aligned address is; 0 if that is outside the message.
    fn back_to_aligned(&self, message: &[u8]) -> usize {
        let start = self.ciphertext.start;
        let address = message.as_ptr().addr().wrapping_add(start);
        let back = address.checked_rem(ALIGNMENT).unwrap_or(0);
        if back <= start { back } else { 0 }
    }

    /// What identifies this very message to whoever holds its key: protected header, IV and tag. The tag stands for the
    /// ciphertext, so that large requests need not be hashed as well.
    #[must_use]
    pub fn fingerprint<'a>(&self, message: &'a [u8]) -> Option<[&'a [u8]; 2]> {
        let tag_starts = self.ciphertext.end.checked_sub(TAG_LENGTH)?;
        Some([
            message.get(..self.ciphertext.start)?,
            message.get(tag_starts..self.ciphertext.end)?,
        ])
    }
}

fn span(end: usize, length: usize) -> Result<Range<usize>, CoseError> {
    end.checked_sub(length)
        .map(|start| start..end)
        .ok_or(CoseError::Malformed("COSE_Encrypt0"))
}

/// Everything of a message before the bytes of its ciphertext.
fn prefix(protected: &[u8], iv: &[u8; NONCE_LEN], sealed: usize) -> Result<Vec<u8>, CoseError> {
    let mut e = Encoder::new(Vec::new());
    e.tag(minicbor::data::Tag::new(TAG))
        .and_then(|e| e.array(3))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.map(1))
        .and_then(|e| e.i64(LABEL_IV)?.bytes(iv))
        .and_then(|e| e.bytes_len(sealed as u64))
        .map_err(infallible)?;
    Ok(e.into_writer())
}

/// `Enc_structure` of RFC 9052, section 5.3.
fn additional_data(protected: &[u8], external: &[u8]) -> Result<Vec<u8>, CoseError> {
    let mut e = Encoder::new(Vec::new());
    e.array(3)
        .and_then(|e| e.str("Encrypt0"))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.bytes(external))
        .map_err(infallible)?;
    Ok(e.into_writer())
}

fn cipher(key: &SecretKey) -> Result<LessSafeKey, CoseError> {
    UnboundKey::new(&AES_256_GCM, key.expose())
        .map(LessSafeKey::new)
        .map_err(|_| CoseError::Provider("key was not accepted"))
}

#[cfg(test)]
mod tests {
    use coset::TaggedCborSerializable as _;

    use super::*;
    use crate::entropy::SystemEntropy;

    fn seal(plaintext: &[u8], external: &[u8]) -> Vec<u8> {
        let mut draft = Draft::new(
            vec![0xa1, 0x01, 0x03],
            plaintext.len(),
            &SystemEntropy::new(),
        )
        .unwrap();
        draft.plaintext().extend_from_slice(plaintext);
        draft
            .seal(&SecretKey::from_bytes([3; 32]), external)
            .unwrap()
    }

    #[test]
    fn an_independent_cose_library_opens_what_we_seal() {
        let bytes = seal(b"plaintext", b"external");
        let message = coset::CoseEncrypt0::from_tagged_slice(&bytes).unwrap();
        let iv = message.unprotected.iv.clone();
        let plain = message
            .decrypt_ciphertext(
                b"external",
                || CoseError::Malformed("no ciphertext"),
                |ciphertext, aad| {
                    let mut buffer = ciphertext.to_vec();
                    let nonce = Nonce::try_assume_unique_for_key(&iv).unwrap();
                    cipher(&SecretKey::from_bytes([3; 32]))?
                        .open_in_place(nonce, Aad::from(aad), &mut buffer)
                        .map(|plain| plain.to_vec())
                        .map_err(|_| CoseError::NotAuthentic)
                },
            )
            .unwrap();
        assert_eq!(plain, b"plaintext");
    }

    #[test]
    fn wherever_a_message_lies_its_plaintext_is_left_whole_and_aligned() {
        let key = SecretKey::from_bytes([3; 32]);
        let plaintext: Vec<u8> = (0..2000_u32).map(|i| (i % 251) as u8).collect();
        let protected = vec![0x40; 100];
        for length in [0, 1, 15, 16, 17, 255, 256, 257, 1023, 2000] {
            let plaintext = &plaintext[..length];
            let mut draft = Draft::new(protected.clone(), length, &SystemEntropy::new()).unwrap();
            draft.plaintext().extend_from_slice(plaintext);
            let bytes = draft.seal(&key, b"external").unwrap();
            for shift in 0..ALIGNMENT {
                let mut buffer = vec![0; shift];
                buffer.extend_from_slice(&bytes);
                let message = &mut buffer[shift..];
                let place = parse(message).unwrap().open(message, &key, b"external");
                let found = &message[place.unwrap()];
                assert_eq!(found, plaintext, "of {length} bytes, {shift} further");
                assert!(found.as_ptr().addr().is_multiple_of(ALIGNMENT));
                // A change of any bit still shows, and leaves nothing to be read.
                let mut changed = bytes.clone();
                let last = changed.len() - 1;
                changed[last] ^= 1;
                let mut buffer = vec![0; shift];
                buffer.extend_from_slice(&changed);
                let message = &mut buffer[shift..];
                let opened = parse(message).unwrap().open(message, &key, b"external");
                assert_eq!(opened, Err(CoseError::NotAuthentic));
                let left = length > 2 && message.windows(length).any(|it| it == plaintext);
                assert!(!left, "of {length} bytes, {shift} further");
            }
        }
    }

    #[test]
    fn without_room_before_it_a_plaintext_stays_where_its_ciphertext_was() {
        let key = SecretKey::from_bytes([3; 32]);
        let bytes = seal(&[7; 100], b"external");
        for shift in 0..ALIGNMENT {
            let mut buffer = vec![0; shift];
            buffer.extend_from_slice(&bytes);
            let message = &mut buffer[shift..];
            let place = parse(message).unwrap().open(message, &key, b"external");
            assert_eq!(message[place.unwrap()], [7; 100]);
        }
    }

    #[test]
    fn other_additional_data_does_not_open() {
        let mut bytes = seal(b"plaintext", b"for alice");
        let sealed = parse(&bytes).unwrap();
        let opened = sealed.open(&mut bytes, &SecretKey::from_bytes([3; 32]), b"for bob");
        assert_eq!(opened, Err(CoseError::NotAuthentic));
    }

    #[test]
    fn ciphertexts_shorter_than_a_tag_are_refused() {
        for length in 0..TAG_LENGTH {
            let mut bytes = prefix(&[0xa1, 0x01, 0x03], &[0; 12], length).unwrap();
            bytes.extend(vec![0; length]);
            assert!(parse(&bytes).is_err());
        }
    }
}
