//! Verification of evidence: cryptography and platform status only. Whether the code is the right code is for the
//! [policy](crate::policy) to say.

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::policy::QuotePolicy;
use dcap_qvl::quote::{EnclaveReport, Report};
use dcap_qvl::verify::QuoteVerifier;
use sesemi_protocol::{CodeIdentityDigest, Digest};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::code_identity::{CodeIdentity, SgxMeasurement, TrustDomain};
use crate::evidence::Evidence;

/// Longest set of endorsements that is read, in bytes.
pub const MAX_ENDORSEMENTS: usize = 512 * 1024;
/// Intel's SGX Root CA; see roots/README.md for where it is from.
const INTEL_ROOT: &[u8] = include_bytes!("../roots/intel-sgx-root-ca.der");
/// Longest root certificate that is read, in bytes.
const MAX_ROOT: usize = 8 * 1024;

/// Why evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A link of the chain from root to quote does not hold; the text says which.
    #[error("the evidence does not verify: {0}")]
    Evidence(String),
    /// It verifies, but is not about what it should be bound to: replayed, relayed or reflected.
    #[error("the evidence is not bound to this connection")]
    NotBound,
    /// A kind of TEE that this verifier does not appraise.
    #[error("evidence of this kind of TEE is not accepted here")]
    OtherTee,
    /// The trust anchor is no certificate.
    #[error("the trust anchor is not a DER certificate of at most {MAX_ROOT} bytes")]
    Anchor,
    /// The endorsements do not parse.
    #[error("the endorsements are malformed: {0}")]
    Endorsements(String),
}

/// The root that evidence must chain to. There is no default: whoever verifies names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    root_der: Vec<u8>,
    domain: TrustDomain,
    simulated: bool,
}

impl TrustAnchor {
    /// Intel's production root for SGX and TDX, built in.
    ///
    /// # Errors
    /// [`VerifyError::Anchor`] never in practice; a test reads it.
    pub fn intel() -> Result<Self, VerifyError> {
        Self::new(INTEL_ROOT.to_vec(), false)
    }

    /// The root of one simulated platform, which whoever trusts it must name. It protects nothing.
    ///
    /// # Errors
    /// [`VerifyError::Anchor`] if this is no certificate.
    pub fn simulated(root_der: Vec<u8>) -> Result<Self, VerifyError> {
        Self::new(root_der, true)
    }

    fn new(root_der: Vec<u8>, simulated: bool) -> Result<Self, VerifyError> {
        if root_der.len() > MAX_ROOT {
            return Err(VerifyError::Anchor);
        }
        let Ok(([], root)) = X509Certificate::from_der(&root_der) else {
            return Err(VerifyError::Anchor);
        };
        let domain = TrustDomain(Digest::of(root.public_key().raw));
        Ok(Self {
            root_der,
            domain,
            simulated,
        })
    }

    /// The trust domain of whatever verifies under this root.
    #[must_use]
    pub fn domain(&self) -> TrustDomain {
        self.domain
    }

    /// Whether this is a simulator's root. Reports and measurements must say so.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.simulated
    }
}

/// What the TEE's maker publishes about its platforms: certificates, revocations, TCB levels. Signed, so it may come from
/// anywhere.
#[derive(Debug, Clone)]
pub struct Endorsements(QuoteCollateralV3);

impl Endorsements {
    /// Reads endorsements as JSON.
    ///
    /// # Errors
    /// [`VerifyError::Endorsements`] if too long or malformed.
    pub fn from_json(bytes: &[u8]) -> Result<Self, VerifyError> {
        if bytes.len() > MAX_ENDORSEMENTS {
            return Err(VerifyError::Endorsements(format!(
                "longer than {MAX_ENDORSEMENTS} bytes"
            )));
        }
        serde_json::from_slice(bytes)
            .map(Self)
            .map_err(|e| VerifyError::Endorsements(e.to_string()))
    }
}

/// What verified evidence says. Only a verifier makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Digest of the code identity: what policies and grants compare.
    pub code: CodeIdentityDigest,
    /// The code identity in full.
    pub identity: CodeIdentity,
    /// The platform's provisioning id, which tells one processor from another.
    pub platform: Vec<u8>,
    /// Whether the root was a simulator's.
    pub simulated: bool,
}

