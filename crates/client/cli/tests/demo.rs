//! `sesemi demo` as a person runs it: it succeeds, says what it must, and leaves nothing running.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::process::Command;

#[test]
fn the_demo_succeeds_says_what_it_must_and_leaves_no_process() {
    demo(&[]);
}

#[test]
fn the_demo_succeeds_on_onnx_runtime_too() {
    let folder = sesemi_engines::default_folder().unwrap();
    // Another library than the pinned one is no reason to skip.
    let installed = sesemi_engines::optional(sesemi_engines::ONNXRUNTIME.install(&folder));
    if installed.unwrap().is_some() {
        demo(&["--engine", "onnxruntime"]);
    }
}

fn demo(options: &[&str]) {
    let binaries = sesemi_testkit::binaries();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.json");
    let output = Command::new(binaries.join("sesemi"))
        .args(["demo", "--json"])
        .arg(&out)
        .args(options)
        .env_remove("SESEMI_ENGINES")
        // Its temporary state goes here, so that we can see what is left of it.
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let people = String::from_utf8(output.stdout).unwrap();
    assert!(people.contains("The TEE was simulated"));
    assert!(!people.contains('\u{1b}'), "colours only on a terminal");

    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(report["tee"], "simulated");
    assert_eq!(report["predictions_match_plaintext"], true);
    assert!(report["accuracy"].as_f64().unwrap() >= 0.95);
    for figure in ["cold_ms", "warm_ms", "hot_ms_p50"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}");
    }
    assert_eq!(report["paths"], serde_json::json!(["cold", "warm", "hot"]));
    let refused: Vec<&str> = report["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| refused["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        refused,
        ["unknown_principal", "not_authentic", "not_granted"]
    );

    let left = processes_that_mention(&folder.path().display().to_string());
    assert!(left.is_empty(), "still running: {left:?}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["out.json"], "the temporary state is gone");
}

#[test]
fn a_demo_without_its_binaries_fails_with_one_clear_sentence() {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(sesemi_testkit::binaries().join("sesemi"))
        .args(["demo", "--bin-dir"])
        .arg(empty.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("error: the binary"), "{stderr}");
    assert!(stderr.contains("cargo xtask build"), "{stderr}");
}

fn processes_that_mention(text: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return vec![];
    };
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(text).then_some(line)
        })
        .collect()
}
