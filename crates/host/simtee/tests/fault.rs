//! Each fault under an unmodified DCAP verifier with a strict policy: it refuses for the reason that belongs to the fault,
//! for SGX and TDX alike, and nothing else is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuoteCollateralV3, QuotePolicy, TcbStatus};
use sesemi_simtee::{
    Fault, Machine, Measurement, PlatformStatus, SealPolicy, TCB_EVALUATION_DATA_NUMBER,
    TdMeasurement, Tee,
};

const REPORT_DATA: [u8; 64] = [0x5a; 64];
const DAY: i64 = 24 * 60 * 60;
const BOTH: [Tee; 2] = [Tee::Sgx, Tee::Tdx];

/// A machine in a directory that ends with it, and the moment of its creation.
struct Bench {
    machine: Machine,
    now: u64,
    directory: tempfile::TempDir,
}

/// What a verifier is given.
#[derive(Clone)]
struct Evidence {
    quote: Vec<u8>,
    collateral: QuoteCollateralV3,
}

/// Which half of the evidence a fault is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Quote,
    Collateral,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        Self {
            machine: Machine::create(directory.path(), now).unwrap(),
            now: now.duration_since(UNIX_EPOCH).unwrap().as_secs(),
            directory,
        }
    }

    fn evidence(&self, tee: Tee) -> Evidence {
        let machine = &self.machine;
        let quote = match tee {
            Tee::Sgx => machine.quote(&Measurement::of_elf(b"a program"), &REPORT_DATA),
            Tee::Tdx => machine.td_quote(&TdMeasurement::of_elf(b"a program"), &REPORT_DATA),
        };
        Evidence {
            quote: quote.unwrap(),
            collateral: machine.collateral_for(tee).clone(),
        }
    }

    fn verify(&self, evidence: &Evidence) -> Result<QuoteClaims, String> {
        self.verify_with(evidence, &QuotePolicy::strict(self.now))
    }

    fn verify_with(
        &self,
        evidence: &Evidence,
        policy: &QuotePolicy,
    ) -> Result<QuoteClaims, String> {
        QuoteVerifier::new(self.machine.root_der().to_vec())
            .verify_with_policy(&evidence.quote, &evidence.collateral, self.now, policy)
            .map_err(|error| format!("{error:#}"))
    }
}

/// Applies the fault, checks that evidence is refused with this reason, that it is the named half alone that is at fault,
/// that the fault survives a reload, and that healing restores acceptance.
fn refused(tees: &[Tee], half: Half, fault: Fault, because: &str) {
    for &tee in tees {
        let mut bench = Bench::new();
        let before = bench.evidence(tee);
        bench.verify(&before).unwrap();

        bench.machine.apply(fault.clone()).unwrap();
        assert_eq!(bench.machine.faults(), std::slice::from_ref(&fault));
        let after = bench.evidence(tee);
        expect_refusal(&bench, &after, because);

        let other_half_only = match half {
            Half::Quote => Evidence {
                quote: before.quote.clone(),
                ..after
            },
            Half::Collateral => Evidence {
                collateral: before.collateral.clone(),
                ..after
            },
        };
        bench.verify(&other_half_only).unwrap();

        bench.machine = Machine::load(bench.directory.path()).unwrap();
        expect_refusal(&bench, &bench.evidence(tee), because);

        bench.machine.heal().unwrap();
        assert!(bench.machine.faults().is_empty());
        let claims = bench.verify(&bench.evidence(tee)).unwrap();
        assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
        // A quote made before the fault is as good as before.
        let quote = before.quote;
        bench
            .verify(&Evidence {
                quote,
                ..bench.evidence(tee)
            })
            .unwrap();
    }
}

fn expect_refusal(bench: &Bench, evidence: &Evidence, because: &str) {
    let reason = bench.verify(evidence).unwrap_err();
    assert!(
        reason.contains(because),
        "refused because: {reason}; expected: {because}"
    );
}

