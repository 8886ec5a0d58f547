//! Appraisal: are these verified claims good enough for what is about to happen? Never optional, never empty.
//!
//! A policy starts strict: listed code, a platform that its maker calls up to date, no open advisory, none of the features
//! that weaken isolation. Whoever needs less says so field by field, in a [file](mod@file) that is checked as a whole.

mod canonical;
pub mod file;

use std::collections::BTreeSet;
use std::time::Duration;

use dcap_qvl::policy::{Policy as _, QuotePolicy};
use dcap_qvl::{PckCertFlag, QuoteClaims, TcbStatus};
use sesemi_protocol::{CodeIdentityDigest, Digest};

use crate::code_identity::{CodeIdentity, TeeKind};
use crate::snp::{Product, TcbVersion};
use crate::verifier::{Claims, Platform, VerifiedEvidence};

/// Why verified evidence was not good enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppraisalError {
    /// The code is not one that was approved.
    #[error(
        "code identity {found} is not among the approved ones; approve it only if you know this build"
    )]
    CodeNotApproved {
        /// What the evidence says.
        found: CodeIdentityDigest,
    },
    /// A policy without reference values would approve nothing, and is surely a mistake.
    #[error("an appraisal policy needs at least one approved code identity")]
    NoReferenceValues,
    /// A list of platforms that is empty would approve nothing.
    #[error("a list of platforms needs at least one")]
    NoPlatforms,
    /// The platform is not on the list.
    #[error("platform {found} is not on the policy's list of platforms")]
    PlatformNotListed {
        /// Its id, in hex.
        found: String,
    },
    /// The kind of TEE is not accepted.
    #[error("evidence of {} is not accepted by the policy", .found.as_str())]
    TeeNotAccepted {
        /// What the evidence is of.
        found: TeeKind,
    },
    /// The platform's maker does not call it up to date.
    #[error(
        "the platform's TCB status is {found}, which the policy does not accept: update its microcode and firmware"
    )]
    TcbStatus {
        /// The status, as its maker names it.
        found: TcbStatus,
    },
    /// The platform has open advisories.
    #[error("the platform has open advisories that the policy does not accept: {0}")]
    Advisories(String),
    /// The endorsements are of an older evaluation than the policy demands.
    #[error(
        "the TCB evaluation data number is {found}, the policy demands {minimum}: fetch current endorsements"
    )]
    EvaluationNumber {
        /// What the endorsements say.
        found: u32,
        /// What the policy demands.
        minimum: u32,
    },
    /// The platform has a feature that weakens isolation.
    #[error("the platform has {0}, which the policy does not accept")]
    Feature(&'static str),
    /// An SEV-SNP platform's firmware is older than the policy demands.
    #[error(
        "the platform's TCB is {found}, the policy demands at least {minimum} in each component: update its firmware"
    )]
    SnpTcb {
        /// What the report says.
        found: TcbVersion,
        /// What the policy demands.
        minimum: TcbVersion,
    },
    /// The policy says nothing about this product, so nothing says which of its firmware is good enough.
    #[error("the policy has no minimum TCB for {}: add a table for it", .product.as_str())]
    NoMinimumTcb {
        /// The product.
        product: Product,
    },
    /// Something else that the library's policy found.
    #[error("the platform is not acceptable: {0}")]
    Other(String),
}

/// What a verifier demands of an attester, beyond genuine, non-debug evidence, which is always demanded.
#[derive(Debug, Clone)]
pub struct AppraisalPolicy {
    code: ReferenceValues,
    platforms: Platforms,
    dcap: DcapRequirements,
    snp: SnpRequirements,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ReferenceValues {
    /// Exactly these.
    Listed(BTreeSet<CodeIdentityDigest>),
    /// Decided for each release, by the grants of owners and approvals of users.
    PerRelease,
}

/// Which machines may hold keys. Attestation keys can be extracted from a processor in an attacker's hands; a list of the
/// machines that are in a trusted building is the only answer to that.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Platforms {
    Any,
    Listed(BTreeSet<Vec<u8>>),
}

