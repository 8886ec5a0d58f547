//! Evidence of real Intel platforms, at the time when its collateral was current (testdata/dcap). The SEV-SNP sample is
//! tested beside its verifier, in src/snp.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use dcap_qvl::TcbStatus;
use dcap_qvl::quote::Quote;
use sesemi_attest::{AppraisalError, AppraisalPolicy, Rejected, TeeKind, VerifyError};
use support::{Sample, policy, report_data};

macro_rules! sample {
    ($name:literal, $at:literal, $dcap:expr) => {
        Sample {
            quote: include_bytes!(concat!("../testdata/dcap/", $name, ".quote")).to_vec(),
            collateral: include_bytes!(concat!("../testdata/dcap/", $name, ".collateral.json"))
                .to_vec(),
            at: $at,
            dcap: $dcap.to_string(),
        }
    };
}

fn sgx_v3() -> Sample {
    sample!(
        "sgx-v3",
        1_750_334_171,
        "tcb-status = [\"ConfigurationAndSWHardeningNeeded\"]\naccepted-advisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]\n"
    )
}

fn tdx_v4() -> Sample {
    sample!(
        "tdx-v4",
        1_750_331_763,
        "allow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true\n"
    )
}

fn tdx_v5() -> Sample {
    sample!(
        "tdx-v5",
        1_791_421_786,
        "allow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true\n"
    )
}

#[test]
fn real_quotes_of_each_version_verify_at_their_time() {
    for (sample, tee) in [
        (sgx_v3(), TeeKind::Sgx),
        (tdx_v4(), TeeKind::Tdx),
        (tdx_v5(), TeeKind::Tdx),
    ] {
        let claims = sample.accept(&sample.quote, &policy(&sample.dcap));
        let claims = claims.unwrap_or_else(|e| panic!("{}: {e}", tee.as_str()));
        assert_eq!(claims.identity.tee, tee);
        assert!(!claims.simulated);
        assert_eq!(claims.platform.len(), 16, "a PPID");
    }
}

#[test]
fn the_strictest_policy_refuses_a_real_platform_that_its_maker_does_not_call_up_to_date() {
    let refused = sgx_v3().accept(&sgx_v3().quote, &AppraisalPolicy::per_release());
    assert!(matches!(
        refused,
        Err(Rejected::Appraisal(AppraisalError::TcbStatus {
            found: TcbStatus::ConfigurationAndSWHardeningNeeded
        }))
    ));
}

#[test]
fn an_open_advisory_is_refused_until_the_policy_accepts_it_by_name() {
    let sample = sgx_v3();
    let policy = policy(
        "tcb-status = [\"ConfigurationAndSWHardeningNeeded\"]\naccepted-advisories = [\"INTEL-SA-00615\"]",
    );
    match sample.accept(&sample.quote, &policy) {
        Err(Rejected::Appraisal(AppraisalError::Advisories(open))) => {
            assert_eq!(open, "INTEL-SA-00289");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_real_platform_below_every_published_level_is_refused() {
    let sample = sample!("tdx-v4-outdated", 0, ANY);
    let sample = Sample {
        at: issued(&sample),
        ..sample
    };
    let judged = sample.accept(
        &sample.quote,
        &policy(&format!("{}{ANY}", support::ANY_STATUS)),
    );
    match judged {
        Err(Rejected::Verify(VerifyError::Evidence(reason))) => {
            assert_eq!(reason, "No matching TCB level found");
        }
        other => panic!("{other:?}"),
    }
}

const ANY: &str = "allow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true\n";

#[test]
fn real_evidence_has_expired_today_and_was_not_valid_before_its_issue() {
    for sample in [sgx_v3(), tdx_v4()] {
        for at in [1_000_000_000, 1_795_000_000] {
            let sample = Sample {
                at,
                ..clone(&sample)
            };
            assert!(matches!(
                sample.accept(&sample.quote, &policy(&sample.dcap)),
                Err(Rejected::Verify(VerifyError::Evidence(_)))
            ));
        }
    }
}

#[test]
fn a_real_quote_is_refused_after_any_single_changed_byte_of_what_is_signed() {
    for sample in [sgx_v3(), tdx_v4(), tdx_v5()] {
        let policy = policy(&sample.dcap);
        let verifier = sample.verifier();
        let bound = report_data(&sample.quote);
        // With the platform remembered: what is left out then must not be what catches the change.
        support::accept(&verifier, &sample.quote, &bound, &policy, sample.at).unwrap();
        let mut tried = 0;
        for position in signed_bytes(&sample.quote) {
            let mut quote = sample.quote.clone();
            quote[position] ^= 0x01;
            for bound in [bound, report_data_of_any(&quote)] {
                let judged = support::accept(&verifier, &quote, &bound, &policy, sample.at);
                assert!(judged.is_err(), "byte {position} may be changed");
            }
            tried += 1;
        }
        // Header and report, the quoting enclave's report, the attestation key, and both signatures.
        assert!(tried > 432 + 384 + 3 * 64, "only {tried} bytes were tried");
    }
}

#[test]
fn a_quote_that_ends_early_is_refused() {
    for sample in [sgx_v3(), tdx_v4(), tdx_v5()] {
        let policy = policy(&sample.dcap);
        for length in (0..sample.quote.len() - 1200).step_by(7) {
            assert!(sample.accept(&sample.quote[..length], &policy).is_err());
        }
    }
}

#[test]
fn a_real_quote_is_bound_to_its_report_data_alone() {
    let sample = tdx_v4();
    let verifier = sample.verifier();
    let judged = support::accept(&verifier, &sample.quote, &[1; 64], &policy(ANY), sample.at);
    assert!(matches!(
        judged,
        Err(Rejected::Verify(VerifyError::NotBound))
    ));
}

/// Either side's evidence with its own collateral, and with the other side's, which is genuine to the root in use.
#[test]
fn real_and_simulated_evidence_are_each_refused_under_the_others_root() {
    let sample = sgx_v3();
    let simulated = support::Simulated::healthy_at(sample.at);
    let real = || sesemi_attest::Endorsements::from_json(&sample.collateral).unwrap();
    let own = || simulated.endorsements(sesemi_simtee::Tee::Sgx);
    let production = || sesemi_attest::TrustAnchor::production().unwrap();
    let made = simulated.quote(sesemi_simtee::Tee::Sgx);
    let anything = policy(&format!("{}{ANY}", support::ANY_STATUS));
    for (anchor, endorsements, quote) in [
        (simulated.anchor(), real(), &sample.quote),
        (simulated.anchor(), own(), &sample.quote),
        (production(), own(), &made),
        (production(), real(), &made),
    ] {
        let verifier = sesemi_attest::EvidenceVerifier::new(anchor, endorsements);
        let judged = support::accept(&verifier, quote, &report_data(quote), &anything, sample.at);
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Evidence(_)))),
            "{judged:?}"
        );
    }
    // With collateral that is genuine under the root, it is the chain of the quote itself that does not hold.
    for (anchor, endorsements, quote) in [
        (simulated.anchor(), own(), &sample.quote),
        (production(), real(), &made),
    ] {
        let verifier = sesemi_attest::EvidenceVerifier::new(anchor, endorsements);
        let judged = support::accept(&verifier, quote, &report_data(quote), &anything, sample.at);
        let reason = judged.unwrap_err().to_string();
        assert!(reason.contains("certificate chain"), "{reason}");
    }
}

