//! `sesemi measure` as people and scripts run it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const REFERENCE: &str = "kind = \"sgx\"\n\
    mr-enclave = \"a5defe07508c951cac5b89856c6d0298eb0bfb1fc61505fd140e7d6d877d4c7a\"\n\
    mr-signer = \"dd80654ff55d8660c227688ef719d1845cd76a80460e0fee97c70aa8dc958754\"\n\
    isv-prod-id = 1\nisv-svn = 2\n";

fn sigstructs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/testdata/sigstruct")
}

fn measure(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sesemi"))
        .arg("measure")
        .args(args)
        .env_remove("SESEMI_SIMULATED_ROOT")
        .env_remove("SESEMI_STACK")
        .output()
        .unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = measure(&[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refusal(args: &[&str]) -> String {
    let output = measure(args);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "no identity beside a refusal");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_sigstruct_and_the_same_values_in_a_file_give_the_same_identity() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values.toml");
    fs::write(&file, REFERENCE).unwrap();
    let sigstruct = sigstructs().join("production.sig");
    let signed = json(&["--sgx-sigstruct", sigstruct.to_str().unwrap()]);
    let given = json(&["--reference", file.to_str().unwrap()]);
    assert_eq!(signed["code"], given["code"]);
    assert_eq!(signed["simulated"], false);
    assert_eq!(signed["debug"], false);
    assert_eq!(signed["fields"]["isv_svn"], "2");
    assert_eq!(signed["measurements"][0], signed["fields"]["mr_enclave"]);
}

#[test]
fn the_last_line_for_people_is_what_they_approve() {
    let sigstruct = sigstructs().join("production.sig");
    let args = ["--sgx-sigstruct", sigstruct.to_str().unwrap()];
    let text = String::from_utf8(measure(&args).stdout).unwrap();
    let last = text.lines().last().unwrap();
    let code = json(&args)["code"].as_str().unwrap().to_owned();
    assert_eq!(last, format!("{:<18} {code}", "approve this"));
    assert!(text.contains("Intel's production root"));
}

#[test]
fn a_manifest_names_its_sigstruct_and_is_looked_into_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let sig = folder.path().join("semirt.sig");
    let manifest = folder.path().join("semirt.manifest.sgx");
    fs::copy(sigstructs().join("production.sig"), &sig).unwrap();
    let sound = fs::read_to_string(sigstructs().join("production.manifest.sgx")).unwrap();
    fs::write(&manifest, &sound).unwrap();
    let (by_sig, by_manifest) = (sig.to_str().unwrap(), manifest.to_str().unwrap());
    assert_eq!(
        json(&["--sgx-sigstruct", by_sig]),
        json(&["--sgx-sigstruct", by_manifest])
    );
    fs::write(&manifest, sound.replace("debug = false", "debug = true")).unwrap();
    for path in [by_sig, by_manifest] {
        let said = refusal(&["--sgx-sigstruct", path]);
        assert!(said.contains("sgx.debug: must be false"), "{said}");
    }
}

#[test]
fn a_debug_enclave_is_refused_with_what_to_do() {
    let debug = sigstructs().join("debug.sig");
    let said = refusal(&["--sgx-sigstruct", debug.to_str().unwrap()]);
    assert!(said.contains("sgx.debug = false"), "{said}");
}

#[test]
fn a_program_alone_has_no_identity_without_a_simulated_root() {
    let said = refusal(&[env!("CARGO_BIN_EXE_sesemi")]);
    assert!(said.contains("--simulated-root"), "{said}");
}

#[test]
fn exactly_one_source_is_taken() {
    assert!(refusal(&[]).contains("--sgx-sigstruct"));
    let both = refusal(&["--sgx-sigstruct", "a.sig", "--reference", "b.toml"]);
    assert!(both.contains("cannot be used with"), "{both}");
    for of_a_binary in [["--simulated-root", "r.der"], ["--tee", "tdx"]] {
        let said = refusal(&[&["--reference", "b.toml"], &of_a_binary[..]].concat());
        assert!(said.contains("cannot be used with"), "{said}");
    }
}

/// A folder with a `simtee` that says what the real one says of a program, for the kind of TEE that it is asked about.
fn folder_with_simtee() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let zero = "00".repeat(48);
    let tdx = format!(
        r#"{{"mr_td":"{}","rt_mr":["{zero}","{zero}","{zero}","{zero}"],"mr_owner":"{zero}","mr_config_id":"{zero}","mr_owner_config":"{zero}","td_attributes":"0000001000000000","xfam":"e702060000000000","interpreter":null,"simulated":true}}"#,
        "11".repeat(48)
    );
    let sgx = format!(
        r#"{{"mr_enclave":"{}","mr_signer":"{}","isv_prod_id":1,"isv_svn":1,"config_id":"{}","interpreter":null,"simulated":true}}"#,
        "22".repeat(32),
        "33".repeat(32),
        "00".repeat(64)
    );
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n'measure program --json') echo '{sgx}' ;;\n'measure program --json --tee tdx') echo '{tdx}' ;;\n*) exit 1 ;;\nesac\n"
    );
    let path = folder.path().join("simtee");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn a_program_on_a_simulated_platform_is_called_simulated_whichever_tee_is_played() {
    let folder = folder_with_simtee();
    // Any certificate is a root of its own.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../trusted/attest/roots/intel-sgx-root-ca.der");
    let stack = folder.path().join("stack.toml");
    fs::write(&stack, format!("simulated-root = {root:?}\n")).unwrap();
    let (bin, root) = (folder.path().to_str().unwrap(), root.to_str().unwrap());
    let by_flag = ["program", "--bin-dir", bin, "--simulated-root", root];
    let sgx = json(&by_flag);
    assert_eq!(sgx["tee"], "sgx");
    assert_eq!(sgx["fields"]["mr_enclave"], "22".repeat(32));
    let by_stack = [
        "program",
        "--bin-dir",
        bin,
        "--stack",
        stack.to_str().unwrap(),
    ];
    assert_eq!(json(&by_stack)["code"], sgx["code"]);
    let tdx = json(&[&by_flag[..], &["--tee", "tdx"]].concat());
    assert_eq!(tdx["tee"], "tdx");
    assert_eq!(tdx["measurements"][0], "11".repeat(48));
    assert_ne!(tdx["code"], sgx["code"]);
    assert!(sgx["simulated"] == true && tdx["simulated"] == true);
    let text = String::from_utf8(measure(&by_flag).stdout).unwrap();
    assert!(text.contains("SIMULATED"), "{text}");
}
