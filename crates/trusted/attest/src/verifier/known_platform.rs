//! Platforms whose quotes verified a moment ago.
//!
//! Nearly all of a quote's verification is about the platform: the chain to the root, collateral, the quoting enclave. It comes out
//! the same for every quote of an enclave, and a channel needs it three times. So what verified is remembered under the
//! digest of the whole quote with two parts masked, the report data and the signature over the report. A quote that differs in
//! nothing else needs that one signature verified, under the same attestation key, and no more.
//!
//! What is remembered holds for the same endorsements alone, for minutes, and never beyond the dates of anything that was
//! verified with it.

use std::sync::{Arc, Mutex, PoisonError};

use dcap_qvl::quote::{Quote, Report};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use sesemi_protocol::Digest;

use super::dcap::VerifiedQuote;
use super::endorsements::Endorsements;

/// For how long a platform is remembered, in seconds.
const REMEMBERED_SECONDS: u64 = 600;
/// Most quotes that are remembered, of a few kilobytes each.
const MAX_REMEMBERED: usize = 256;
/// Where the report data stands in an SGX report body and in a TD report body, in bytes.
const SGX_REPORT_DATA: usize = 320;
const TD_REPORT_DATA: usize = 520;
/// Length of a quote's header, and of what stands between header and body in version 5.
const HEADER: usize = 48;
const BODY_HEAD: usize = 6;
/// Length of the number that stands between what is signed and its signature.
const LENGTH: usize = 4;

/// Quotes that verified.
#[derive(Debug, Default)]
pub(super) struct KnownPlatforms(Mutex<Vec<Known>>);

#[derive(Debug)]
struct Known {
    masked: Digest,
    endorsements: Arc<Endorsements>,
    verified_at: u64,
    verified: VerifiedQuote,
}

/// A quote taken apart.
pub(super) struct Parts<'q> {
    masked: Digest,
    signed: &'q [u8],
    signature: &'q [u8; 64],
    attestation_key: &'q [u8; 64],
}

impl<'q> Parts<'q> {
    /// Takes a quote apart; `None` if a part is not where it should be, which verification will say more clearly.
    pub(super) fn of(bytes: &'q [u8], quote: &Quote) -> Option<Self> {
        let (report_data, offset) = match &quote.report {
            Report::SgxEnclave(report) => (&report.report_data, SGX_REPORT_DATA),
            Report::TD10(report) => (&report.report_data, TD_REPORT_DATA),
            Report::TD15(report) => (&report.base.report_data, TD_REPORT_DATA),
            Report::TD15Ex(report) => (&report.base.base.report_data, TD_REPORT_DATA),
        };
        let body = match quote.header.version {
            5 => HEADER.checked_add(BODY_HEAD)?,
            _ => HEADER,
        };
        let report_data_at = body.checked_add(offset)?;
        let (signed, rest) = bytes.split_at_checked(quote.signed_length())?;
        let (_, rest) = rest.split_at_checked(LENGTH)?;
        let (signature, rest) = rest.split_first_chunk()?;
        let attestation_key = rest.first_chunk()?;
        let report_data_end = report_data_at.checked_add(report_data.len())?;
        if signed.get(report_data_at..report_data_end)? != report_data {
            return None;
        }

        let mut masked = bytes.to_vec();
        masked.get_mut(report_data_at..report_data_end)?.fill(0);
        let signature_at = signed.len().checked_add(LENGTH)?;
        let signature_end = signature_at.checked_add(signature.len())?;
        masked.get_mut(signature_at..signature_end)?.fill(0);
        Some(Self {
            masked: Digest::of(&masked),
            signed,
            signature,
            attestation_key,
        })
    }

    /// Whether the attestation key in the quote signed its report.
    fn is_signed(&self) -> bool {
        // An uncompressed point (SEC 1, 2.3.3).
        let mut point = vec![4];
        point.extend_from_slice(self.attestation_key);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(self.signed, self.signature)
            .is_ok()
    }
}

impl KnownPlatforms {
    /// What a whole verification said of this quote, if one that differs in nothing but report data and signature verified a moment ago, with
    /// the same endorsements, and this one is signed by the same key. `None` says nothing: verify it.
    pub(super) fn recall(
        &self,
        quote: &Parts<'_>,
        endorsements: &Arc<Endorsements>,
        now: u64,
    ) -> Option<VerifiedQuote> {
        let verified = self
            .lock()
            .iter()
            .find(|known| known.holds_for(quote, endorsements, now))
            .map(|known| known.verified.clone())?;
        quote.is_signed().then_some(verified)
    }

    /// Remembers what a whole verification at `now` said of a quote.
    pub(super) fn remember(
        &self,
        quote: &Parts<'_>,
        endorsements: &Arc<Endorsements>,
        now: u64,
        verified: &VerifiedQuote,
    ) {
        let mut known = self.lock();
        known.retain(|other| {
            other.masked != quote.masked && Arc::ptr_eq(&other.endorsements, endorsements)
        });
        if known.len() >= MAX_REMEMBERED {
            known.remove(0);
        }
        known.push(Known {
            masked: quote.masked,
            endorsements: endorsements.clone(),
            verified_at: now,
            verified: verified.clone(),
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        // What is remembered is whole: nothing here can fail half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn holds_for(&self, quote: &Parts<'_>, endorsements: &Arc<Endorsements>, now: u64) -> bool {
        // A clock that was set back before the verification makes it unknown.
        let age = now.checked_sub(self.verified_at);
        self.masked == quote.masked
            && Arc::ptr_eq(&self.endorsements, endorsements)
            && age.is_some_and(|age| age < REMEMBERED_SECONDS)
            && now <= self.verified.claims.earliest_expiration_date
    }
}
