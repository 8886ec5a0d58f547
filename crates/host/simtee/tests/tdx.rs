//! TDX quotes of the simulated TEE under an unmodified DCAP verifier.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::quote::{AuthData, Quote};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy, TcbStatus};
use sesemi_simtee::{FMSPC, Machine, Measurement, TdMeasurement, Tee};

const REPORT_DATA: [u8; 64] = [0x5a; 64];
const HEADER_BYTES: usize = 48;
const REPORT_BYTES: usize = 584;

struct Bench {
    machine: Machine,
    now: u64,
    directory: tempfile::TempDir,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    Bench {
        machine: Machine::create(directory.path(), now).unwrap(),
        now: now.duration_since(UNIX_EPOCH).unwrap().as_secs(),
        directory,
    }
}

/// A measurement with another value in each field.
fn measurement() -> TdMeasurement {
    TdMeasurement {
        rt_mr: [[1; 48], [2; 48], [3; 48], [4; 48]],
        mr_config_id: [5; 48],
        mr_owner: [6; 48],
        mr_owner_config: [7; 48],
        ..TdMeasurement::of_elf(b"a program")
    }
}

impl Bench {
    fn quote(&self, measurement: &TdMeasurement) -> Vec<u8> {
        self.machine.td_quote(measurement, &REPORT_DATA).unwrap()
    }

    fn verify(&self, quote: &[u8]) -> Result<QuoteClaims, String> {
        self.verify_under(quote, self.machine.td_collateral())
    }

    fn verify_under(
        &self,
        quote: &[u8],
        collateral: &QuoteCollateralV3,
    ) -> Result<QuoteClaims, String> {
        QuoteVerifier::new(self.machine.root_der().to_vec())
            .verify_with_policy(quote, collateral, self.now, &QuotePolicy::strict(self.now))
            .map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn a_td_quote_verifies_strictly_and_carries_the_measurement_and_the_report_data() {
    let bench = bench();
    let claims = bench.verify(&bench.quote(&measurement())).unwrap();
    assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
    assert!(claims.tcb.advisory_ids.is_empty());
    assert_eq!(claims.platform.pck.fmspc, FMSPC);
    assert_eq!(claims.platform.pck.ppid, bench.machine.ppid());
    assert_eq!(claims.qe.report.isv_prod_id, 2);

    let (report, expected) = (*claims.report.as_td10().unwrap(), measurement());
    assert_eq!(report.mr_td, expected.mr_td);
    let rt_mr = [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3];
    assert_eq!(rt_mr, expected.rt_mr);
    assert_eq!(report.mr_config_id, expected.mr_config_id);
    assert_eq!(report.mr_owner, expected.mr_owner);
    assert_eq!(report.mr_owner_config, expected.mr_owner_config);
    assert_eq!(report.td_attributes, expected.td_attributes);
    assert_eq!(report.xfam, expected.xfam);
    assert_eq!(report.report_data, REPORT_DATA);
}

#[test]
fn a_td_quote_has_version_4_and_wraps_the_certification_of_its_quoting_enclave() {
    let bench = bench();
    let quote = Quote::parse(&bench.quote(&measurement())).unwrap();
    assert_eq!((quote.header.version, quote.header.tee_type), (4, 0x81));
    let AuthData::V4(auth_data) = &quote.auth_data else {
        panic!("not the authentication data of version 4");
    };
    assert_eq!(auth_data.certification_data.cert_type, 6);
    assert_eq!(auth_data.qe_report_data.certification_data.cert_type, 5);
}

#[test]
fn a_flipped_bit_in_any_byte_of_header_or_td_report_is_refused() {
    let bench = bench();
    let quote = bench.quote(&measurement());
    for index in 0..HEADER_BYTES + REPORT_BYTES {
        let mut forged = quote.clone();
        forged[index] ^= 1 << (index % 8);
        assert!(
            bench.verify(&forged).is_err(),
            "byte {index} was changed unnoticed"
        );
    }
}

#[test]
fn the_attributes_that_a_verifier_demands_of_a_trust_domain_are_checked() {
    let bench = bench();
    let with = |td_attributes: [u8; 8]| {
        bench.verify(&bench.quote(&TdMeasurement {
            td_attributes,
            ..measurement()
        }))
    };
    with([0, 0, 0, 0x10, 0, 0, 0, 0]).unwrap();
    for (td_attributes, because) in [
        ([0, 0, 0, 0, 0, 0, 0, 0], "SEPT_VE_DISABLE is not enabled"),
        ([1, 0, 0, 0x10, 0, 0, 0, 0], "Debug mode is enabled"),
        ([0, 0, 0, 0x30, 0, 0, 0, 0], "TD migration is enabled"),
    ] {
        let reason = with(td_attributes).unwrap_err();
        assert!(reason.contains(because), "{reason}");
    }
}

#[test]
fn the_collateral_of_the_other_kind_of_tee_does_not_do() {
    let bench = bench();
    let td_quote = bench.quote(&measurement());
    let quote = bench
        .machine
        .quote(&Measurement::of_elf(b"a program"), &REPORT_DATA)
        .unwrap();
    let (sgx, tdx) = (bench.machine.collateral(), bench.machine.td_collateral());
    bench.verify_under(&quote, sgx).unwrap();
    bench.verify_under(&td_quote, tdx).unwrap();
    assert!(bench.verify_under(&quote, tdx).is_err());
    assert!(bench.verify_under(&td_quote, sgx).is_err());
    // Nor does the TCB info of the one with the QE identity of the other.
    let mixed = QuoteCollateralV3 {
        tcb_info: tdx.tcb_info.clone(),
        tcb_info_signature: tdx.tcb_info_signature.clone(),
        ..sgx.clone()
    };
    let reason = bench.verify_under(&td_quote, &mixed).unwrap_err();
    assert!(reason.contains("Unsupported QE Identity"), "{reason}");
}

#[test]
fn each_kind_of_tee_has_a_quoting_enclave_and_an_attestation_key_of_its_own() {
    let bench = bench();
    let parsed = |quote: &[u8]| Quote::parse(quote).unwrap();
    let sgx = bench
        .machine
        .quote(&Measurement::of_elf(b"a program"), &REPORT_DATA)
        .unwrap();
    let (sgx, tdx) = (
        parsed(&sgx).auth_data.into_v3(),
        parsed(&bench.quote(&measurement())).auth_data.into_v3(),
    );
    assert_ne!(sgx.ecdsa_attestation_key, tdx.ecdsa_attestation_key);
    assert_ne!(sgx.qe_report, tdx.qe_report);
}

#[test]
fn the_published_collateral_for_tdx_is_the_one_of_the_machine() {
    let bench = bench();
    let file = bench
        .directory
        .path()
        .join("public")
        .join(Tee::Tdx.collateral_file());
    let published: QuoteCollateralV3 =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(&published, bench.machine.td_collateral());
}
