//! The chain from root to quote, link by link: a simulated machine with exactly one thing wrong, refused for exactly that.
//! The list is that of DCAP verification (CVE-2026-22696 was one link nobody looked at), so each has a test of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use dcap_qvl::TcbStatus;
use sesemi_attest::{AppraisalError, AppraisalPolicy, Rejected, TrustAnchor, VerifyError};
use sesemi_simtee::{Fault, PlatformStatus, Tee};
use support::{ANY_STATUS, BOUND, NOW, Simulated, accept, endorsements, policy};

/// A machine with this fault is refused, for this reason and under any policy, and accepted again when it has healed.
fn refused_by_the_verifier(fault: Fault, reason: &str) {
    let any = policy(&format!(
        "{ANY_STATUS}allow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true"
    ));
    for tee in [Tee::Sgx, Tee::Tdx] {
        let mut simulated = Simulated::with(fault.clone());
        match simulated.judge(tee, &any) {
            Err(Rejected::Verify(VerifyError::Evidence(text))) => {
                assert!(text.contains(reason), "{tee:?}, {fault:?}: {text}");
            }
            other => panic!("{tee:?}, {fault:?}: {other:?}"),
        }
        simulated.machine.heal().unwrap();
        let strictest = AppraisalPolicy::per_release();
        simulated.judge(tee, &strictest).unwrap();
    }
}

/// A machine with this fault verifies; the strictest policy refuses it for this reason, one with this line accepts it.
fn refused_by_the_policy(fault: Fault, reason: &AppraisalError, accepting: &str) {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let simulated = Simulated::with(fault.clone());
        match simulated.judge(tee, &AppraisalPolicy::per_release()) {
            Err(Rejected::Appraisal(error)) => assert_eq!(error, *reason, "{tee:?}"),
            other => panic!("{tee:?}, {fault:?}: {other:?}"),
        }
        simulated.judge(tee, &policy(accepting)).unwrap();
    }
}

#[test]
fn a_healthy_machine_is_accepted_under_the_strictest_policy() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let simulated = Simulated::healthy();
        let strictest = AppraisalPolicy::per_release();
        let claims = simulated.judge(tee, &strictest).unwrap();
        assert!(claims.simulated);
        assert_eq!(claims.platform, simulated.machine.ppid());
    }
}

#[test]
fn simulated_evidence_is_refused_by_every_built_in_root() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let simulated = Simulated::healthy();
        let verifier = sesemi_attest::EvidenceVerifier::new(
            TrustAnchor::production().unwrap(),
            simulated.endorsements(tee),
        );
        let any = policy(ANY_STATUS);
        let judged = accept(&verifier, &simulated.quote(tee), &BOUND, &any, NOW);
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Evidence(_)))),
            "{judged:?}"
        );
    }
}

#[test]
fn a_revoked_platform_is_refused() {
    refused_by_the_verifier(Fault::PlatformRevoked, "CertRevoked");
}

#[test]
fn a_revoked_pck_authority_is_refused() {
    refused_by_the_verifier(Fault::PckCaRevoked, "CertRevoked");
}

#[test]
fn a_quoting_enclave_of_another_signer_is_refused() {
    refused_by_the_verifier(Fault::QeOtherSigner, "MRSIGNER");
}

#[test]
fn a_changed_quoting_enclave_identity_is_refused() {
    refused_by_the_verifier(
        Fault::ForgedQeIdentity,
        "Signature is invalid for qe_identity",
    );
}

#[test]
fn changed_tcb_info_is_refused() {
    refused_by_the_verifier(Fault::ForgedTcbInfo, "Signature is invalid for tcb_info");
}

#[test]
fn tcb_info_for_another_processor_is_refused() {
    refused_by_the_verifier(Fault::FmspcMismatch, "Fmspc mismatch");
}

#[test]
fn an_attestation_key_that_the_quoting_enclave_did_not_vouch_for_is_refused() {
    refused_by_the_verifier(Fault::UnboundAttestationKey, "QE report hash mismatch");
}

#[test]
fn a_platform_below_every_tcb_level_is_refused() {
    refused_by_the_verifier(Fault::PceSvnBelowLevels, "No matching TCB level");
}

#[test]
fn a_revoked_tcb_level_is_refused_under_any_policy() {
    let status = PlatformStatus::Revoked;
    refused_by_the_verifier(Fault::TcbStatus { status }, "Revoked");
}

