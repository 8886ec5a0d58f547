//! `sesemi endorsements` as people and scripts run it, against services in this process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "support/services.rs"]
mod services;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::SystemTime;

use serde_json::Value;
use sesemi_attest::{Endorsements, Evidence, EvidenceVerifier, TrustAnchor};
use sesemi_simtee::{FMSPC, Fault, Machine, Measurement, TdMeasurement};
use tempfile::TempDir;

use services::{pcs, scripted, silent, tls};

const BOUND_TO: [u8; 64] = [7; 64];
const SNP: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../trusted/attest/testdata/snp/amd"
);

/// A simulated machine, and a folder for files.
struct Bench {
    machine: Machine,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::create(&folder.path().join("machine"), SystemTime::now()).unwrap();
        Self { machine, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Files with a quote of each kind.
    fn quotes(&self) -> [String; 2] {
        let files = [self.file("sgx.quote"), self.file("tdx.quote")];
        let program = b"a program";
        let sgx = self.machine.quote(&Measurement::of_elf(program), &BOUND_TO);
        let tdx = (self.machine).td_quote(&TdMeasurement::of_elf(program), &BOUND_TO);
        fs::write(&files[0], sgx.unwrap()).unwrap();
        fs::write(&files[1], tdx.unwrap()).unwrap();
        files
    }

    /// Whether evidence verifies with the endorsements in a file, under this machine's root and now.
    fn verifies(&self, quote: &str, endorsements: &str) -> bool {
        let anchor = TrustAnchor::simulated(self.machine.root_der().to_vec()).unwrap();
        let verifier = EvidenceVerifier::new(anchor, read(endorsements));
        let evidence = Evidence::from_bytes(fs::read(quote).unwrap()).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        verifier.verify(&evidence, &BOUND_TO, now).is_ok()
    }
}

fn read(endorsements: &str) -> Endorsements {
    Endorsements::from_json(&fs::read(endorsements).unwrap()).unwrap()
}

async fn run_with(args: &[&str], environment: &[(&str, &str)]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_sesemi"))
        .arg("endorsements")
        .args(args)
        .env_remove("SSL_CERT_FILE")
        .env_remove("SSL_CERT_DIR")
        .envs(environment.iter().copied())
        .output()
        .await
        .unwrap()
}

async fn json(args: &[&str]) -> Value {
    let output = run_with(&[args, &["--json"]].concat(), &[]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is said of a failure, which leaves no file.
async fn refusal(args: &[&str], out: &str) -> String {
    let output = run_with(&[args, &["--out", out]].concat(), &[]).await;
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(!Path::new(out).exists(), "nothing is written on failure");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: "), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_for_a_quote_verifies_it_and_add_keeps_the_rest() {
    let bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let [sgx, tdx] = bench.quotes();
    let out = bench.file("endorsements.json");
    let common = ["--pccs", &pccs, "--out", &out, "--add"];
    let said = json(&[&common[..], &["--evidence", &sgx]].concat()).await;
    assert_eq!(said["tee"], "sgx");
    assert_eq!(said["fmspc"], hex::encode(FMSPC));
    assert_eq!(said["ca"], "platform");
    assert_eq!(
        said["evaluation_number"],
        sesemi_simtee::TCB_EVALUATION_DATA_NUMBER
    );
    assert_eq!(said["sets"], 1);
    assert_eq!(said["mind"], serde_json::json!([]));
    assert!(bench.verifies(&sgx, &out));
    assert!(!bench.verifies(&tdx, &out), "there is nothing for TDX yet");

    let said = json(&[&common[..], &["--evidence", &tdx]].concat()).await;
    assert_eq!((&said["tee"], &said["sets"]), (&"tdx".into(), &2.into()));
    assert!(bench.verifies(&sgx, &out) && bench.verifies(&tdx, &out));

    // The same again takes the place of what was there.
    let said = json(&[&common[..], &["--evidence", &sgx]].concat()).await;
    assert_eq!(said["sets"], 2);
    assert!(bench.verifies(&sgx, &out) && bench.verifies(&tdx, &out));

    // Without --add the file is written anew.
    let said = json(&[&common[..4], &["--evidence", &tdx]].concat()).await;
    assert_eq!(said["sets"], 1);
    assert!(bench.verifies(&tdx, &out) && !bench.verifies(&sgx, &out));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_is_named_needs_no_quote_and_the_file_is_what_the_maker_publishes() {
    let bench = Bench::new();
    // As people copy it from documentation.
    let pccs = format!("{}/sgx/certification/v4/", pcs(&bench.machine).await);
    let out = bench.file("endorsements.json");
    let fmspc = hex::encode_upper(FMSPC);
    for (tee, published) in [
        ("sgx", bench.machine.collateral()),
        ("tdx", bench.machine.td_collateral()),
    ] {
        let platform = ["--tee", tee, "--fmspc", &fmspc];
        json(&[&["--pccs", &pccs, "--out", &out], &platform[..]].concat()).await;
        let file: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
        assert_eq!(file["dcap"][0], serde_json::to_value(published).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_as_dcap_tools_write_it_is_added_to() {
    let bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let [sgx, tdx] = bench.quotes();
    let out = bench.file("endorsements.json");
    let single = serde_json::to_vec(bench.machine.collateral()).unwrap();
    fs::write(&out, single).unwrap();
    let said = json(&["--pccs", &pccs, "--evidence", &tdx, "--out", &out, "--add"]).await;
    assert_eq!(said["sets"], 2);
    assert!(bench.verifies(&sgx, &out) && bench.verifies(&tdx, &out));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_endorsements_or_newer_than_the_answer_is_left_as_it_is() {
    let mut bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let [sgx, _] = bench.quotes();
    let folder = bench.folder.path().join("endorsements");
    fs::create_dir(&folder).unwrap();
    let out = folder.join("all.json");
    let out = out.to_str().unwrap();
    let args = ["--pccs", &pccs, "--evidence", &sgx, "--out", out, "--add"];
    json(&args).await;
    bench.machine.apply(Fault::StaleCollateral).unwrap();
    let newer = fs::read_to_string(out).unwrap();
    for (held, expected) in [
        (newer.as_str(), "the service is behind"),
        ("a list of things to do", "holds no endorsements"),
    ] {
        fs::write(out, held).unwrap();
        let output = run_with(&args, &[]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(fs::read_to_string(out).unwrap(), held);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_date_or_soon_will_be_is_said() {
    let mut bench = Bench::new();
    // The service follows what happens to the machine.
    let pccs = pcs(&bench.machine).await;
    let [sgx, _] = bench.quotes();
    let out = bench.file("endorsements.json");
    for (days, expected) in [
        (-27, "ends soon"),
        (-31, "OUT OF DATE since"),
        (1, "issued in the future"),
    ] {
        let seconds = days * 24 * 60 * 60;
        bench.machine.apply(Fault::ClockOffset { seconds }).unwrap();
        let said = json(&["--pccs", &pccs, "--evidence", &sgx, "--out", &out]).await;
        let mind = said["mind"].to_string();
        assert!(mind.contains(expected), "{expected}: {mind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_what_was_fetched_and_what_is_not_checked_yet() {
    let bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let [sgx, _] = bench.quotes();
    let out = bench.file("endorsements.json");
    let args = ["--pccs", &pccs, "--evidence", &sgx, "--out", &out];
    let text = String::from_utf8(run_with(&args, &[]).await.stdout).unwrap();
    assert!(
        text.contains("signatures are checked when evidence is verified"),
        "{text}"
    );
    let last = format!("{:<18} {out} (1 set)", "written");
    assert_eq!(text.lines().last(), Some(last.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_know_the_platform_is_quoted() {
    let bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let out = bench.file("endorsements.json");
    let args = ["--pccs", &pccs, "--tee", "sgx", "--fmspc", "00906EA10000"];
    let said = refusal(&args, &out).await;
    assert!(said.contains("404: no TCB info for this FMSPC"), "{said}");
    assert!(
        said.contains("does the service know this platform"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn collateral_for_another_model_is_not_written() {
    let mut bench = Bench::new();
    let [sgx, _] = bench.quotes();
    bench.machine.apply(Fault::FmspcMismatch).unwrap();
    let pccs = pcs(&bench.machine).await;
    let out = bench.file("endorsements.json");
    let said = refusal(&["--pccs", &pccs, "--evidence", &sgx], &out).await;
    assert!(said.contains("it is for FMSPC"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_no_answers_end_with_a_sentence() {
    let bench = Bench::new();
    let out = bench.file("endorsements.json");
    let garbage = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>".to_vec();
    let elsewhere =
        b"HTTP/1.1 302 Found\r\nlocation: https://elsewhere\r\nconnection: close\r\n\r\n".to_vec();
    let mut head = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    head.resize(1024 * 1024, b'x');
    let busy = b"HTTP/1.1 429 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec();
    for (answer, expected) in [
        (garbage, "is not a revocation list"),
        (elsewhere, "sends to 'https://elsewhere'"),
        (head, "cannot get http://"),
        (busy, "wait a little"),
        (Vec::new(), "cannot get http://"),
    ] {
        let pccs = scripted(move |_| answer.clone()).await;
        let args = ["--pccs", &pccs, "--tee", "sgx", "--fmspc", "00906ED50000"];
        let said = refusal(&args, &out).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_and_a_service_that_says_nothing_are_given_up() {
    let bench = Bench::new();
    let out = bench.file("endorsements.json");
    let platform = ["--tee", "sgx", "--fmspc", "00906ED50000"];
    let endless = services::endless().await;
    let said = refusal(&[&["--pccs", &endless], &platform[..]].concat(), &out).await;
    assert!(said.contains("longer than 1048576 bytes"), "{said}");
    let silent = silent().await;
    let args = ["--pccs", &silent, "--timeout", "1"];
    let said = refusal(&[&args, &platform[..]].concat(), &out).await;
    assert!(said.contains("not answered within 1 s"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_https_only_a_certificate_that_the_machine_trusts_will_do() {
    let bench = Bench::new();
    let [sgx, _] = bench.quotes();
    let (url, trusted) = tls(pcs(&bench.machine).await).await;
    let (_, another) = tls(pcs(&bench.machine).await).await;
    let out = bench.file("endorsements.json");
    let authorities = bench.file("authorities.pem");
    let args = ["--pccs", &url, "--evidence", &sgx, "--out", &out];
    for (pem, accepted, expected) in [
        ("", false, "no certificates of authorities"),
        (another.as_str(), false, "certificate"),
        (trusted.as_str(), true, ""),
    ] {
        fs::write(&authorities, pem).unwrap();
        let output = run_with(&args, &[("SSL_CERT_FILE", &authorities)]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), accepted, "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(Path::new(&out).exists(), accepted);
    }
    assert!(bench.verifies(&sgx, &out));
}

/// AMD's service with what AMD really published for Milan, and the path that a report of that machine leads to.
async fn kds() -> (String, Vec<u8>) {
    let report = fs::read(format!("{SNP}/report-milan.bin")).unwrap();
    // CHIP_ID and REPORTED_TCB stand at 0x1a0 and 0x180 (AMD 56860).
    let (chip, tcb) = (hex::encode(&report[0x1a0..0x1e0]), &report[0x180..0x188]);
    let path = format!(
        "/vcek/v1/Milan/{chip}?blSPL={:02}&teeSPL={:02}&snpSPL={:02}&ucodeSPL={:02}",
        tcb[0], tcb[1], tcb[6], tcb[7]
    );
    let file = |name: &str| services::success(&fs::read(format!("{SNP}/{name}")).unwrap());
    let answers = [
        ("/vcek/v1/Milan/crl".to_owned(), file("crl-milan.der")),
        ("/vcek/v1/Genoa/crl".to_owned(), file("crl-genoa.der")),
        ("/vcek/v1/Turin/crl".to_owned(), file("crl-genoa.der")),
        (path, file("vcek-milan.der")),
    ];
    let answer = move |target: &str| {
        let found = answers.iter().find(|(path, _)| path == target);
        found.map_or_else(services::not_found, |(_, answer)| answer.clone())
    };
    (scripted(answer).await, report)
}

/// Whether AMD's report verifies with these endorsements on 1 September 2026, when all of it is valid.
fn milan_verifies(report: &[u8], endorsements: &str) -> Result<(), String> {
    let verifier = EvidenceVerifier::new(TrustAnchor::production().unwrap(), read(endorsements));
    let evidence = Evidence::from_snp(report, None).unwrap();
    let bound_to = report[0x50..0x90].try_into().unwrap();
    let verified = verifier.verify(&evidence, bound_to, 1_788_220_800);
    verified.map(|_| ()).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn amds_list_and_the_certificate_of_a_chip_verify_its_report() {
    let bench = Bench::new();
    let (kds, report) = kds().await;
    let evidence = format!("{SNP}/report-milan.bin");
    let out = bench.file("endorsements.json");
    let common = ["--kds", &kds, "--out", &out, "--add"];
    let said = json(&[&common[..], &["--amd", "milan"]].concat()).await;
    assert_eq!(said["chip"], Value::Null);
    assert!(said["mind"][0].as_str().unwrap().contains("OUT OF DATE"));
    assert!(milan_verifies(&report, &out).is_err_and(|e| e.contains("no endorsements")));

    let milan = ["--amd", "milan", "--evidence", &evidence];
    let said = json(&[&common[..], &milan].concat()).await;
    assert_eq!(said["chip"], hex::encode(&report[0x1a0..0x1e0]));
    assert_eq!(milan_verifies(&report, &out), Ok(()));

    // A new list says nothing about certificates of chips, so they stay; another product is a set of its own.
    json(&[&common[..], &["--amd", "milan"]].concat()).await;
    let said = json(&[&common[..], &["--amd", "genoa"]].concat()).await;
    assert_eq!(said["sets"], 2);
    assert_eq!(milan_verifies(&report, &out), Ok(()));

    // And the same chip again is not there twice.
    json(&[&common[..], &milan].concat()).await;
    let file: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    let milan = file["snp"].as_array().unwrap().iter();
    let milan = milan.filter(|set| set["product"] == "milan");
    let vceks: Vec<_> = milan
        .map(|set| set["vceks"].as_array().unwrap().len())
        .collect();
    assert_eq!(vceks, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_travels_in_more_than_one_form_and_each_tells_the_chip() {
    let bench = Bench::new();
    let (kds, report) = kds().await;
    let (evidence, out) = (bench.file("evidence"), bench.file("endorsements.json"));
    let vcek = fs::read(format!("{SNP}/vcek-milan.der")).unwrap();
    let travelling = Evidence::from_snp(&report, Some(&vcek)).unwrap();
    fs::write(&evidence, travelling.as_bytes()).unwrap();
    json(&[
        "--amd",
        "milan",
        "--kds",
        &kds,
        "--evidence",
        &evidence,
        "--out",
        &out,
    ])
    .await;
    assert_eq!(milan_verifies(&report, &out), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_and_maker_must_fit_each_other() {
    let bench = Bench::new();
    let [sgx, _] = bench.quotes();
    let (kds, mut report) = kds().await;
    let (real, out) = (format!("{SNP}/report-milan.bin"), bench.file("out.json"));
    let masked = bench.file("masked.bin");
    report[0x1a0..0x1e0].fill(0);
    fs::write(&masked, &report).unwrap();
    let unknown = bench.file("unknown");
    fs::write(&unknown, "no evidence").unwrap();
    for (args, expected) in [
        (["--pccs", &kds, "--evidence", &real], "which --amd is for"),
        (
            ["--amd", "milan", "--evidence", &sgx],
            "which --pccs is for",
        ),
        (["--amd", "turin", "--evidence", &real], "is --amd right?"),
        (["--amd", "milan", "--evidence", &masked], "MASK_CHIP_ID"),
        (
            ["--amd", "milan", "--evidence", &unknown],
            "no evidence of a kind",
        ),
        // The machine is a Milan, so AMD knows no such Genoa.
        (["--amd", "genoa", "--evidence", &real], "404"),
    ] {
        let said = refusal(&[&args[..], &["--kds", &kds]].concat(), &out).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // A mirror that mixes products up.
    let said = refusal(&["--amd", "turin", "--kds", &kds], &out).await;
    assert!(said.contains("not by ARK-Turin"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_line_that_is_not_enough_says_what_is_missing() {
    let bench = Bench::new();
    let out = bench.file("out.json");
    for (args, expected) in [
        (&[][..], "--pccs"),
        (
            &["--pccs", "http://127.0.0.1:1"],
            "--tee sgx|tdx and --fmspc HEX",
        ),
        (
            &["--pccs", "http://127.0.0.1:1", "--amd", "milan"],
            "cannot be used with",
        ),
        (
            &["--amd", "milan", "--fmspc", "00906ED50000"],
            "cannot be used with",
        ),
        (
            &["--pccs", "http://127.0.0.1:1", "--fmspc", "0090"],
            "12 hexadecimal digits",
        ),
        (
            &["--amd", "milan", "--kds", "ftp://a"],
            "is not the address of a service",
        ),
    ] {
        let said = refusal(args, &out).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_read_what_is_published_and_a_writer_leaves_nothing_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    let pccs = pcs(&bench.machine).await;
    let [sgx, _] = bench.quotes();
    let folder = bench.folder.path().join("endorsements");
    fs::create_dir(&folder).unwrap();
    let out = folder.join("sgx.json");
    let out = out.to_str().unwrap();
    json(&["--pccs", &pccs, "--evidence", &sgx, "--out", out]).await;
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    // As an ordinary new file is, whatever the umask here lets.
    let ordinary = bench.file("ordinary");
    fs::write(&ordinary, "").unwrap();
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(out), mode(&ordinary));
}
