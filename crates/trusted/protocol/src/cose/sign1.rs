//! `COSE_Sign1` with Ed25519 (RFC 9052, section 4.2; RFC 9053, section 2.2).
//!
//! The protected header is `{alg: EdDSA, kid: SHA-256 of the public key}`, the unprotected one is empty, and the external
//! additional data is a label for the kind of message, so that a signature over one kind can never pass for another.

use minicbor::{Decoder, Encoder};
use zeroize::Zeroizing;

use super::{ALG_EDDSA, CoseError, LABEL_ALG, LABEL_KID, infallible, malformed};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::limits::MAX_SIGNED;

/// CBOR tag of `COSE_Sign1`.
const TAG: u64 = 18;
/// More than all that is written around a payload: its buffer then never grows, and leaves no copy of a key behind.
const AROUND: usize = 256;

/// A message whose form was checked and whose signature was not: good only for finding the signer's key.
#[derive(Debug, Clone, Copy)]
pub struct Unverified<'a> {
    kid: [u8; 32],
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
}

/// Signs `payload` as a message of the kind `label`.
///
/// # Errors
/// [`CoseError::TooLong`] above [`MAX_SIGNED`].
pub fn sign(identity: &SigningIdentity, label: &str, payload: &[u8]) -> Result<Vec<u8>, CoseError> {
    let protected = protected_header(&identity.public().key_id())?;
    let signature = identity.sign(&signature_structure(&protected, label, payload)?);
    let mut e = Encoder::new(Vec::with_capacity(payload.len().saturating_add(AROUND)));
    e.tag(minicbor::data::Tag::new(TAG))
        .and_then(|e| e.array(4))
        .and_then(|e| e.bytes(&protected))
        .and_then(|e| e.map(0))
        .and_then(|e| e.bytes(payload))
        .and_then(|e| e.bytes(&signature))
        .map_err(infallible)?;
    let out = e.into_writer();
    check_length(&out)?;
    Ok(out)
}

/// Checks the form of a message.
///
/// # Errors
/// [`CoseError::TooLong`] or [`CoseError::Malformed`].
pub fn parse(bytes: &[u8]) -> Result<Unverified<'_>, CoseError> {
    check_length(bytes)?;
    let shape = malformed("COSE_Sign1");
    let mut d = Decoder::new(bytes);
    let tag = d.tag().map_err(&shape)?;
    let items = d.array().map_err(&shape)?;
    let protected = d.bytes().map_err(&shape)?;
    let unprotected = d.map().map_err(&shape)?;
    let payload = d.bytes().map_err(&shape)?;
    let signature = d.bytes().map_err(&shape)?;
    let kid = parse_protected(protected)?;
    if tag.as_u64() != TAG || items != Some(4) || unprotected != Some(0) {
        return Err(CoseError::Malformed("COSE_Sign1"));
    }
    // One message, one spelling: what we would have written is what was sent.
    let mut again = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_add(AROUND)));
    let mut e = Encoder::new(&mut *again);
    e.tag(minicbor::data::Tag::new(TAG))
        .and_then(|e| e.array(4))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.map(0))
        .and_then(|e| e.bytes(payload))
        .and_then(|e| e.bytes(signature))
        .map_err(infallible)?;
    if again.as_slice() != bytes {
        return Err(CoseError::Malformed("not the deterministic encoding"));
    }
    Ok(Unverified {
        kid,
        protected,
        payload,
        signature,
    })
}

impl<'a> Unverified<'a> {
    /// The SHA-256 of the key that the message claims to be signed with.
    #[must_use]
    pub fn claimed_signer(&self) -> [u8; 32] {
        self.kid
    }

    /// The payload, before verification: only for finding a key that the payload itself introduces.
    #[must_use]
    pub fn unverified_payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload, once the signature by `signer` over this kind of message is verified.
    ///
    /// # Errors
    /// [`CoseError::NotAuthentic`].
    pub fn verify(&self, signer: &PublicIdentity, label: &str) -> Result<&'a [u8], CoseError> {
        if signer.key_id() != self.kid {
            return Err(CoseError::NotAuthentic);
        }
        let structure = signature_structure(self.protected, label, self.payload)?;
        signer.verify(&structure, self.signature)?;
        Ok(self.payload)
    }
}

