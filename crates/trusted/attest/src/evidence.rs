//! Evidence as it travels: a DCAP quote or an SEV-SNP report, alone or inside an RA-TLS certificate.
//!
//! Source: *Interoperable RA-TLS X.509 Cert and Evidence Formats* of the Confidential Computing Consortium's attestation
//! group. The certificate's extension 2.23.133.5.4.9 (TCG DICE) holds CBOR tag 60000 over `[evidence, claims]`; `claims` is a
//! CBOR map with `pubkey-hash`, and the evidence's report data is the SHA-256 of `claims`, then zeros.
//!
//! A quote travels as it is. A report needs the certificate of the chip that signed it beside it, so the two travel in a
//! small CBOR map (spec/evidence.md); its first byte is none that a quote begins with.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode, Encoder};
use sesemi_protocol::{Digest, cbor};
use x509_parser::der_parser::oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::code_identity::TeeKind;
use crate::snp;

/// CBOR tag for a TEE quote, registered at IANA for this format.
const TAG_TEE_QUOTE: u64 = 60000;
/// SHA-256 in the IANA Named Information registry (RFC 6920).
const HASH_SHA256: u8 = 1;
/// First bytes of CBOR maps with one entry and with two.
const CBOR_MAPS: [u8; 2] = [0xa1, 0xa2];
/// OID of the extension, as rcgen wants it.
pub(crate) const EXTENSION_OID: [u64; 6] = [2, 23, 133, 5, 4, 9];

/// Longest evidence that is looked at, in bytes. Real quotes have 4 to 8 kB, a report with its certificate 3 kB.
pub const MAX_EVIDENCE: usize = 16 * 1024;
/// Longest certificate that is looked at, in bytes.
pub const MAX_CERTIFICATE: usize = 32 * 1024;
/// Length of an SEV-SNP report, in bytes.
pub const SNP_REPORT: usize = snp::REPORT_LEN;
/// Longest certificate of a chip that is looked at, in bytes. Real ones have 1.3 kB.
pub const MAX_VCEK: usize = snp::MAX_CERTIFICATE;

/// Evidence, unverified: what it is about was read from its head, nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    tee: TeeKind,
    bytes: Vec<u8>,
}

/// An SEV-SNP report as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct SnpEvidence {
    /// The report as the processor wrote it, [`SNP_REPORT`] bytes.
    #[n(0)]
    pub(crate) report: ByteVec,
    /// The certificate (VCEK) of the chip that signed it, in DER, where the platform handed it out; else the verifier's
    /// endorsements must have it.
    #[n(1)]
    pub(crate) vcek: Option<ByteVec>,
}