/// What is demanded of SGX and TDX platforms. The default is the strictest.
#[derive(Debug, Clone, Default)]
struct DcapRequirements {
    /// Accepted beside `UpToDate`.
    statuses: Vec<TcbStatus>,
    minimum_evaluation_number: u32,
    advisories: BTreeSet<String>,
    grace: Duration,
    allow_smt: bool,
    allow_dynamic_platform: bool,
    allow_cached_keys: bool,
}

/// What is demanded of SEV-SNP platforms: a minimum TCB for each product that is accepted at all.
#[derive(Debug, Clone, Default)]
struct SnpRequirements(Vec<(Product, TcbVersion)>);

impl AppraisalPolicy {
    /// Demands one of these code identities, on any platform that is up to date.
    ///
    /// # Errors
    /// [`AppraisalError::NoReferenceValues`] for an empty list.
    pub fn reference_values(
        approved: impl IntoIterator<Item = CodeIdentityDigest>,
    ) -> Result<Self, AppraisalError> {
        let approved: BTreeSet<_> = approved.into_iter().collect();
        if approved.is_empty() {
            return Err(AppraisalError::NoReferenceValues);
        }
        Ok(Self::strict(ReferenceValues::Listed(approved)))
    }

    /// For KeyService alone: any genuine enclave may connect, because the code identity is an input of every single
    /// release decision, where owner and user must both have approved it.
    #[must_use]
    pub fn per_release() -> Self {
        Self::strict(ReferenceValues::PerRelease)
    }

    fn strict(code: ReferenceValues) -> Self {
        Self {
            code,
            platforms: Platforms::Any,
            dcap: DcapRequirements::default(),
            snp: SnpRequirements::default(),
        }
    }

    /// Whether this names the code that it accepts.
    #[must_use]
    pub fn names_code(&self) -> bool {
        matches!(self.code, ReferenceValues::Listed(_))
    }

    /// This policy with other demands on the code, for a caller that learns them elsewhere than in a policy file.
    ///
    /// # Errors
    /// [`AppraisalError::NoReferenceValues`] for an empty list.
    pub fn with_reference_values(
        self,
        approved: impl IntoIterator<Item = CodeIdentityDigest>,
    ) -> Result<Self, AppraisalError> {
        let Self { code, .. } = Self::reference_values(approved)?;
        Ok(Self { code, ..self })
    }

    /// SHA-256 over deterministic CBOR of everything that this policy demands (spec/policy.md). Files that say the same
    /// have the same digest, whatever their comments and order.
    ///
    /// # Errors
    /// [`AppraisalError::Other`] never in practice: every demand has an encoding.
    pub fn digest(&self) -> Result<Digest, AppraisalError> {
        canonical::encode(self)
            .map(|bytes| Digest::of(&bytes))
            .map_err(|e| AppraisalError::Other(e.to_string()))
    }

    /// Refuses early, from what unverified evidence says, code that is not among the reference values.
    pub(crate) fn screen(&self, identity: &CodeIdentity) -> Result<(), AppraisalError> {
        let found = identity
            .digest()
            .map_err(|e| AppraisalError::Other(e.to_string()))?;
        self.code(found)
    }

    /// Appraises verified evidence at the time `now` (seconds since 1970), and gives its claims away if they are good enough.
    ///
    /// # Errors
    /// [`AppraisalError`], which names the first demand that is not met.
    pub fn appraise(&self, evidence: VerifiedEvidence, now: u64) -> Result<Claims, AppraisalError> {
        let VerifiedEvidence { claims, platform } = evidence;
        self.code(claims.code)?;
        self.platform(&claims.platform)?;
        match &platform {
            Platform::Dcap(quote) => self.dcap.appraise(quote, now)?,
            Platform::Snp { product, tcbs } => tcbs
                .iter()
                .try_for_each(|tcb| self.snp.appraise(*product, tcb))?,
        }
        Ok(claims)
    }