#[test]
fn a_chain_to_another_root_is_refused() {
    refused_by_the_verifier(Fault::OtherRoot, "certificate chain");
}

#[test]
fn expired_collateral_is_refused() {
    let seconds = -40 * 86_400;
    refused_by_the_verifier(Fault::ClockOffset { seconds }, "Expired");
}

#[test]
fn collateral_from_the_future_is_refused() {
    let seconds = 40 * 86_400;
    refused_by_the_verifier(Fault::ClockOffset { seconds }, "in the future");
}

#[test]
fn debug_mode_is_refused_under_any_policy() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let judged = Simulated::with(Fault::Debug).judge(tee, &policy(ANY_STATUS));
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Debug))),
            "{judged:?}"
        );
    }
}

#[test]
fn each_lesser_tcb_status_is_refused_until_the_policy_names_it() {
    for (status, found) in [
        (PlatformStatus::OutOfDate, TcbStatus::OutOfDate),
        (
            PlatformStatus::ConfigurationNeeded,
            TcbStatus::ConfigurationNeeded,
        ),
        (
            PlatformStatus::SwHardeningNeeded,
            TcbStatus::SWHardeningNeeded,
        ),
        (
            PlatformStatus::ConfigurationAndSwHardeningNeeded,
            TcbStatus::ConfigurationAndSWHardeningNeeded,
        ),
        (
            PlatformStatus::OutOfDateConfigurationNeeded,
            TcbStatus::OutOfDateConfigurationNeeded,
        ),
    ] {
        let accepting = format!("tcb-status = [\"{found}\"]\nout-of-date-grace-days = 366");
        let fault = Fault::TcbStatus { status };
        let reason = AppraisalError::TcbStatus { found };
        for tee in [Tee::Sgx, Tee::Tdx] {
            let simulated = Simulated::with(fault.clone());
            match simulated.judge(tee, &AppraisalPolicy::per_release()) {
                Err(Rejected::Appraisal(error)) => assert_eq!(error, reason),
                other => panic!("{tee:?}, {status:?}: {other:?}"),
            }
            let judged = simulated.judge(tee, &policy(&accepting));
            if found.to_string().starts_with("OutOfDate") {
                // The level is older than the longest grace.
                let refused = matches!(
                    &judged,
                    Err(Rejected::Appraisal(AppraisalError::Other(text))) if text.contains("too old")
                );
                assert!(refused, "{judged:?}");
            } else {
                judged.unwrap();
            }
        }
    }
}

#[test]
fn a_quoting_enclave_that_is_out_of_date_is_refused() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let judged =
            Simulated::with(Fault::QeOutOfDate).judge(tee, &AppraisalPolicy::per_release());
        assert!(
            matches!(
                judged,
                Err(Rejected::Appraisal(AppraisalError::TcbStatus {
                    found: TcbStatus::OutOfDate
                }))
            ),
            "{judged:?}"
        );
    }
}

#[test]
fn a_tdx_module_that_is_out_of_date_is_refused_and_does_not_concern_sgx() {
    let simulated = Simulated::with(Fault::TdxModuleOutOfDate);
    let strictest = AppraisalPolicy::per_release();
    simulated.judge(Tee::Sgx, &strictest).unwrap();
    assert!(matches!(
        simulated.judge(Tee::Tdx, &strictest),
        Err(Rejected::Appraisal(AppraisalError::TcbStatus { .. }))
    ));
}

#[test]
fn open_advisories_are_refused_until_the_policy_names_each() {
    let ids = vec!["INTEL-SA-00001".to_owned(), "INTEL-SA-00002".to_owned()];
    refused_by_the_policy(
        Fault::Advisories { ids },
        &AppraisalError::Advisories("INTEL-SA-00001, INTEL-SA-00002".into()),
        "accepted-advisories = [\"intel-sa-00001\", \"INTEL-SA-00002\"]",
    );
}