#[test]
fn a_revoked_platform_is_refused() {
    refused(
        &BOTH,
        Half::Collateral,
        Fault::PlatformRevoked,
        "CertRevoked",
    );
    // It is the PCK CA's list that says so.
    let mut bench = Bench::new();
    let healthy = bench.evidence(Tee::Sgx).collateral;
    bench.machine.apply(Fault::PlatformRevoked).unwrap();
    let mut evidence = bench.evidence(Tee::Sgx);
    evidence.collateral.pck_crl = healthy.pck_crl;
    bench.verify(&evidence).unwrap();
}

#[test]
fn a_platform_below_a_revoked_pck_ca_is_refused() {
    refused(&BOTH, Half::Collateral, Fault::PckCaRevoked, "CertRevoked");
    // It is the root's list that says so.
    let mut bench = Bench::new();
    let healthy = bench.evidence(Tee::Sgx).collateral;
    bench.machine.apply(Fault::PckCaRevoked).unwrap();
    let mut evidence = bench.evidence(Tee::Sgx);
    evidence.collateral.root_ca_crl = healthy.root_ca_crl;
    bench.verify(&evidence).unwrap();
}

#[test]
fn a_platform_whose_level_is_not_up_to_date_is_refused_with_its_status() {
    for (status, because) in [
        (PlatformStatus::OutOfDate, "TCB status OutOfDate is not"),
        (
            PlatformStatus::ConfigurationNeeded,
            "TCB status ConfigurationNeeded is not",
        ),
        (
            PlatformStatus::SwHardeningNeeded,
            "TCB status SWHardeningNeeded is not",
        ),
        (
            PlatformStatus::ConfigurationAndSwHardeningNeeded,
            "TCB status ConfigurationAndSWHardeningNeeded is not",
        ),
        (
            PlatformStatus::OutOfDateConfigurationNeeded,
            "TCB status OutOfDateConfigurationNeeded is not",
        ),
        (PlatformStatus::Revoked, "TCB status is invalid: Revoked"),
    ] {
        refused(
            &BOTH,
            Half::Collateral,
            Fault::TcbStatus { status },
            because,
        );
    }
}

#[test]
fn open_advisories_show_in_the_claims_of_a_quote_that_a_strict_policy_accepts() {
    for tee in BOTH {
        let mut bench = Bench::new();
        let ids = vec!["INTEL-SA-00334".to_owned(), "INTEL-SA-00615".to_owned()];
        let fault = Fault::Advisories { ids: ids.clone() };
        bench.machine.apply(fault).unwrap();
        let claims = bench.verify(&bench.evidence(tee)).unwrap();
        assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
        assert_eq!(claims.tcb.advisory_ids, ids);

        let minding = QuotePolicy::strict(bench.now).reject_advisory(&ids[1]);
        let reason = bench
            .verify_with(&bench.evidence(tee), &minding)
            .unwrap_err();
        assert!(reason.contains("INTEL-SA-00615"), "{reason}");

        bench.machine.heal().unwrap();
        let healed = bench.verify_with(&bench.evidence(tee), &minding).unwrap();
        assert!(healed.tcb.advisory_ids.is_empty());
    }
}

#[test]
fn a_platform_that_is_older_than_every_level_is_refused() {
    refused(
        &BOTH,
        Half::Quote,
        Fault::PceSvnBelowLevels,
        "No matching TCB level found",
    );
}

#[test]
fn a_quoting_enclave_that_is_out_of_date_is_refused() {
    refused(
        &BOTH,
        Half::Collateral,
        Fault::QeOutOfDate,
        "TCB status OutOfDate is not",
    );
    // The platform itself is fine.
    let mut bench = Bench::new();
    bench.machine.apply(Fault::QeOutOfDate).unwrap();
    let claims = bench
        .verify_with(
            &bench.evidence(Tee::Sgx),
            &QuotePolicy::claims_only(bench.now),
        )
        .unwrap();
    assert_eq!(claims.qe.tcb_level.tcb_status, TcbStatus::OutOfDate);
    assert_eq!(claims.platform.tcb_level.tcb_status, TcbStatus::UpToDate);
}