#[test]
fn a_platforms_chain_in_the_collateral_does_not_shadow_that_of_the_quote() {
    let sample = tdx_v4();
    let mut collateral: serde_json::Value = serde_json::from_slice(&sample.collateral).unwrap();
    let other: serde_json::Value = serde_json::from_slice(&tdx_v5().collateral).unwrap();
    collateral["pck_certificate_chain"] = other["pck_certificate_chain"].clone();
    assert!(collateral["pck_certificate_chain"].is_string());
    let sample = Sample {
        collateral: collateral.to_string().into_bytes(),
        ..clone(&sample)
    };
    sample.accept(&sample.quote, &policy(ANY)).unwrap();
}

#[test]
fn endorsements_for_another_kind_of_tee_or_processor_are_not_used() {
    let (sgx, tdx) = (sgx_v3(), tdx_v4());
    let verifier = sgx.verifier();
    let judged = support::accept(
        &verifier,
        &tdx.quote,
        &report_data(&tdx.quote),
        &policy(ANY),
        tdx.at,
    );
    assert!(matches!(
        judged,
        Err(Rejected::Verify(VerifyError::NoEndorsements(TeeKind::Tdx)))
    ));
    // With sets for both kinds, each quote finds its own.
    let sets = sesemi_attest::Endorsements::from_json(&sgx.collateral).unwrap();
    let sets = sets
        .and(sesemi_attest::Endorsements::from_json(&tdx.collateral).unwrap())
        .unwrap();
    for sample in [sgx, tdx] {
        let anchor = sesemi_attest::TrustAnchor::production().unwrap();
        let verifier = sesemi_attest::EvidenceVerifier::new(anchor, sets.clone());
        let policy = policy(&sample.dcap);
        let bound = report_data(&sample.quote);
        support::accept(&verifier, &sample.quote, &bound, &policy, sample.at).unwrap();
    }
}

fn clone(sample: &Sample) -> Sample {
    Sample {
        quote: sample.quote.clone(),
        collateral: sample.collateral.clone(),
        dcap: sample.dcap.clone(),
        ..*sample
    }
}

/// A moment after the last of the signed documents was issued: when the sample was taken, nearly.
fn issued(sample: &Sample) -> u64 {
    let collateral: serde_json::Value = serde_json::from_slice(&sample.collateral).unwrap();
    ["tcb_info", "qe_identity"]
        .into_iter()
        .map(|part| {
            let part: serde_json::Value =
                serde_json::from_str(collateral[part].as_str().unwrap()).unwrap();
            let date = part["issueDate"].as_str().unwrap().to_owned();
            let date =
                time::OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc3339);
            u64::try_from(date.unwrap().unix_timestamp()).unwrap()
        })
        .max()
        .unwrap()
        + 3600
}

/// Every position whose byte is under some signature: header and report (by the attestation key), the quoting enclave's
/// report (by the PCK), the attestation key and authentication data (by their hash in that report), and the signatures.
fn signed_bytes(quote: &[u8]) -> Vec<usize> {
    let parsed = Quote::parse(quote).unwrap();
    let auth = parsed.auth_data.clone().into_v3();
    let mut positions: Vec<usize> = Vec::new();
    for part in [
        auth.ecdsa_signature.as_slice(),
        &auth.ecdsa_attestation_key,
        &auth.qe_report,
        &auth.qe_report_signature,
        &auth.qe_auth_data.data,
    ] {
        let start = find(quote, part);
        positions.extend(start..start + part.len());
    }
    // Four bytes of length stand between what the attestation key signed and its signature.
    let signed = find(quote, &auth.ecdsa_signature) - 4;
    positions.extend(0..signed);
    positions
}

/// The report data of a quote, or any if it does not parse.
fn report_data_of_any(quote: &[u8]) -> [u8; 64] {
    match Quote::parse(quote) {
        Ok(_) => report_data(quote),
        Err(_) => [0; 64],
    }
}

fn find(quote: &[u8], part: &[u8]) -> usize {
    quote
        .windows(part.len())
        .position(|window| window == part)
        .unwrap()
}
