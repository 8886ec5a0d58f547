//! Verification of evidence: cryptography only. It tells what is *true* of an attester: which code it runs, on which platform,
//! in what state that platform is. Whether that is *good enough* is for the [policy](crate::policy) to say, and nobody gets
//! the claims without asking one.
//!
//! Cheap checks come before expensive ones: what the evidence is bound to is compared before a signature is looked at.

mod anchor;
mod dcap;
mod endorsements;
mod known_platform;
mod snp;

use std::sync::{Arc, PoisonError, RwLock};

use dcap_qvl::QuoteClaims;
use sesemi_protocol::{CodeIdentityDigest, Digest};

use crate::code_identity::{CodeIdentity, TeeKind};
use crate::evidence::{Evidence, EvidenceError};
use crate::freshness::{FreshnessFloor, Stale};
use crate::policy::AppraisalPolicy;
use crate::snp::{Product, SnpError, TcbVersion};

use known_platform::KnownPlatforms;

pub use anchor::TrustAnchor;
pub use endorsements::{Endorsements, MAX_ENDORSEMENTS};

/// Why evidence was refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A link of the chain from root to quote does not hold; the text says which.
    #[error("the evidence does not verify: {0}")]
    Evidence(String),
    /// A link of the chain from root to SEV-SNP report does not hold.
    #[error("the evidence does not verify: {0}")]
    Snp(#[from] SnpError),
    /// The evidence is malformed.
    #[error(transparent)]
    Malformed(#[from] EvidenceError),
    /// The host may read or change the TEE's memory.
    #[error("the TEE is in debug mode: its host can read everything in it")]
    Debug,
    /// The enclave may do what none of our programs needs.
    #[error("the enclave has the attribute {0}, which no program of SeSeMI needs")]
    Attribute(&'static str),
    /// It is not about what it should be bound to: replayed, relayed or reflected.
    #[error("the evidence is not bound to this connection")]
    NotBound,
    /// Evidence of a kind whose root is not believed here.
    #[error("no trust anchor for evidence of {} is configured", .0.as_str())]
    OtherTee(TeeKind),
    /// The chip's certificate names no issuer that is believed here.
    #[error(
        "the chip's certificate was issued by none of AMD's product authorities that are known here"
    )]
    UnknownIssuer,
    /// There are no endorsements for such a platform.
    #[error("there are no endorsements for this {} platform: fetch them from its maker", .0.as_str())]
    NoEndorsements(TeeKind),
    /// Endorsements that are older than those seen before.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The trust anchor is no certificate.
    #[error(
        "the trust anchor is not a DER certificate of at most {} bytes",
        anchor::MAX_ROOT
    )]
    Anchor,
    /// The endorsements do not parse.
    #[error("the endorsements are malformed: {0}")]
    Endorsements(String),
}

/// What verified evidence says. Only [`AppraisalPolicy::appraise`] gives it away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Digest of the code identity: what policies and grants compare.
    pub code: CodeIdentityDigest,
    /// The code identity in full.
    pub identity: CodeIdentity,
    /// What tells one processor from another: the PPID for SGX and TDX (16 bytes), the chip id for SEV-SNP (64 bytes).
    pub platform: Vec<u8>,
    /// Whether the root was a simulator's.
    pub simulated: bool,
    /// SHA-256 of the evidence: what an audit names it by.
    pub evidence: Digest,
}

/// Evidence whose cryptography holds and that is bound to what it should be. Not yet good enough for anything.
#[derive(Debug, Clone)]
#[must_use = "verified evidence means nothing until a policy appraised it"]
pub struct VerifiedEvidence {
    pub(crate) claims: Claims,
    pub(crate) platform: Platform,
}

/// In what state the platform is, by its maker's word.
#[derive(Debug, Clone)]
pub(crate) enum Platform {
    Dcap(Box<QuoteClaims>),
    Snp {
        product: Product,
        /// The firmware that vouches for the report, and that in place when the guest was launched.
        tcbs: [TcbVersion; 2],
    },
}

/// What evidence says before anything of it is verified: good for refusing early, for nothing else.
pub(crate) struct Unverified {
    pub(crate) report_data: [u8; 64],
    pub(crate) identity: CodeIdentity,
}

/// Verifies evidence. Clones share endorsements and freshness.
#[derive(Debug, Clone)]
pub struct EvidenceVerifier {
    anchor: Arc<TrustAnchor>,
    endorsements: Arc<RwLock<Arc<Endorsements>>>,
    floor: Arc<FreshnessFloor>,
    known: Arc<KnownPlatforms>,
}

impl EvidenceVerifier {
    /// Verifies against `anchor` with these endorsements.
    #[must_use]
    pub fn new(anchor: TrustAnchor, endorsements: Endorsements) -> Self {
        Self {
            anchor: Arc::new(anchor),
            endorsements: Arc::new(RwLock::new(Arc::new(endorsements))),
            floor: Arc::default(),
            known: Arc::default(),
        }
    }

