//! Evidence of real machines, in front of the verifier that knows their makers.

use std::sync::LazyLock;

use sesemi_attest::snp::SnpReport;
use sesemi_attest::{
    AppraisalPolicy, Claims, Endorsements, Evidence, EvidenceVerifier, TrustAnchor,
};
use sesemi_protocol::Digest;

use super::testdata;
use crate::input::Input;
use crate::samples::tagged;

/// Evidence, what it was made for, when it verified, and what it then said.
pub(crate) struct Sample {
    pub(crate) evidence: Evidence,
    bound_to: [u8; 64],
    at: u64,
    policy: AppraisalPolicy,
    verifier: EvidenceVerifier,
    claims: Claims,
}

/// Reads the bytes as evidence of the machine that the first byte chooses. Whatever verifies says what the real one said.
pub fn quote(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sample = &SAMPLES[usize::from(input.byte()) % SAMPLES.len()];
    let Ok(evidence) = Evidence::from_bytes(input.rest().to_vec()) else {
        return;
    };
    sample.judge(&sample.verifier, &evidence);
    let elsewhere = sample.verifier.verify(&evidence, &[0x11; 64], sample.at);
    assert!(elsewhere.is_err(), "evidence for something else");
}

impl Sample {
    fn new(
        evidence: Evidence,
        bound_to: [u8; 64],
        at: u64,
        policy: &str,
        endorsements: &[u8],
    ) -> Self {
        let policy = format!("code = \"per-release\"\nplatforms = \"any\"\n{policy}");
        let policy = AppraisalPolicy::from_toml(&policy).unwrap();
        let verifier = verifier(Endorsements::from_json(endorsements).unwrap());
        let claims = verifier.accept(&evidence, &bound_to, &policy, at).unwrap();
        Self {
            evidence,
            bound_to,
            at,
            policy,
            verifier,
            claims,
        }
    }

    fn dcap(quote: &[u8], report_data: usize, at: u64, policy: &str, endorsements: &[u8]) -> Self {
        let bound_to = quote[report_data..report_data + 64].try_into().unwrap();
        let evidence = Evidence::from_bytes(quote.to_vec()).unwrap();
        let policy = format!("[dcap]\n{policy}");
        Self::new(evidence, bound_to, at, &policy, endorsements)
    }

    fn judge(&self, verifier: &EvidenceVerifier, evidence: &Evidence) {
        if let Ok(claims) = verifier.accept(evidence, &self.bound_to, &self.policy, self.at) {
            // What no signature covers may be another; the digest of the evidence tells.
            assert_eq!(claims.evidence, Digest::of(evidence.as_bytes()));
            let expected = self.claims.clone();
            assert_eq!(
                Claims {
                    evidence: expected.evidence,
                    ..claims
                },
                expected
            );
        } else {
            let known = core::ptr::eq(verifier, &self.verifier);
            assert!(!known || *evidence != self.evidence);
        }
    }

    pub(crate) fn judge_with(&self, evidence: &Evidence, endorsements: Endorsements) {
        self.judge(&verifier(endorsements), evidence);
    }
}

fn verifier(endorsements: Endorsements) -> EvidenceVerifier {
    EvidenceVerifier::new(TrustAnchor::production().unwrap(), endorsements)
}

const LENIENT: &str = "allow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true\n";
/// Where report data stands: behind the quote's header of 48 bytes and, in version 5, the body's type and length.
const SGX_REPORT_DATA: usize = 48 + 320;
const TD_REPORT_DATA: usize = 48 + 520;
const TD_V5_REPORT_DATA: usize = TD_REPORT_DATA + 6;

pub(crate) static SAMPLES: LazyLock<[Sample; 4]> = LazyLock::new(|| {
    let report = testdata!("snp/amd/report-milan.bin");
    let vcek = testdata!("snp/amd/vcek-milan.der");
    let amd = serde_json::json!({ "snp": [super::snp::collateral()] }).to_string();
    [
        Sample::dcap(
            testdata!("dcap/sgx-v3.quote"),
            SGX_REPORT_DATA,
            1_750_334_171,
            "tcb-status = [\"ConfigurationAndSWHardeningNeeded\"]\n\
             accepted-advisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]\n",
            testdata!("dcap/sgx-v3.collateral.json"),
        ),
        Sample::dcap(
            testdata!("dcap/tdx-v4.quote"),
            TD_REPORT_DATA,
            1_750_331_763,
            LENIENT,
            testdata!("dcap/tdx-v4.collateral.json"),
        ),
        Sample::dcap(
            testdata!("dcap/tdx-v5.quote"),
            TD_V5_REPORT_DATA,
            1_791_421_786,
            LENIENT,
            testdata!("dcap/tdx-v5.collateral.json"),
        ),
        Sample::new(
            Evidence::from_snp(report, Some(vcek)).unwrap(),
            SnpReport::parse(report).unwrap().report_data,
            1_788_220_800,
            "[snp.milan]\nminimum-tcb = { boot-loader = 3, tee = 0, snp = 8, microcode = 115 }",
            amd.as_bytes(),
        ),
    ]
});

pub(crate) fn quote_seeds() -> Vec<Vec<u8>> {
    (0..)
        .zip(SAMPLES.iter())
        .flat_map(|(number, sample)| tagged(number, [sample.evidence.as_bytes().to_vec()]))
        .collect()
}
