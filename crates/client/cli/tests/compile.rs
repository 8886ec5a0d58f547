//! `sesemi model compile`, with a program in the place of `sesemi-compile` that does one step well and another not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use sesemi_compile::Description;

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../models/breast-cancer/breast-cancer.onnx"
);

/// Makes a form without weights laid out once more; with them it spoils what it finds in its folder, and fails.
const STEP: &str = r#"#!/bin/sh
job=$(cat)
printf '%s' "$job" > "${0%/*}/job"
folder=${job#*\"folder\":\"}
folder=${folder%%\"*}
case $job in
*'"prepack":false'*)
    printf weights > "$folder/weights.data"
    printf graph > "$folder/graph.onnx"
    printf '{"Ok":{"instruction_set":"any","loaded_bytes":7,"run_bytes":1,"difference":0.0,"load_ms":1.0,"run_ms":9.0}}'
    ;;
*)
    printf spoilt > "$folder/weights.data"
    printf '%s' "$SAID"
    ;;
esac
"#;

fn compiled(place: &Path, prepack: &str, said: &str) -> Output {
    compiled_with(place, &["--prepack", prepack], said)
}

fn compiled_with(place: &Path, arguments: &[&str], said: &str) -> Output {
    let program = place.join("sesemi-compile");
    fs::write(&program, STEP).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sesemi"))
        .args(["model", "compile", MODEL, "--engine", "rten"])
        .args(arguments)
        .arg("--bin-dir")
        .arg(place)
        .arg("--out")
        .arg(place.join("out"))
        .env("SAID", said)
        .output()
        .unwrap()
}

const FAILURES: [(&str, &str); 3] = [
    (
        r#"{"Err":{"why":"no room for it","differs":false}}"#,
        "no room for it",
    ),
    (
        r#"{"Err":{"why":"value 3 is another","differs":true}}"#,
        "value 3 is another",
    ),
    ("", "took its process down"),
];

#[test]
fn a_form_that_is_good_is_kept_where_laying_out_its_weights_fails_and_that_is_said() {
    for (said, why) in FAILURES {
        let place = tempfile::tempdir().unwrap();
        let output = compiled(place.path(), "auto", said);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        let folder = place.path().join("out");
        let description = Description::read(&folder).unwrap();
        let [form] = &description.forms(&folder).unwrap()[..] else {
            panic!("{description:?}")
        };
        assert!(!form.prepack);
        assert_eq!(form.parts, [b"weights".to_vec(), b"graph".to_vec()]);
    }
}

#[test]
fn a_form_whose_weights_must_be_laid_out_is_refused_where_that_fails() {
    for (said, why) in FAILURES {
        let place = tempfile::tempdir().unwrap();
        let output = compiled(place.path(), "on", said);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
        assert!(!place.path().join("out").exists());
    }
}

#[test]
fn a_batch_is_checked_by_the_step_and_written_down_and_inspected() {
    let place = tempfile::tempdir().unwrap();
    let arguments = ["--prepack", "off", "--batch", "8"];
    let output = compiled_with(place.path(), &arguments, "");
    assert!(output.status.success(), "{output:?}");
    let job: serde_json::Value =
        serde_json::from_slice(&fs::read(place.path().join("job")).unwrap()).unwrap();
    assert_eq!(job["batch"], 8);
    let folder = place.path().join("out");
    let batch = Description::read(&folder).unwrap().batch;
    assert_eq!(batch.map(std::num::NonZeroU32::get), Some(8));
    let inspected = Command::new(env!("CARGO_BIN_EXE_sesemi"))
        .args(["model", "inspect"])
        .arg(&folder)
        .output()
        .unwrap();
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(text.contains("8 rows at most"), "{text}");
    for wrong in ["1", "4097", "many"] {
        let refused = compiled_with(place.path(), &["--batch", wrong], "");
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
}
