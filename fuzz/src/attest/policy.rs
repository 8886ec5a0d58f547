//! What operators and makers of TEEs write: appraisal policies and endorsements.

use sesemi_attest::policy::file::MAX_POLICY;
use sesemi_attest::verifier::MAX_ENDORSEMENTS;
use sesemi_attest::{AppraisalPolicy, Endorsements};
use sesemi_protocol::CodeIdentityDigest;

use super::quote::SAMPLES;
use super::{snp, testdata};

/// Reads the bytes as a policy. One that is accepted has a digest, which no comment changes and other code does.
pub fn appraisal_policy(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else {
        return;
    };
    let Ok(policy) = AppraisalPolicy::from_toml(text) else {
        return;
    };
    assert!(text.len() <= MAX_POLICY);
    let digest = policy.digest().unwrap();
    let commented = format!("{text}\n# no demand");
    if commented.len() <= MAX_POLICY {
        let commented = AppraisalPolicy::from_toml(&commented).unwrap();
        assert_eq!(commented.digest().unwrap(), digest);
    }
    let other = CodeIdentityDigest([0xee; 32]);
    let other = policy.with_reference_values([other]).unwrap();
    assert_ne!(other.digest().unwrap(), digest);
}

/// Reads the bytes as endorsements and verifies real evidence with what is accepted: whoever wrote them, no claim about a
/// platform's code or identity comes of them but the true one.
pub fn endorsements(bytes: &[u8]) {
    let Ok(endorsements) = Endorsements::from_json(bytes) else {
        return;
    };
    assert!(bytes.len() <= MAX_ENDORSEMENTS);
    let _ = endorsements.clone().and(endorsements.clone());
    for sample in SAMPLES.iter() {
        sample.judge_with(&sample.evidence, endorsements.clone());
    }
}

pub(crate) fn policy_seeds() -> Vec<Vec<u8>> {
    let strict = "code = \"per-release\"\nplatforms = \"any\"\n";
    let full = format!(
        "code = [\"{}\"]\nplatforms = [\"{}\", \"{}\"]\n\
         [dcap]\ntcb-status = [\"SWHardeningNeeded\", \"OutOfDate\"]\nout-of-date-grace-days = 30\n\
         minimum-evaluation-number = 17\naccepted-advisories = [\"INTEL-SA-00615\"]\n\
         allow-smt = true\nallow-dynamic-platform = false\nallow-cached-keys = true\n\
         [snp.milan]\nminimum-tcb = {{ boot-loader = 4, tee = 0, snp = 22, microcode = 213 }}\n\
         [snp.turin]\nminimum-tcb = {{ fmc = 1, boot-loader = 4, tee = 0, snp = 22, microcode = 213 }}\n",
        "5d".repeat(32),
        "0a".repeat(16),
        "0b".repeat(64)
    );
    vec![strict.into(), full.into_bytes()]
}

pub(crate) fn endorsements_seeds() -> Vec<Vec<u8>> {
    let dcap: [&[u8]; 3] = [
        testdata!("dcap/sgx-v3.collateral.json"),
        testdata!("dcap/tdx-v4.collateral.json"),
        testdata!("dcap/tdx-v5.collateral.json"),
    ];
    let sets = dcap.map(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap());
    let mut seeds: Vec<Vec<u8>> = dcap.iter().map(|bytes| bytes.to_vec()).collect();
    let all = serde_json::json!({ "dcap": sets, "snp": [snp::collateral()] });
    seeds.push(all.to_string().into_bytes());
    let amd = serde_json::json!({ "snp": [snp::collateral()] });
    seeds.push(amd.to_string().into_bytes());
    seeds
}
