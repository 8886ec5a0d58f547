//! Evidence as it travels: a quote, alone or inside an RA-TLS certificate.
//!
//! Source: *Interoperable RA-TLS X.509 Cert and Evidence Formats* of the Confidential Computing Consortium's attestation
//! group. The certificate's extension 2.23.133.5.4.9 (TCG DICE) holds CBOR tag 60000 over `[quote, claims]`; `claims` is a
//! CBOR map with `pubkey-hash`, and the quote's report data is the SHA-256 of `claims`, then zeros.

use minicbor::{Decoder, Encoder};
use sesemi_protocol::Digest;
use x509_parser::der_parser::oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// CBOR tag for a TEE quote, registered at IANA for this format.
const TAG_TEE_QUOTE: u64 = 60000;
/// SHA-256 in the IANA Named Information registry (RFC 6920).
const HASH_SHA256: u8 = 1;
/// OID of the extension, as rcgen wants it.
pub(crate) const EXTENSION_OID: [u64; 6] = [2, 23, 133, 5, 4, 9];

/// Longest quote that is looked at, in bytes. Real ones have 4 to 6 kB.
pub const MAX_QUOTE: usize = 16 * 1024;
/// Longest certificate that is looked at, in bytes.
pub const MAX_CERTIFICATE: usize = 32 * 1024;

/// Evidence: an SGX quote in DCAP format, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    quote: Vec<u8>,
}

/// Why bytes are not evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Longer than any real evidence.
    #[error("evidence or certificate is longer than {0} bytes")]
    TooLong(usize),
    /// The certificate does not parse.
    #[error("the certificate is malformed")]
    Certificate,
    /// The certificate carries no evidence.
    #[error("the certificate carries no evidence (extension 2.23.133.5.4.9)")]
    Missing,
    /// The extension is not of the expected form.
    #[error("the certificate's evidence extension is malformed")]
    Extension,
    /// The evidence is for another public key than the certificate's.
    #[error("the evidence is for another public key than the certificate's")]
    OtherKey,
}

impl Evidence {
    /// Takes a quote, unverified.
    ///
    /// # Errors
    /// [`EvidenceError::TooLong`] above [`MAX_QUOTE`].
    pub fn from_quote(quote: Vec<u8>) -> Result<Self, EvidenceError> {
        if quote.len() > MAX_QUOTE {
            return Err(EvidenceError::TooLong(MAX_QUOTE));
        }
        Ok(Self { quote })
    }

    /// The raw quote.
    #[must_use]
    pub fn quote(&self) -> &[u8] {
        &self.quote
    }

    /// The content of the certificate extension, for a certificate with this public key.
    pub(crate) fn to_extension(&self, public_key: &Digest) -> Result<Vec<u8>, EvidenceError> {
        let claims = key_claims(public_key)?;
        let mut e = Encoder::new(Vec::new());
        e.tag(minicbor::data::Tag::new(TAG_TEE_QUOTE))
            .and_then(|e| e.array(2))
            .and_then(|e| e.bytes(&self.quote))
            .and_then(|e| e.bytes(&claims))
            .map_err(|_| EvidenceError::Extension)?;
        Ok(e.into_writer())
    }
}

/// What an RA-TLS certificate says, before anything of it is verified.
#[derive(Debug, Clone)]
pub(crate) struct CertificateEvidence {
    /// The evidence it carries.
    pub(crate) evidence: Evidence,
    /// What the evidence's report data must be.
    pub(crate) report_data: [u8; 64],
}

/// Reads the evidence out of a certificate and checks that it is meant for the certificate's key. Cheap checks only.
pub(crate) fn from_certificate(der: &[u8]) -> Result<CertificateEvidence, EvidenceError> {
    let certificate = parse_certificate(der)?;
    let public_key = Digest::of(certificate.public_key().raw);
    let extension = certificate
        .get_extension_unique(&oid!(2.23.133.5.4.9))
        .map_err(|_| EvidenceError::Certificate)?
        .ok_or(EvidenceError::Missing)?;
    let (quote, claims) = parse_extension(extension.value)?;
    if claims != key_claims(&public_key)? {
        return Err(EvidenceError::OtherKey);
    }
    Ok(CertificateEvidence {
        evidence: Evidence::from_quote(quote.to_vec())?,
        report_data: certificate_report_data(&public_key)?,
    })
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo.
pub(crate) fn certificate_key(der: &[u8]) -> Result<Digest, EvidenceError> {
    Ok(Digest::of(parse_certificate(der)?.public_key().raw))
}

/// Report data of the evidence in a certificate with this public key.
pub(crate) fn certificate_report_data(public_key: &Digest) -> Result<[u8; 64], EvidenceError> {
    let digest = Digest::of(&key_claims(public_key)?);
    let mut data = [0; 64];
    for (to, from) in data.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    Ok(data)
}

fn parse_certificate(der: &[u8]) -> Result<X509Certificate<'_>, EvidenceError> {
    if der.len() > MAX_CERTIFICATE {
        return Err(EvidenceError::TooLong(MAX_CERTIFICATE));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(EvidenceError::Certificate),
    }
}

/// The claims buffer: `{"pubkey-hash": << [1, SHA-256 of the public key] >>}`.
fn key_claims(public_key: &Digest) -> Result<Vec<u8>, EvidenceError> {
    let mut hash = Encoder::new(Vec::new());
    hash.array(2)
        .and_then(|e| e.u8(HASH_SHA256))
        .and_then(|e| e.bytes(public_key.as_bytes()))
        .map_err(|_| EvidenceError::Extension)?;
    let mut e = Encoder::new(Vec::new());
    e.map(1)
        .and_then(|e| e.str("pubkey-hash"))
        .and_then(|e| e.bytes(&hash.into_writer()))
        .map_err(|_| EvidenceError::Extension)?;
    Ok(e.into_writer())
}

fn parse_extension(value: &[u8]) -> Result<(&[u8], &[u8]), EvidenceError> {
    let mut d = Decoder::new(value);
    let parsed = (|| {
        let tag = d.tag()?;
        let items = d.array()?;
        Ok::<_, minicbor::decode::Error>((tag.as_u64(), items, d.bytes()?, d.bytes()?))
    })();
    match parsed {
        Ok((TAG_TEE_QUOTE, Some(2), quote, claims)) if d.position() == value.len() => {
            Ok((quote, claims))
        }
        _ => Err(EvidenceError::Extension),
    }
}
