//! Appraisal: are these verified claims good enough for what is about to happen? Never optional, never empty.

use std::collections::BTreeSet;

use sesemi_protocol::CodeIdentityDigest;

use crate::verifier::Claims;

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
}

/// What a verifier demands of an attester beyond genuine, current, non-debug evidence, which is always demanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppraisalPolicy(ReferenceValues);

#[derive(Debug, Clone, PartialEq, Eq)]
enum ReferenceValues {
    /// Exactly these.
    Listed(BTreeSet<CodeIdentityDigest>),
    /// Decided for each release, by the grants of owners and approvals of users.
    PerRelease,
}

impl AppraisalPolicy {
    /// Demands one of these code identities.
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
        Ok(Self(ReferenceValues::Listed(approved)))
    }

    /// For KeyService alone: any genuine enclave may connect, because the code identity is an input of every single
    /// release decision, where owner and user must both have approved it.
    #[must_use]
    pub fn per_release() -> Self {
        Self(ReferenceValues::PerRelease)
    }

    /// Appraises verified claims.
    ///
    /// # Errors
    /// [`AppraisalError::CodeNotApproved`].
    pub fn appraise(&self, claims: &Claims) -> Result<(), AppraisalError> {
        match &self.0 {
            ReferenceValues::PerRelease => Ok(()),
            ReferenceValues::Listed(approved) if approved.contains(&claims.code) => Ok(()),
            ReferenceValues::Listed(_) => {
                Err(AppraisalError::CodeNotApproved { found: claims.code })
            }
        }
    }
}
