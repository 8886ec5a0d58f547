//! What several tests need: real samples, and machines of the simulator with one fault each.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, UNIX_EPOCH};

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::quote::{Quote, Report};
use sesemi_attest::{
    AppraisalPolicy, Claims, Endorsements, Evidence, EvidenceVerifier, Rejected, TrustAnchor,
};
use sesemi_simtee::{Fault, Machine, Measurement, Tee};

/// The time at which simulated machines are made and verified.
pub(crate) const NOW: u64 = 1_790_000_000;

/// A policy for any code, with these lines in `[dcap]`.
pub(crate) fn policy(dcap: &str) -> AppraisalPolicy {
    let text = format!("code = \"per-release\"\nplatforms = \"any\"\n[dcap]\n{dcap}");
    AppraisalPolicy::from_toml(&text).unwrap()
}

/// Every TCB status but `Revoked`, which no policy accepts.
pub(crate) const ANY_STATUS: &str = "tcb-status = [\"SWHardeningNeeded\", \"ConfigurationNeeded\", \
    \"ConfigurationAndSWHardeningNeeded\", \"OutOfDate\", \"OutOfDateConfigurationNeeded\", \
    \"TDRelaunchAdvised\", \"TDRelaunchAdvisedConfigurationNeeded\"]\n";

/// A real quote and its collateral.
pub(crate) struct Sample {
    pub(crate) quote: Vec<u8>,
    pub(crate) collateral: Vec<u8>,
    pub(crate) at: u64,
    /// Lines of `[dcap]` that the platform needs.
    pub(crate) dcap: String,
}

impl Sample {
    pub(crate) fn verifier(&self) -> EvidenceVerifier {
        EvidenceVerifier::new(
            TrustAnchor::production().unwrap(),
            Endorsements::from_json(&self.collateral).unwrap(),
        )
    }

    pub(crate) fn accept(
        &self,
        quote: &[u8],
        policy: &AppraisalPolicy,
    ) -> Result<Claims, Rejected> {
        accept(
            &self.verifier(),
            quote,
            &report_data(&self.quote),
            policy,
            self.at,
        )
    }
}

/// What verifier and policy say of a quote.
pub(crate) fn accept(
    verifier: &EvidenceVerifier,
    quote: &[u8],
    bound_to: &[u8; 64],
    policy: &AppraisalPolicy,
    now: u64,
) -> Result<Claims, Rejected> {
    let evidence =
        Evidence::from_bytes(quote.to_vec()).map_err(sesemi_attest::VerifyError::from)?;
    verifier.accept(&evidence, bound_to, policy, now)
}

/// The report data of a quote that parses.
pub(crate) fn report_data(quote: &[u8]) -> [u8; 64] {
    match Quote::parse(quote).unwrap().report {
        Report::SgxEnclave(report) => report.report_data,
        Report::TD10(report) => report.report_data,
        Report::TD15(report) => report.base.report_data,
        Report::TD15Ex(report) => report.base.base.report_data,
    }
}

/// A simulated machine in a folder of its own.
pub(crate) struct Simulated {
    _folder: tempfile::TempDir,
    pub(crate) machine: Machine,
}

pub(crate) const BOUND: [u8; 64] = [0x5a; 64];

impl Simulated {
    pub(crate) fn healthy() -> Self {
        Self::healthy_at(NOW)
    }

    pub(crate) fn healthy_at(now: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let created = UNIX_EPOCH + Duration::from_secs(now);
        let machine = Machine::create(folder.path(), created).unwrap();
        Self {
            _folder: folder,
            machine,
        }
    }

    pub(crate) fn with(fault: Fault) -> Self {
        let mut simulated = Self::healthy();
        simulated.machine.apply(fault).unwrap();
        simulated
    }

    pub(crate) fn quote(&self, tee: Tee) -> Vec<u8> {
        self.quote_over(tee, &BOUND)
    }

    pub(crate) fn quote_over(&self, tee: Tee, report_data: &[u8; 64]) -> Vec<u8> {
        let program = b"a program";
        match tee {
            Tee::Sgx => self
                .machine
                .quote(&Measurement::of_elf(program), report_data),
            Tee::Tdx => self
                .machine
                .td_quote(&sesemi_simtee::TdMeasurement::of_elf(program), report_data),
        }
        .unwrap()
    }

    pub(crate) fn endorsements(&self, tee: Tee) -> Endorsements {
        endorsements(self.machine.collateral_for(tee))
    }

    pub(crate) fn anchor(&self) -> TrustAnchor {
        TrustAnchor::simulated(self.machine.root_der().to_vec()).unwrap()
    }

    pub(crate) fn verifier(&self, tee: Tee) -> EvidenceVerifier {
        EvidenceVerifier::new(self.anchor(), self.endorsements(tee))
    }

    /// What a verifier that knows this machine's root says, under the strictest policy unless another is given.
    pub(crate) fn judge(&self, tee: Tee, policy: &AppraisalPolicy) -> Result<Claims, Rejected> {
        accept(&self.verifier(tee), &self.quote(tee), &BOUND, policy, NOW)
    }
}

pub(crate) fn endorsements(collateral: &QuoteCollateralV3) -> Endorsements {
    Endorsements::from_json(&serde_json::to_vec(collateral).unwrap()).unwrap()
}

/// An error with all its causes, as a person reads it.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
