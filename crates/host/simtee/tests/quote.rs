//! Quotes of the simulated TEE under an unmodified DCAP verifier: accepted strictly under the simulator's own root, and
//! refused as soon as anything differs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dcap_qvl::quote::{EnclaveReport, Quote};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuoteCollateralV3, QuotePolicy, TcbStatus};
use sesemi_simtee::{FMSPC, Machine, Measurement, TCB_EVALUATION_DATA_NUMBER};

const REPORT_DATA: [u8; 64] = [0x5a; 64];
const HEADER_BYTES: usize = 48;
const REPORT_BYTES: usize = 384;

struct Evidence {
    machine: Machine,
    quote: Vec<u8>,
    now: u64,
    _state: tempfile::TempDir,
}

fn evidence() -> Evidence {
    let state = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let machine = Machine::create(state.path(), now).unwrap();
    let quote = machine.quote(&measurement(), &REPORT_DATA).unwrap();
    Evidence {
        machine,
        quote,
        now: now.duration_since(UNIX_EPOCH).unwrap().as_secs(),
        _state: state,
    }
}

fn measurement() -> Measurement {
    Measurement {
        config_id: [7; 64],
        ..Measurement::of_elf(b"a program")
    }
}

impl Evidence {
    fn verify(&self, quote: &[u8], now: u64) -> Result<QuoteClaims, String> {
        strictly(
            QuoteVerifier::new(self.machine.root_der().to_vec()),
            quote,
            self.machine.collateral(),
            now,
        )
    }

    fn report(&self) -> EnclaveReport {
        *self
            .verify(&self.quote, self.now)
            .unwrap()
            .report
            .as_sgx()
            .unwrap()
    }
}