/// Verifies evidence against one trust anchor, strictly: current TCB, no advisories waived, no debug.
#[derive(Debug, Clone)]
pub struct EvidenceVerifier {
    anchor: TrustAnchor,
    endorsements: Endorsements,
}

impl EvidenceVerifier {
    /// Verifies against `anchor` with these endorsements.
    #[must_use]
    pub fn new(anchor: TrustAnchor, endorsements: Endorsements) -> Self {
        Self {
            anchor,
            endorsements,
        }
    }

    /// The root in use.
    #[must_use]
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// Verifies evidence at the time `now` (seconds since 1970) and that its report data is `bound_to`.
    ///
    /// # Errors
    /// [`VerifyError`], which names the link that failed.
    pub fn verify(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
        now: u64,
    ) -> Result<Claims, VerifyError> {
        let verifier = QuoteVerifier::new(self.anchor.root_der.clone());
        let verified = verifier
            .verify_with_policy(
                evidence.quote(),
                self.endorsements.0.clone(),
                now,
                &QuotePolicy::strict(now),
            )
            .map_err(|e| VerifyError::Evidence(format!("{e:#}")))?;
        // The library's strict policy leaves advisories to its caller.
        if !verified.tcb.advisory_ids.is_empty() {
            return Err(VerifyError::Evidence(format!(
                "the platform has open advisories: {}",
                verified.tcb.advisory_ids.join(", ")
            )));
        }
        let Report::SgxEnclave(report) = verified.report else {
            return Err(VerifyError::OtherTee);
        };
        // Not secret, and the peer chose it: an ordinary comparison will do.
        if report.report_data != *bound_to {
            return Err(VerifyError::NotBound);
        }
        let identity = sgx_identity(self.anchor.domain(), &report)?;
        Ok(Claims {
            code: identity
                .digest()
                .map_err(|e| VerifyError::Evidence(e.to_string()))?,
            identity,
            platform: verified.platform.pck.ppid,
            simulated: self.anchor.is_simulated(),
        })
    }
}

/// Bit 1 of ATTRIBUTES.FLAGS (Intel SDM, volume 3D, SECS.ATTRIBUTES): the enclave may be debugged.
const ATTRIBUTE_DEBUG: u8 = 0x02;

fn sgx_identity(domain: TrustDomain, report: &EnclaveReport) -> Result<CodeIdentity, VerifyError> {
    // dcap-qvl refuses debug enclaves too; this one line is too important to be somebody else's alone.
    let [flags, ..] = report.attributes;
    if flags & ATTRIBUTE_DEBUG != 0 {
        return Err(VerifyError::Evidence("the enclave may be debugged".into()));
    }
    // CONFIGID stands at offset 192 of the report body, 32 bytes into what the library calls reserved3.
    let config_id = report
        .reserved3
        .last_chunk::<64>()
        .ok_or_else(|| VerifyError::Evidence("report body".into()))?;
    Ok(CodeIdentity::sgx(
        domain,
        &SgxMeasurement {
            mr_enclave: report.mr_enclave,
            mr_signer: report.mr_signer,
            isv_prod_id: report.isv_prod_id,
            isv_svn: report.isv_svn,
            config_id: *config_id,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_root_is_intels() {
        let anchor = TrustAnchor::intel().unwrap();
        assert!(!anchor.is_simulated());
        assert_eq!(
            Digest::of(&anchor.root_der).to_string(),
            "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
        );
    }

    #[test]
    fn what_is_no_certificate_is_no_anchor() {
        assert_eq!(TrustAnchor::simulated(vec![]), Err(VerifyError::Anchor));
        assert_eq!(
            TrustAnchor::simulated(vec![0; 10_000]),
            Err(VerifyError::Anchor)
        );
    }

    #[test]
    fn endorsements_are_measured_before_they_are_read() {
        assert!(Endorsements::from_json(&vec![b' '; MAX_ENDORSEMENTS + 1]).is_err());
        assert!(Endorsements::from_json(b"{}").is_err());
    }
}