#[test]
fn features_that_weaken_isolation_are_refused_until_the_policy_allows_each() {
    for (fault, name, line) in [
        (Fault::Smt, "smt", "allow-smt = true"),
        (
            Fault::DynamicPlatform,
            "dynamic-platform",
            "allow-dynamic-platform = true",
        ),
        (Fault::CachedKeys, "cached-keys", "allow-cached-keys = true"),
    ] {
        for tee in [Tee::Sgx, Tee::Tdx] {
            let simulated = Simulated::with(fault.clone());
            match simulated.judge(tee, &AppraisalPolicy::per_release()) {
                Err(Rejected::Appraisal(AppraisalError::Feature(found))) => {
                    assert!(found.contains(name), "{found}");
                }
                other => panic!("{other:?}"),
            }
            simulated.judge(tee, &policy(line)).unwrap();
        }
    }
}

#[test]
fn stale_collateral_is_refused_by_whoever_saw_newer_and_below_the_policys_minimum() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let mut simulated = Simulated::healthy();
        let verifier = simulated.verifier(tee);
        let quote = simulated.quote(tee);
        let strictest = AppraisalPolicy::per_release();
        accept(&verifier, &quote, &BOUND, &strictest, NOW).unwrap();

        simulated.machine.apply(Fault::StaleCollateral).unwrap();
        let stale = simulated.machine.collateral_for(tee);
        verifier.replace_endorsements(endorsements(stale));
        let judged = accept(&verifier, &quote, &BOUND, &strictest, NOW);
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Stale(_)))),
            "{judged:?}"
        );
        // Who never saw newer cannot know, unless the policy has a minimum.
        simulated.judge(tee, &strictest).unwrap();
        let number = sesemi_simtee::TCB_EVALUATION_DATA_NUMBER;
        let minimum = policy(&format!("minimum-evaluation-number = {number}"));
        assert!(matches!(
            simulated.judge(tee, &minimum),
            Err(Rejected::Appraisal(AppraisalError::EvaluationNumber { .. }))
        ));
    }
}

#[test]
fn a_clock_that_is_set_back_revives_no_expired_collateral() {
    let mut simulated = Simulated::healthy();
    let verifier = simulated.verifier(Tee::Sgx);
    let quote = simulated.quote(Tee::Sgx);
    let strictest = AppraisalPolicy::per_release();
    accept(&verifier, &quote, &BOUND, &strictest, NOW).unwrap();
    let old = endorsements(simulated.machine.collateral());

    let later = NOW + 60 * 86_400;
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(later);
    simulated.machine.renew_collateral(date).unwrap();
    verifier.replace_endorsements(endorsements(simulated.machine.collateral()));
    accept(&verifier, &quote, &BOUND, &strictest, later).unwrap();

    verifier.replace_endorsements(old);
    let judged = accept(&verifier, &quote, &BOUND, &strictest, NOW);
    assert!(
        matches!(&judged, Err(Rejected::Verify(VerifyError::Evidence(text))) if text.contains("Expired")),
        "{judged:?}"
    );
}

#[test]
fn only_listed_platforms_are_accepted_where_the_policy_lists_them() {
    let (ours, other) = (Simulated::healthy(), Simulated::healthy());
    let listed = |ppid: [u8; 16]| {
        let text = format!(
            "code = \"per-release\"\nplatforms = [\"{}\"]",
            hex::encode(ppid)
        );
        AppraisalPolicy::from_toml(&text).unwrap()
    };
    ours.judge(Tee::Sgx, &listed(ours.machine.ppid())).unwrap();
    assert!(matches!(
        ours.judge(Tee::Sgx, &listed(other.machine.ppid())),
        Err(Rejected::Appraisal(
            AppraisalError::PlatformNotListed { .. }
        ))
    ));
}

#[test]
fn code_that_is_not_listed_is_refused_before_any_signature_is_looked_at() {
    let simulated = Simulated::healthy();
    let listed = AppraisalPolicy::reference_values([sesemi_protocol::CodeIdentityDigest([7; 32])]);
    // The chain is broken as well, but the cheaper reason comes first.
    let mut quote = simulated.quote(Tee::Sgx);
    let last = quote.len() - 1500;
    quote[last] ^= 1;
    let judged = accept(
        &simulated.verifier(Tee::Sgx),
        &quote,
        &BOUND,
        &listed.unwrap(),
        NOW,
    );
    assert!(
        matches!(
            judged,
            Err(Rejected::Appraisal(AppraisalError::CodeNotApproved { .. }))
        ),
        "{judged:?}"
    );
}

