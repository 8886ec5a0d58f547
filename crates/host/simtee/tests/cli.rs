//! The `simtee` program where no enclave has to run: what it prints, what it changes, what its help says.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
use serde_json::json;
use sesemi_simtee::{Fault, Machine, Measurement, TdMeasurement};

const REPORT_DATA: [u8; 64] = [0x42; 64];

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

fn simtee(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simtee"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn initialised() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    Machine::create(state.path(), SystemTime::now()).unwrap();
    state
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Seconds since the epoch.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What `simtee fault` prints as JSON.
fn fault(state: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = simtee(&["fault", "--json", "--state", text(state)])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn faults_are_applied_listed_and_cleared_on_the_command_line() {
    let state = initialised();
    let published = || std::fs::read(state.path().join("public/collateral.json")).unwrap();
    let healthy = published();
    assert_eq!(fault(state.path(), &["list"])["faults"], json!([]));
    assert_eq!(published(), healthy);

    fault(state.path(), &["platform-revoked"]);
    fault(state.path(), &["tcb-status", "sw-hardening-needed"]);
    fault(state.path(), &["advisories", "INTEL-SA-1", "INTEL-SA-2"]);
    let all = fault(state.path(), &["clock-offset", "-3600"]);
    let expected = json!([
        "platform-revoked",
        {"tcb-status": {"status": "sw-hardening-needed"}},
        {"advisories": {"ids": ["INTEL-SA-1", "INTEL-SA-2"]}},
        {"clock-offset": {"seconds": -3600}},
    ]);
    assert_eq!(all["faults"], expected);
    assert_eq!(fault(state.path(), &["list"]), all);
    let machine = Machine::load(state.path()).unwrap();
    let collateral: QuoteCollateralV3 = serde_json::from_slice(&published()).unwrap();
    assert_eq!(&collateral, machine.collateral());

    assert_eq!(fault(state.path(), &["clear"])["faults"], json!([]));
    let machine = Machine::load(state.path()).unwrap();
    let quote = machine
        .quote(&Measurement::of_elf(b"a program"), &REPORT_DATA)
        .unwrap();
    let collateral: QuoteCollateralV3 = serde_json::from_slice(&published()).unwrap();
    let now = now();
    QuoteVerifier::new(machine.root_der().to_vec())
        .verify_with_policy(&quote, &collateral, now, &QuotePolicy::strict(now))
        .unwrap();
}

#[test]
fn a_clock_offset_that_no_certificate_can_express_is_refused_and_changes_nothing() {
    let state = initialised();
    let file = state.path().join("machine.json");
    let before = std::fs::read(&file).unwrap();
    let most = i64::MAX.to_string();
    let output = simtee(&[
        "fault",
        "--state",
        text(state.path()),
        "clock-offset",
        &most,
    ])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a time that certificates cannot express"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn every_fault_without_parameters_is_a_subcommand() {
    let help = simtee(&["fault", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for fault in [
        Fault::PlatformRevoked,
        Fault::PckCaRevoked,
        Fault::PceSvnBelowLevels,
        Fault::QeOutOfDate,
        Fault::TdxModuleOutOfDate,
        Fault::Debug,
        Fault::StaleCollateral,
        Fault::QeOtherSigner,
        Fault::ForgedQeIdentity,
        Fault::ForgedTcbInfo,
        Fault::FmspcMismatch,
        Fault::UnboundAttestationKey,
        Fault::OtherRoot,
        Fault::DynamicPlatform,
        Fault::CachedKeys,
        Fault::Smt,
    ] {
        let name = serde_json::to_value(fault).unwrap();
        let name = name.as_str().unwrap();
        assert!(help.contains(&format!("\n  {name} ")), "{name}");
    }
}

#[test]
fn running_without_a_machine_says_how_to_create_one() {
    let empty = tempfile::tempdir().unwrap();
    let output = simtee(&["run", "--state", text(empty.path()), "--", "/bin/true"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("simtee init --state DIR"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn init_says_whether_it_created_or_kept_a_machine() {
    let state = tempfile::tempdir().unwrap();
    let init = || {
        let output = simtee(&["init", "--json", "--state", text(state.path())])
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let (first, second) = (init(), init());
    assert_eq!(first["outcome"], "created");
    assert_eq!(second["outcome"], "kept");
    assert_eq!(first["trust_domain"], second["trust_domain"]);
    let machine = Machine::load(state.path()).unwrap();
    assert_eq!(second["trust_domain"], hex::encode(machine.trust_domain()));
    let words = simtee(&["init", "--state", text(state.path())])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(words.stdout)
            .unwrap()
            .starts_with("kept the simulated machine")
    );
}

#[test]
fn measure_prints_the_digest_of_the_file() {
    let program = this_program();
    let output = simtee(&["measure", "--json", text(&program)])
        .output()
        .unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = Measurement::of_elf(&std::fs::read(&program).unwrap());
    assert_eq!(printed["mr_enclave"], hex::encode(expected.mr_enclave));
    assert_eq!(printed["mr_signer"], hex::encode(expected.mr_signer));
    let words = simtee(&["measure", text(&program)]).output().unwrap();
    assert!(
        String::from_utf8(words.stdout)
            .unwrap()
            .contains(&hex::encode(expected.mr_enclave))
    );
}

#[test]
fn measure_prints_the_longer_digest_of_the_file_for_a_trust_domain() {
    let program = this_program();
    let output = simtee(&["measure", "--json", "--tee", "tdx", text(&program)])
        .output()
        .unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = TdMeasurement::of_elf(&std::fs::read(&program).unwrap());
    assert_eq!(printed["mr_td"], hex::encode(expected.mr_td));
    assert_eq!(printed["rt_mr"], json!(vec!["0".repeat(96); 4]));
    let words = simtee(&["measure", "--tee", "tdx", text(&program)])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(words.stdout)
            .unwrap()
            .contains(&hex::encode(expected.mr_td))
    );
}

#[test]
fn every_command_has_an_example_in_its_help() {
    for command in ["init", "measure", "run", "fault", "serve"] {
        let output = simtee(&[command, "--help"]).output().unwrap();
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .contains(&format!("Example:\n  simtee {command} "))
        );
    }
}