#[test]
fn a_tdx_module_that_is_out_of_date_is_refused_for_tdx_alone() {
    refused(
        &[Tee::Tdx],
        Half::Collateral,
        Fault::TdxModuleOutOfDate,
        "TCB status OutOfDate is not",
    );
    let mut bench = Bench::new();
    bench.machine.apply(Fault::TdxModuleOutOfDate).unwrap();
    bench.verify(&bench.evidence(Tee::Sgx)).unwrap();
}

#[test]
fn debug_mode_is_refused() {
    refused(&BOTH, Half::Quote, Fault::Debug, "Debug mode is enabled");
}

#[test]
fn collateral_that_has_expired_or_is_not_yet_valid_is_refused() {
    for (seconds, because) in [(-31 * DAY, "Expired"), (DAY, "in the future")] {
        refused(
            &BOTH,
            Half::Collateral,
            Fault::ClockOffset { seconds },
            because,
        );
    }
    let mut bench = Bench::new();
    let shifted = Fault::ClockOffset { seconds: -31 * DAY };
    bench.machine.apply(shifted).unwrap();
    assert!(bench.machine.collateral_expires() < SystemTime::now());
}

#[test]
fn a_clock_that_is_off_by_less_than_the_validity_is_not_noticed() {
    let mut bench = Bench::new();
    let shifted = Fault::ClockOffset { seconds: -29 * DAY };
    bench.machine.apply(shifted).unwrap();
    bench.verify(&bench.evidence(Tee::Sgx)).unwrap();
}

#[test]
fn stale_collateral_has_lower_numbers_and_is_refused_by_a_policy_with_a_minimum() {
    for tee in BOTH {
        let mut bench = Bench::new();
        let fresh = bench.verify(&bench.evidence(tee)).unwrap();
        bench.machine.apply(Fault::StaleCollateral).unwrap();
        let stale = bench.verify(&bench.evidence(tee)).unwrap();
        assert_eq!(fresh.tcb.eval_data_number, TCB_EVALUATION_DATA_NUMBER);
        assert_eq!(stale.tcb.eval_data_number, TCB_EVALUATION_DATA_NUMBER - 1);
        assert_eq!(
            stale.qe.tcb_eval_data_number,
            TCB_EVALUATION_DATA_NUMBER - 1
        );
        assert!(stale.latest_issue_date < fresh.latest_issue_date + 1);

        let minimum =
            QuotePolicy::strict(bench.now).min_tcb_eval_data_number(TCB_EVALUATION_DATA_NUMBER);
        let reason = bench
            .verify_with(&bench.evidence(tee), &minimum)
            .unwrap_err();
        assert!(reason.contains("below minimum"), "{reason}");

        bench.machine.heal().unwrap();
        let healed = bench.verify_with(&bench.evidence(tee), &minimum).unwrap();
        assert!(healed.platform.pck_crl_num > fresh.platform.pck_crl_num);
    }
}

#[test]
fn the_revocation_lists_of_stale_collateral_are_older_than_those_before_it() {
    let mut bench = Bench::new();
    let now = UNIX_EPOCH + Duration::from_secs(bench.now);
    bench.machine.renew_collateral(now).unwrap();
    let before = bench.verify(&bench.evidence(Tee::Sgx)).unwrap().platform;
    bench.machine.apply(Fault::StaleCollateral).unwrap();
    let stale = bench.verify(&bench.evidence(Tee::Sgx)).unwrap().platform;
    assert!(stale.pck_crl_num < before.pck_crl_num);
    assert!(stale.root_ca_crl_num < before.root_ca_crl_num);
}

#[test]
fn a_quoting_enclave_of_another_signer_is_refused() {
    refused(
        &BOTH,
        Half::Quote,
        Fault::QeOtherSigner,
        "QE MRSIGNER mismatch",
    );
}

