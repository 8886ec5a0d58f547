//! Attestation: who is on the other side, and may it be trusted.
//!
//! The words are those of RATS (RFC 9334). An *attester* ([`attester`], [`tee`]) produces *evidence* ([`evidence`]); a
//! *verifier* ([`verifier`]) checks its cryptography against a *trust anchor* and *endorsements*; an *appraisal policy*
//! ([`policy`]) compares the resulting claims, above all the [`code_identity`], with *reference values*. The [`channel`]
//! puts the three together: TLS 1.3 with evidence in the certificate as a first filter and fresh evidence bound to the
//! connection before any key flows. [`session`] makes calls to KeyService on such a channel. [`sealing`] keeps state for
//! one code identity only.
//!
//! The clock, randomness and the TEE are passed in.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod attester;
pub mod channel;
pub mod clock;
pub mod code_identity;
pub mod evidence;
pub mod freshness;
pub mod own;
pub mod policy;
pub mod sealing;
pub mod session;
pub mod snp;
pub mod tee;
pub mod verifier;

pub use attester::{Attester, AttesterError, SealBinding};
pub use clock::{Clock, SystemClock};
pub use code_identity::{CodeIdentity, TeeKind, TrustDomain};
pub use evidence::Evidence;
pub use own::{OwnCodeError, own_code};
pub use policy::file::PolicyError;
pub use policy::{AppraisalError, AppraisalPolicy};
pub use verifier::{
    Claims, Endorsements, EvidenceVerifier, Rejected, TrustAnchor, VerifiedEvidence, VerifyError,
};