    /// The roots in use.
    #[must_use]
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// The least fresh that is accepted; whoever has sealed state keeps it there.
    #[must_use]
    pub fn floor(&self) -> &Arc<FreshnessFloor> {
        &self.floor
    }

    /// Uses other endorsements from now on. Ones that are older than those used before are refused when evidence is verified
    /// with them.
    pub fn replace_endorsements(&self, endorsements: Endorsements) {
        let mut current = self
            .endorsements
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(endorsements);
    }

    /// The endorsements in use. Two calls give the same `Arc` as long as they were not replaced.
    fn endorsements(&self) -> Arc<Endorsements> {
        self.endorsements
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Verifies evidence at the time `now` (seconds since 1970) and that its report data is `bound_to`.
    ///
    /// # Errors
    /// [`VerifyError`], which names the link that failed; [`VerifyError::NotBound`] before all others.
    pub fn verify(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
        now: u64,
    ) -> Result<VerifiedEvidence, VerifyError> {
        let now = self.floor.time(now);
        let endorsements = self.endorsements();
        let (identity, platform, id) = match evidence.tee() {
            TeeKind::Sgx | TeeKind::Tdx => {
                self.verify_dcap(evidence, bound_to, &endorsements, now)?
            }
            TeeKind::Snp => self.verify_snp(evidence, bound_to, &endorsements, now)?,
        };
        let code = identity
            .digest()
            .map_err(|e| VerifyError::Evidence(e.to_string()))?;
        Ok(VerifiedEvidence {
            claims: Claims {
                code,
                identity,
                platform: id,
                simulated: self.anchor.is_simulated(),
                evidence: Digest::of(evidence.as_bytes()),
            },
            platform,
        })
    }

    /// Verifies and appraises, and refuses early what `policy` cannot accept: evidence of code that is not among its
    /// reference values costs a hash, not a chain of signatures.
    ///
    /// # Errors
    /// [`Rejected`], by the verifier or by the policy.
    pub fn accept(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
        policy: &AppraisalPolicy,
        now: u64,
    ) -> Result<Claims, Rejected> {
        self.screen(evidence, policy)?;
        let verified = self.verify(evidence, bound_to, now)?;
        Ok(policy.appraise(verified, self.floor.time(now))?)
    }

    /// The code that evidence speaks of, unverified; `None` where that depends on the chain.
    pub(crate) fn peek_code(
        &self,
        evidence: &Evidence,
    ) -> Result<Option<CodeIdentityDigest>, VerifyError> {
        if evidence.tee() == TeeKind::Snp {
            return Ok(None);
        }
        let identity = dcap::peek(evidence, self.anchor.domain())?.identity;
        let code = identity
            .digest()
            .map_err(|e| VerifyError::Evidence(e.to_string()))?;
        Ok(Some(code))
    }

    /// Refuses evidence of code that is not among the reference values, at the cost of a hash.
    fn screen(&self, evidence: &Evidence, policy: &AppraisalPolicy) -> Result<(), Rejected> {
        match evidence.tee() {
            // Its trust domain depends on the chain, so there is nothing to compare before that.
            TeeKind::Snp => Ok(()),
            TeeKind::Sgx | TeeKind::Tdx => {
                let peeked = dcap::peek(evidence, self.anchor.domain())?;
                Ok(policy.screen(&peeked.identity)?)
            }
        }
    }

    fn verify_dcap(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
        endorsements: &Arc<Endorsements>,
        now: u64,
    ) -> Result<(CodeIdentity, Platform, Vec<u8>), VerifyError> {
        let root = self.anchor.dcap();
        // Not secret, and the peer chose it: an ordinary comparison will do.
        if dcap::peek(evidence, root.domain)?.report_data != *bound_to {
            return Err(VerifyError::NotBound);
        }
        let (verified, identity) = dcap::verify(evidence, root, endorsements, &self.known, now)?;
        self.floor.admit(&verified.levels)?;
        let id = verified.claims.platform.pck.ppid.clone();
        Ok((identity, Platform::Dcap(Box::new(verified.claims)), id))
    }

    fn verify_snp(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
        endorsements: &Endorsements,
        now: u64,
    ) -> Result<(CodeIdentity, Platform, Vec<u8>), VerifyError> {
        let verified = snp::verify(evidence, bound_to, &self.anchor, endorsements, now)?;
        self.floor.admit(&verified.levels)?;
        Ok((verified.identity, verified.platform, verified.chip_id))
    }
}

/// Evidence was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It does not verify.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// It verifies, but the policy demands more.
    #[error(transparent)]
    Appraisal(#[from] crate::policy::AppraisalError),
}