#[test]
fn a_forged_qe_identity_is_refused() {
    refused(
        &BOTH,
        Half::Collateral,
        Fault::ForgedQeIdentity,
        "Signature is invalid for qe_identity",
    );
}

#[test]
fn forged_tcb_info_is_refused() {
    refused(
        &BOTH,
        Half::Collateral,
        Fault::ForgedTcbInfo,
        "Signature is invalid for tcb_info",
    );
}

#[test]
fn tcb_info_for_another_model_is_refused() {
    refused(
        &BOTH,
        Half::Collateral,
        Fault::FmspcMismatch,
        "Fmspc mismatch",
    );
}

#[test]
fn a_quote_by_a_key_that_the_quoting_enclave_does_not_vouch_for_is_refused() {
    refused(
        &BOTH,
        Half::Quote,
        Fault::UnboundAttestationKey,
        "QE report hash mismatch",
    );
}

#[test]
fn a_quote_under_another_root_is_refused() {
    // It bears the same name, so only the signature tells.
    refused(
        &BOTH,
        Half::Quote,
        Fault::OtherRoot,
        "InvalidSignatureForPublicKey",
    );
}

#[test]
fn a_platform_that_may_grow_keeps_keys_elsewhere_or_shares_cores_is_refused() {
    for (fault, because) in [
        (Fault::DynamicPlatform, "Dynamic platform is not allowed"),
        (Fault::CachedKeys, "Cached keys are not allowed"),
        (Fault::Smt, "SMT (hyperthreading) is not allowed"),
    ] {
        refused(&BOTH, Half::Quote, fault, because);
    }
}

#[test]
fn faults_add_up_and_each_shows() {
    let mut bench = Bench::new();
    for fault in [Fault::Smt, Fault::CachedKeys, Fault::PlatformRevoked] {
        bench.machine.apply(fault).unwrap();
    }
    expect_refusal(&bench, &bench.evidence(Tee::Sgx), "CertRevoked");
    // The reissued PCK certificate is the one that the list names.
    let mut evidence = bench.evidence(Tee::Sgx);
    evidence.collateral.pck_crl = Bench::new().evidence(Tee::Sgx).collateral.pck_crl;
    assert!(bench.verify(&evidence).is_err());

    bench.machine.heal().unwrap();
    bench.machine.apply(Fault::Smt).unwrap();
    bench.machine.apply(Fault::CachedKeys).unwrap();
    let policy = QuotePolicy::strict(bench.now)
        .allow_smt(true)
        .allow_cached_keys(true);
    let pck = bench
        .verify_with(&bench.evidence(Tee::Sgx), &policy)
        .unwrap()
        .platform
        .pck;
    assert_eq!(
        (pck.smt_enabled, pck.cached_keys, pck.dynamic_platform),
        (PckCertFlag::True, PckCertFlag::True, PckCertFlag::False)
    );
}

#[test]
fn sealing_keys_are_the_same_under_any_fault() {
    let mut bench = Bench::new();
    let program = Measurement::of_elf(b"a program");
    let key = |machine: &Machine| machine.seal_key(&program, SealPolicy::Measurement);
    let before = key(&bench.machine);
    bench.machine.apply(Fault::OtherRoot).unwrap();
    assert_eq!(key(&bench.machine), before);
}

#[test]
fn a_snapshot_of_the_directory_brings_back_the_collateral_of_that_moment() {
    let mut bench = Bench::new();
    let snapshot = std::fs::read(bench.directory.path().join("machine.json")).unwrap();
    let before = bench.machine.collateral().clone();
    bench.machine.apply(Fault::PlatformRevoked).unwrap();
    std::fs::write(bench.directory.path().join("machine.json"), snapshot).unwrap();
    bench.machine = Machine::load(bench.directory.path()).unwrap();
    assert_eq!(bench.machine.collateral(), &before);
    bench.verify(&bench.evidence(Tee::Sgx)).unwrap();
}