    fn code(&self, found: CodeIdentityDigest) -> Result<(), AppraisalError> {
        match &self.code {
            ReferenceValues::PerRelease => Ok(()),
            ReferenceValues::Listed(approved) if approved.contains(&found) => Ok(()),
            ReferenceValues::Listed(_) => Err(AppraisalError::CodeNotApproved { found }),
        }
    }

    fn platform(&self, id: &[u8]) -> Result<(), AppraisalError> {
        match &self.platforms {
            Platforms::Any => Ok(()),
            Platforms::Listed(listed) if listed.contains(id) => Ok(()),
            Platforms::Listed(_) => Err(AppraisalError::PlatformNotListed {
                found: hex::encode(id),
            }),
        }
    }
}

impl DcapRequirements {
    fn appraise(&self, claims: &QuoteClaims, now: u64) -> Result<(), AppraisalError> {
        let found = claims.tcb.status;
        if found != TcbStatus::UpToDate && !self.statuses.contains(&found) {
            return Err(AppraisalError::TcbStatus { found });
        }
        // A TDX 1.5 domain has two levels: that of its launch, which the verdict holds, and that of now.
        let of_now = claims.platform.current_tcb_level.iter();
        let of_now = of_now.flat_map(|level| &level.advisory_ids);
        let open: BTreeSet<&str> = claims
            .tcb
            .advisory_ids
            .iter()
            .chain(of_now)
            .map(String::as_str)
            .filter(|id| !self.advisories.contains(&id.to_ascii_uppercase()))
            .collect();
        if !open.is_empty() {
            let open: Vec<_> = open.into_iter().collect();
            return Err(AppraisalError::Advisories(open.join(", ")));
        }
        let (found, minimum) = (claims.tcb.eval_data_number, self.minimum_evaluation_number);
        if found < minimum {
            return Err(AppraisalError::EvaluationNumber { found, minimum });
        }
        self.features(claims)?;
        // The library's own strict policy last: what it may come to know beyond the above.
        self.of_the_crate(now)
            .validate(claims)
            .map_err(|e| AppraisalError::Other(format!("{e:#}")))
    }

    fn features(&self, claims: &QuoteClaims) -> Result<(), AppraisalError> {
        let pck = &claims.platform.pck;
        let features = [
            (
                pck.smt_enabled,
                self.allow_smt,
                "simultaneous multithreading (smt)",
            ),
            (
                pck.dynamic_platform,
                self.allow_dynamic_platform,
                "packages that can be added later (dynamic-platform)",
            ),
            (
                pck.cached_keys,
                self.allow_cached_keys,
                "keys kept by the maker's registration service (cached-keys)",
            ),
        ];
        features
            .into_iter()
            .find(|(flag, allowed, _)| *flag == PckCertFlag::True && !allowed)
            .map_or(Ok(()), |(_, _, name)| Err(AppraisalError::Feature(name)))
    }

    fn of_the_crate(&self, now: u64) -> QuotePolicy {
        let strict = QuotePolicy::strict(now)
            .min_tcb_eval_data_number(self.minimum_evaluation_number)
            .platform_grace_period(self.grace)
            .qe_grace_period(self.grace)
            .allow_smt(self.allow_smt)
            .allow_dynamic_platform(self.allow_dynamic_platform)
            .allow_cached_keys(self.allow_cached_keys);
        self.statuses
            .iter()
            .fold(strict, |policy, status| policy.allow_status(*status))
    }
}

impl SnpRequirements {
    fn appraise(&self, product: Product, found: &TcbVersion) -> Result<(), AppraisalError> {
        let minimum = self.0.iter().find(|(of, _)| *of == product);
        match minimum {
            None => Err(AppraisalError::NoMinimumTcb { product }),
            Some((_, minimum)) if found.at_least(minimum) => Ok(()),
            Some((_, minimum)) => Err(AppraisalError::SnpTcb {
                found: *found,
                minimum: *minimum,
            }),
        }
    }
}
