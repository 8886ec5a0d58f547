//! Evidence of real platforms, at a moment when its endorsements were current. Verifying it is the same work inside a TEE
//! and outside; these figures are of real evidence, whatever TEE the rest was measured in.

use dcap_qvl::quote::{Quote, Report};
use sesemi_attest::snp::SnpReport;
use sesemi_attest::{Endorsements, Evidence, EvidenceVerifier, TeeKind, TrustAnchor};

use crate::error::BenchError;
use crate::stopwatch::{Lap, Stopwatch};

/// A file of `crates/trusted/attest/testdata`, whose README files say where each is from.
macro_rules! testdata {
    ($path:literal) => {
        include_bytes!(concat!("../../../trusted/attest/testdata/", $path))
    };
}

/// Evidence, who verifies it, and when.
pub(super) struct RealEvidence {
    evidence: Evidence,
    bound_to: [u8; 64],
    verifier: EvidenceVerifier,
    endorsements: Endorsements,
    /// Seconds since 1970.
    at: u64,
}

impl RealEvidence {
    /// A quote of an SGX enclave.
    pub(super) fn sgx() -> Result<Self, BenchError> {
        let quote = testdata!("dcap/sgx-v3.quote");
        let collateral = testdata!("dcap/sgx-v3.collateral.json");
        Self::dcap(quote, collateral, 1_750_334_171)
    }

    /// A quote of a TDX trust domain.
    pub(super) fn tdx() -> Result<Self, BenchError> {
        let quote = testdata!("dcap/tdx-v4.quote");
        let collateral = testdata!("dcap/tdx-v4.collateral.json");
        Self::dcap(quote, collateral, 1_750_331_763)
    }

    /// A report of a Milan processor, with the certificate of its chip beside it.
    pub(super) fn snp() -> Result<Self, BenchError> {
        let report = testdata!("snp/amd/report-milan.bin");
        let vcek = testdata!("snp/amd/vcek-milan.der");
        let crl = hex::encode(testdata!("snp/amd/crl-milan.der"));
        let sets = serde_json::json!({ "snp": [{ "product": "milan", "crl": crl }] });
        let parsed = SnpReport::parse(report).map_err(|_| BenchError::Sample(TeeKind::Snp))?;
        Ok(Self {
            evidence: Evidence::from_snp(report, Some(vcek))?,
            bound_to: parsed.report_data,
            verifier: verifier(sets.to_string().as_bytes())?,
            endorsements: Endorsements::from_json(sets.to_string().as_bytes())?,
            at: 1_788_220_800,
        })
    }

    fn dcap(quote: &[u8], collateral: &[u8], at: u64) -> Result<Self, BenchError> {
        let evidence = Evidence::from_bytes(quote.to_vec())?;
        let parsed = Quote::parse(quote).map_err(|_| BenchError::Sample(evidence.tee()))?;
        Ok(Self {
            bound_to: match parsed.report {
                Report::SgxEnclave(report) => report.report_data,
                Report::TD10(report) => report.report_data,
                Report::TD15(report) => report.base.report_data,
                Report::TD15Ex(report) => report.base.base.report_data,
            },
            evidence,
            verifier: verifier(collateral)?,
            endorsements: Endorsements::from_json(collateral)?,
            at,
        })
    }

    /// Verifies it in whole: chain, revocation, dates, signature, binding. New endorsements make the verifier forget that it
    /// has seen the platform.
    pub(super) fn verify(&self) -> Result<Lap, BenchError> {
        self.verifier
            .replace_endorsements(self.endorsements.clone());
        let watch = Stopwatch::start();
        let verified = self
            .verifier
            .verify(&self.evidence, &self.bound_to, self.at)?;
        let lap = watch.stop();
        drop(verified);
        Ok(lap)
    }
}

fn verifier(endorsements: &[u8]) -> Result<EvidenceVerifier, BenchError> {
    Ok(EvidenceVerifier::new(
        TrustAnchor::production()?,
        Endorsements::from_json(endorsements)?,
    ))
}