/// Why bytes are not evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Longer than any real evidence.
    #[error("evidence or certificate is longer than {0} bytes")]
    TooLong(usize),
    /// Neither a DCAP quote nor an SEV-SNP report.
    #[error(
        "this is no evidence of a kind that is known here: neither an SGX or TDX quote nor an SEV-SNP report"
    )]
    Unknown,
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
    /// Takes evidence as it travels and reads from its head which TEE it claims to be of.
    ///
    /// # Errors
    /// [`EvidenceError::TooLong`] above [`MAX_EVIDENCE`], [`EvidenceError::Unknown`] if it is of no known kind.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, EvidenceError> {
        if bytes.len() > MAX_EVIDENCE {
            return Err(EvidenceError::TooLong(MAX_EVIDENCE));
        }
        let tee = match bytes.as_slice() {
            // The head of a quote: version, type of the attestation key, type of the TEE, all little-endian.
            [3, 0, _, _, 0, 0, 0, 0, ..] => TeeKind::Sgx,
            [4 | 5, 0, _, _, 0x81, 0, 0, 0, ..] => TeeKind::Tdx,
            [first, ..] if CBOR_MAPS.contains(first) && read_snp(&bytes).is_ok() => TeeKind::Snp,
            _ => return Err(EvidenceError::Unknown),
        };
        Ok(Self { tee, bytes })
    }

    /// Puts an SEV-SNP report and, if the platform handed it out, the certificate of its chip together.
    ///
    /// # Errors
    /// [`EvidenceError::Unknown`] if the report has another length than [`SNP_REPORT`]; [`EvidenceError::TooLong`] for
    /// a certificate above [`MAX_VCEK`].
    pub fn from_snp(report: &[u8], vcek: Option<&[u8]>) -> Result<Self, EvidenceError> {
        if vcek.is_some_and(|vcek| vcek.len() > MAX_VCEK) {
            return Err(EvidenceError::TooLong(MAX_VCEK));
        }
        let evidence = SnpEvidence {
            report: report.to_vec().into(),
            vcek: vcek.map(|vcek| vcek.to_vec().into()),
        };
        let bytes = cbor::encode(&evidence).map_err(|_| EvidenceError::Unknown)?;
        Self::from_bytes(bytes.to_vec())
    }

    /// The TEE that it claims to be of.
    #[must_use]
    pub fn tee(&self) -> TeeKind {
        self.tee
    }

    /// The bytes as they travel: a raw quote for SGX and TDX.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The report, neither verified nor judged, if this is SEV-SNP evidence: it says which chip's certificate to ask AMD for.
    ///
    /// # Errors
    /// [`SnpError`](snp::SnpError) if it is of no known version, or no report at all.
    pub fn snp_report(&self) -> Result<snp::SnpReport, snp::SnpError> {
        let no_report = |_| snp::SnpError::ReportLength(self.bytes.len());
        let evidence = self.snp().map_err(no_report)?;
        snp::SnpReport::parse(&evidence.report)
    }

    /// The report and the certificate, if this is SEV-SNP evidence.
    pub(crate) fn snp(&self) -> Result<SnpEvidence, EvidenceError> {
        read_snp(&self.bytes)
    }

    /// The content of the certificate extension, for a certificate with this public key.
    pub(crate) fn to_extension(&self, public_key: &Digest) -> Result<Vec<u8>, EvidenceError> {
        let claims = key_claims(public_key)?;
        let mut e = Encoder::new(Vec::new());
        e.tag(minicbor::data::Tag::new(TAG_TEE_QUOTE))
            .and_then(|e| e.array(2))
            .and_then(|e| e.bytes(&self.bytes))
            .and_then(|e| e.bytes(&claims))
            .map_err(|_| EvidenceError::Extension)?;
        Ok(e.into_writer())
    }
}

/// What an RA-TLS certificate says, before anything of it is verified.
#[derive(Debug, Clone)]
pub struct CertificateEvidence {
    /// The evidence it carries.
    pub evidence: Evidence,
    /// What the evidence's report data must be.
    pub report_data: [u8; 64],
}