#[test]
fn evidence_that_is_bound_to_something_else_is_refused() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let simulated = Simulated::healthy();
        let quote = simulated.quote(tee);
        let strictest = AppraisalPolicy::per_release();
        let judged = accept(&simulated.verifier(tee), &quote, &[0; 64], &strictest, NOW);
        assert!(matches!(
            judged,
            Err(Rejected::Verify(VerifyError::NotBound))
        ));
    }
}

/// A verifier that accepted this machine a moment ago, and so remembers it.
fn acquainted(simulated: &Simulated, tee: Tee) -> sesemi_attest::EvidenceVerifier {
    let verifier = simulated.verifier(tee);
    let strictest = AppraisalPolicy::per_release();
    accept(&verifier, &simulated.quote(tee), &BOUND, &strictest, NOW).unwrap();
    verifier
}

#[test]
fn a_known_platform_needs_the_signature_of_its_attestation_key_on_every_quote() {
    for tee in [Tee::Sgx, Tee::Tdx] {
        let simulated = Simulated::healthy();
        let verifier = acquainted(&simulated, tee);
        let strictest = AppraisalPolicy::per_release();
        let other = [0x77; 64];
        let fresh = simulated.quote_over(tee, &other);
        accept(&verifier, &fresh, &other, &strictest, NOW).unwrap();

        // The old signature over new report data, which is all that an attacker without the key could do.
        let old = simulated.quote(tee);
        let position = old.windows(64).position(|window| window == BOUND).unwrap();
        let mut forged = old;
        forged[position..position + 64].copy_from_slice(&other);
        let judged = accept(&verifier, &forged, &other, &strictest, NOW);
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Evidence(_)))),
            "{judged:?}"
        );
    }
}

#[test]
fn a_known_platform_is_unknown_again_with_other_endorsements_or_past_their_dates() {
    let strictest = AppraisalPolicy::per_release();
    for tee in [Tee::Sgx, Tee::Tdx] {
        let mut simulated = Simulated::healthy();
        let verifier = acquainted(&simulated, tee);
        let quote = simulated.quote(tee);
        simulated.machine.apply(Fault::PlatformRevoked).unwrap();
        verifier.replace_endorsements(simulated.endorsements(tee));
        let judged = accept(&verifier, &quote, &BOUND, &strictest, NOW);
        assert!(
            matches!(&judged, Err(Rejected::Verify(VerifyError::Evidence(text))) if text.contains("CertRevoked")),
            "{judged:?}"
        );

        let simulated = Simulated::healthy();
        let verifier = acquainted(&simulated, tee);
        let last = NOW + 30 * 86_400;
        let quote = simulated.quote(tee);
        accept(&verifier, &quote, &BOUND, &strictest, last - 60).unwrap();
        let judged = accept(&verifier, &quote, &BOUND, &strictest, last + 60);
        assert!(
            matches!(&judged, Err(Rejected::Verify(VerifyError::Evidence(text))) if text.contains("Expired")),
            "{judged:?}"
        );
    }
}

/// As Intel's: all its lists have number 1, so only their dates tell the newer.
#[test]
fn an_older_revocation_list_is_refused_by_whoever_saw_a_newer_one() {
    let strictest = AppraisalPolicy::per_release();
    for tee in [Tee::Sgx, Tee::Tdx] {
        let mut simulated = Simulated::healthy();
        let old = simulated.machine.collateral_for(tee).clone();
        let quote = simulated.quote(tee);
        let later = NOW + 5 * 86_400;
        let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(later);
        simulated.machine.renew_collateral(date).unwrap();
        let verifier = simulated.verifier(tee);
        accept(&verifier, &quote, &BOUND, &strictest, later).unwrap();

        // Everything current but the list, which is still within its dates.
        let mut mixed = simulated.machine.collateral_for(tee).clone();
        mixed.pck_crl = old.pck_crl.clone();
        verifier.replace_endorsements(endorsements(&mixed));
        let judged = accept(&verifier, &quote, &BOUND, &strictest, later);
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::Stale(_)))),
            "{judged:?}"
        );
        // Beside a newer one, an older list does no harm: sets are fetched on different days.
        let both = endorsements(&mixed).and(simulated.endorsements(tee));
        verifier.replace_endorsements(both.unwrap());
        accept(&verifier, &quote, &BOUND, &strictest, later).unwrap();
    }
}