fn check_length(bytes: &[u8]) -> Result<(), CoseError> {
    if bytes.len() > MAX_SIGNED {
        return Err(CoseError::TooLong {
            length: bytes.len(),
            limit: MAX_SIGNED,
        });
    }
    Ok(())
}

fn protected_header(kid: &[u8; 32]) -> Result<Vec<u8>, CoseError> {
    let mut e = Encoder::new(Vec::new());
    e.map(2)
        .and_then(|e| e.i64(LABEL_ALG)?.i64(ALG_EDDSA))
        .and_then(|e| e.i64(LABEL_KID)?.bytes(kid))
        .map_err(infallible)?;
    Ok(e.into_writer())
}

fn parse_protected(bytes: &[u8]) -> Result<[u8; 32], CoseError> {
    let shape = malformed("COSE_Sign1 protected header");
    let mut d = Decoder::new(bytes);
    let entries = d.map().map_err(&shape)?;
    let alg = (d.i64().map_err(&shape)?, d.i64().map_err(&shape)?);
    let label = d.i64().map_err(&shape)?;
    let kid = d.bytes().map_err(&shape)?;
    let kid: [u8; 32] = kid
        .try_into()
        .map_err(|_| CoseError::Malformed("key id has another length"))?;
    let expected = (Some(2), (LABEL_ALG, ALG_EDDSA), LABEL_KID);
    if (entries, alg, label) != expected || protected_header(&kid)? != bytes {
        return Err(CoseError::Malformed("COSE_Sign1 protected header"));
    }
    Ok(kid)
}

/// `Sig_structure` of RFC 9052, section 4.4.
fn signature_structure(
    protected: &[u8],
    label: &str,
    payload: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CoseError> {
    let length = payload.len().saturating_add(AROUND);
    let mut structure = Zeroizing::new(Vec::with_capacity(length));
    let mut e = Encoder::new(&mut *structure);
    e.array(4)
        .and_then(|e| e.str("Signature1"))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.bytes(label.as_bytes()))
        .and_then(|e| e.bytes(payload))
        .map_err(infallible)?;
    Ok(structure)
}

#[cfg(test)]
mod tests {
    use coset::{CborSerializable as _, TaggedCborSerializable as _};
    use proptest::prelude::*;

    use super::*;

    fn identity() -> SigningIdentity {
        SigningIdentity::from_seed(crate::SecretKey::from_bytes([7; 32])).unwrap()
    }

    #[test]
    fn an_independent_cose_library_reads_and_verifies_what_we_sign() {
        let bytes = sign(&identity(), "test", b"payload").unwrap();
        let message = coset::CoseSign1::from_tagged_slice(&bytes).unwrap();
        let structure = message.tbs_data(b"test");
        identity()
            .public()
            .verify(&structure, &message.signature)
            .unwrap();
        assert_eq!(message.payload.as_deref(), Some(&b"payload"[..]));
        assert!(message.to_vec().is_ok());
    }

    #[test]
    fn a_signature_over_one_kind_of_message_does_not_pass_for_another() {
        let bytes = sign(&identity(), "command", b"payload").unwrap();
        let parsed = parse(&bytes).unwrap();
        assert_eq!(
            parsed.verify(identity().public(), "receipt"),
            Err(CoseError::NotAuthentic)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn every_flipped_bit_and_every_truncation_is_refused(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = sign(&identity(), "test", &payload).unwrap();
            let verify = |bytes: &[u8]| parse(bytes).and_then(|m| m.verify(identity().public(), "test").map(<[u8]>::to_vec));
            prop_assert_eq!(verify(&bytes), Ok(payload));
            for length in 0..bytes.len() {
                prop_assert!(verify(&bytes[..length]).is_err());
            }
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(verify(&changed).is_err(), "bit {}", bit);
            }
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