/// Reads the evidence out of a certificate in DER and checks that it is meant for the certificate's key. Cheap checks only:
/// nothing of it is verified.
///
/// # Errors
/// [`EvidenceError`]: the certificate or its extension is malformed or too long, the extension is missing, or the evidence
/// is for another key.
pub fn from_certificate(der: &[u8]) -> Result<CertificateEvidence, EvidenceError> {
    let certificate = parse_certificate(der)?;
    let public_key = Digest::of(certificate.public_key().raw);
    let extension = certificate
        .get_extension_unique(&oid!(2.23.133.5.4.9))
        .map_err(|_| EvidenceError::Certificate)?
        .ok_or(EvidenceError::Missing)?;
    let (evidence, claims) = parse_extension(extension.value)?;
    if claims != key_claims(&public_key)? {
        return Err(EvidenceError::OtherKey);
    }
    Ok(CertificateEvidence {
        evidence: Evidence::from_bytes(evidence.to_vec())?,
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

fn read_snp(bytes: &[u8]) -> Result<SnpEvidence, EvidenceError> {
    let evidence: SnpEvidence =
        cbor::decode(bytes, MAX_EVIDENCE).map_err(|_| EvidenceError::Unknown)?;
    let vcek = evidence.vcek.as_ref().map_or(0, |vcek| vcek.len());
    if evidence.report.len() != SNP_REPORT || vcek > MAX_VCEK {
        return Err(EvidenceError::Unknown);
    }
    Ok(evidence)
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
        Ok((TAG_TEE_QUOTE, Some(2), evidence, claims))
            if d.position() == value.len() && evidence.len() <= MAX_EVIDENCE =>
        {
            Ok((evidence, claims))
        }
        _ => Err(EvidenceError::Extension),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a quote of this version for this TEE, and nothing after it.
    fn head(version: u8, tee: u8) -> Vec<u8> {
        vec![version, 0, 2, 0, tee, 0, 0, 0]
    }

    #[test]
    fn evidence_and_certificates_above_their_limits_are_refused_unread() {
        let mut long = head(3, 0);
        long.resize(MAX_EVIDENCE + 1, 0);
        assert_eq!(
            Evidence::from_bytes(long),
            Err(EvidenceError::TooLong(MAX_EVIDENCE))
        );
        assert_eq!(
            from_certificate(&vec![0x30; MAX_CERTIFICATE + 1]).unwrap_err(),
            EvidenceError::TooLong(MAX_CERTIFICATE)
        );
        assert_eq!(
            Evidence::from_snp(&[0; SNP_REPORT], Some(&vec![0; MAX_VCEK + 1])),
            Err(EvidenceError::TooLong(MAX_VCEK))
        );
    }

    #[test]
    fn the_kind_of_evidence_is_read_from_its_head() {
        for (bytes, tee) in [
            (head(3, 0), TeeKind::Sgx),
            (head(4, 0x81), TeeKind::Tdx),
            (head(5, 0x81), TeeKind::Tdx),
        ] {
            assert_eq!(Evidence::from_bytes(bytes).unwrap().tee(), tee);
        }
        for bytes in [
            vec![],
            vec![3],
            head(2, 0),
            head(3, 0x81),
            head(4, 0),
            head(6, 0x81),
            vec![0xa2; 40],
        ] {
            assert_eq!(
                Evidence::from_bytes(bytes.clone()),
                Err(EvidenceError::Unknown),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn a_report_travels_with_its_certificate_or_without() {
        let report = vec![7; SNP_REPORT];
        for vcek in [None, Some(&[1, 2, 3][..])] {
            let evidence = Evidence::from_snp(&report, vcek).unwrap();
            assert_eq!(evidence.tee(), TeeKind::Snp);
            let again = Evidence::from_bytes(evidence.as_bytes().to_vec()).unwrap();
            let parts = again.snp().unwrap();
            assert_eq!(parts.report.as_slice(), report);
            assert_eq!(parts.vcek.as_ref().map(|vcek| vcek.as_slice()), vcek);
        }
        for length in [0, SNP_REPORT - 1, SNP_REPORT + 1] {
            assert_eq!(
                Evidence::from_snp(&vec![7; length], None),
                Err(EvidenceError::Unknown)
            );
        }
    }

    #[test]
    fn an_extension_of_another_form_is_refused() {
        let key = Digest([1; 32]);
        let evidence = Evidence::from_bytes(head(3, 0)).unwrap();
        let genuine = evidence.to_extension(&key).unwrap();
        let (found, claims) = parse_extension(&genuine).unwrap();
        assert_eq!(found, evidence.as_bytes());
        assert_eq!(claims, key_claims(&key).unwrap());
        let longer = [&genuine[..], &[0]].concat();
        let untagged = genuine[3..].to_vec();
        for wrong in [&[][..], &longer, &untagged, &genuine[..genuine.len() - 1]] {
            assert_eq!(parse_extension(wrong), Err(EvidenceError::Extension));
        }
    }
}