fn strictly(
    verifier: QuoteVerifier,
    quote: &[u8],
    collateral: &QuoteCollateralV3,
    now: u64,
) -> Result<QuoteClaims, String> {
    verifier
        .verify_with_policy(quote, collateral, now, &QuotePolicy::strict(now))
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn a_quote_verifies_strictly_and_is_up_to_date_without_advisories() {
    let evidence = evidence();
    let claims = evidence.verify(&evidence.quote, evidence.now).unwrap();
    assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
    assert!(claims.tcb.advisory_ids.is_empty());
    assert_eq!(claims.tcb.eval_data_number, TCB_EVALUATION_DATA_NUMBER);
    assert_eq!(claims.platform.tcb_level.tcb_status, TcbStatus::UpToDate);
    assert_eq!(claims.qe.tcb_level.tcb_status, TcbStatus::UpToDate);
}

#[test]
fn a_quote_verifies_for_a_clock_that_is_behind_and_until_the_collateral_ends() {
    let evidence = evidence();
    let day = 24 * 60 * 60;
    assert!(evidence.verify(&evidence.quote, evidence.now - 60).is_ok());
    assert!(
        evidence
            .verify(&evidence.quote, evidence.now + 29 * day)
            .is_ok()
    );
    assert!(
        evidence
            .verify(&evidence.quote, evidence.now + 31 * day)
            .is_err()
    );
    assert!(
        evidence
            .verify(&evidence.quote, evidence.now - day)
            .is_err()
    );
}

#[test]
fn a_quote_carries_the_measurement_and_the_report_data() {
    let evidence = evidence();
    let (report, expected) = (evidence.report(), measurement());
    assert_eq!(report.mr_enclave, expected.mr_enclave);
    assert_eq!(report.mr_signer, expected.mr_signer);
    assert_eq!(report.isv_prod_id, expected.isv_prod_id);
    assert_eq!(report.isv_svn, expected.isv_svn);
    assert_eq!(report.reserved3[32..], expected.config_id);
    assert_eq!(report.report_data, REPORT_DATA);
    // INIT and MODE64BIT, and so not DEBUG.
    assert_eq!(report.attributes[..8], [5, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_quote_carries_every_field_of_the_platform() {
    let evidence = evidence();
    let pck = evidence
        .verify(&evidence.quote, evidence.now)
        .unwrap()
        .platform
        .pck;
    assert_eq!(pck.ppid, evidence.machine.ppid());
    assert_eq!(pck.fmspc, FMSPC);
    assert!(pck.platform_instance_id.is_some());
    assert_eq!(pck.dynamic_platform, PckCertFlag::False);
    assert_eq!(pck.cached_keys, PckCertFlag::False);
    assert_eq!(pck.smt_enabled, PckCertFlag::False);
    let quote = Quote::parse(&evidence.quote).unwrap();
    assert_eq!(
        dcap_qvl::intel::quote_ca(&quote).unwrap(),
        dcap_qvl::config::PckCa::Platform
    );
}

#[test]
fn another_report_data_gives_another_quote() {
    let evidence = evidence();
    let other = evidence.machine.quote(&measurement(), &[0xa5; 64]).unwrap();
    let claims = evidence.verify(&other, evidence.now).unwrap();
    assert_eq!(claims.report.as_sgx().unwrap().report_data, [0xa5; 64]);
    assert_ne!(evidence.report().report_data, [0xa5; 64]);
}

#[test]
fn production_roots_refuse_a_simulated_quote() {
    let evidence = evidence();
    let refused = strictly(
        QuoteVerifier::new_prod(),
        &evidence.quote,
        evidence.machine.collateral(),
        evidence.now,
    );
    assert!(refused.is_err());
}

#[test]
fn the_root_of_another_machine_refuses_a_quote() {
    let (evidence, other) = (evidence(), evidence());
    let verifier = || QuoteVerifier::new(other.machine.root_der().to_vec());
    assert!(
        strictly(
            verifier(),
            &evidence.quote,
            evidence.machine.collateral(),
            evidence.now
        )
        .is_err()
    );
    // Not even with the collateral that the other root has signed.
    assert!(
        strictly(
            verifier(),
            &evidence.quote,
            other.machine.collateral(),
            evidence.now
        )
        .is_err()
    );
}

#[test]
fn a_flipped_bit_in_any_byte_of_header_or_report_is_refused() {
    let evidence = evidence();
    for index in 0..HEADER_BYTES + REPORT_BYTES {
        let mut forged = evidence.quote.clone();
        forged[index] ^= 1 << (index % 8);
        assert!(
            evidence.verify(&forged, evidence.now).is_err(),
            "byte {index} was changed unnoticed"
        );
    }
}

#[test]
fn the_signatures_and_keys_of_the_quoting_enclave_cannot_be_changed() {
    let evidence = evidence();
    // Signature, attestation key, QE report, its signature, authentication data; 4 bytes of length come first.
    let start = HEADER_BYTES + REPORT_BYTES + 4;
    for index in (start..start + 64 + 64 + 384 + 64 + 2 + 32).step_by(7) {
        let mut forged = evidence.quote.clone();
        forged[index] ^= 0x10;
        assert!(
            evidence.verify(&forged, evidence.now).is_err(),
            "byte {index} was changed unnoticed"
        );
    }
}

#[test]
fn collateral_that_was_edited_is_refused() {
    let evidence = evidence();
    let refused = |collateral: &QuoteCollateralV3| {
        let verifier = QuoteVerifier::new(evidence.machine.root_der().to_vec());
        strictly(verifier, &evidence.quote, collateral, evidence.now).is_err()
    };
    let original = evidence.machine.collateral();
    assert!(!refused(original));
    let tcb_info = original.tcb_info.replace("OutOfDate", "UpToDate");
    assert!(refused(&QuoteCollateralV3 {
        tcb_info,
        ..original.clone()
    }));
    let qe_identity = original.qe_identity.replace("OutOfDate", "UpToDate");
    assert!(refused(&QuoteCollateralV3 {
        qe_identity,
        ..original.clone()
    }));
}

#[test]
fn a_quote_made_before_a_renewal_verifies_with_the_renewed_collateral() {
    let mut evidence = evidence();
    let later = evidence.now + 40 * 24 * 60 * 60;
    evidence
        .machine
        .renew_collateral(UNIX_EPOCH + Duration::from_secs(later))
        .unwrap();
    let claims = evidence.verify(&evidence.quote, later).unwrap();
    assert_eq!(claims.platform.pck_crl_num, 2);
    assert_eq!(claims.platform.root_ca_crl_num, 2);
}
