//! The library comes from the package index as it is pinned, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;

use sesemi_engines::{InstallError, LIBRARY, ONNXRUNTIME, optional};

#[test]
fn a_library_of_another_digest_is_refused_where_it_would_be_used() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ONNXRUNTIME.installed(folder.path()).unwrap(), None);
    let path = ONNXRUNTIME.path(folder.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"something else").unwrap();
    let refused = ONNXRUNTIME.installed(folder.path()).unwrap_err();
    assert!(matches!(refused, InstallError::Digest { .. }), "{refused}");
}

#[test]
fn what_is_installed_is_the_pinned_library_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = optional(ONNXRUNTIME.install(folder.path())).unwrap() else {
        return;
    };
    ONNXRUNTIME.verify(&path).unwrap();
    assert_eq!(path.file_name().unwrap(), LIBRARY);
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1);
    // A second time it is found, also where a broken one lay before.
    fs::write(&path, b"broken").unwrap();
    assert_eq!(ONNXRUNTIME.install(folder.path()).unwrap(), path);
    assert_eq!(ONNXRUNTIME.installed(folder.path()).unwrap(), Some(path));
}

/// Whether the test below runs in a process that it started.
const INNER: &str = "SESEMI_TEST_INNER";

#[test]
fn no_code_of_the_current_folder_runs_and_a_folder_may_be_relative() {
    if std::env::var_os(INNER).is_some() {
        match ONNXRUNTIME.install("engines".as_ref()) {
            // The client found what it was to fetch, and nobody to ask.
            Err(error @ InstallError::Fetch { .. }) if error.cannot_be_had() => {
                println!("{error}");
            }
            other => assert_eq!(optional(other).unwrap(), None),
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let code = "open('it-ran', 'w').close()\nraise SystemExit('from versions: none')\n";
    let marker = format!("import os\nos.chdir({:?})\n{code}", folder.path());
    for module in ["pip.py", "zipfile.py", "runpy.py", "shutil.py"] {
        fs::write(folder.path().join(module), &marker).unwrap();
    }
    let name = "no_code_of_the_current_folder_runs_and_a_folder_may_be_relative";
    let inner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .current_dir(folder.path())
        .env(INNER, "1")
        .env("PIP_NO_INDEX", "1")
        .env("PYTHONPATH", "")
        .output()
        .unwrap();
    assert!(inner.status.success(), "{inner:?}");
    assert!(!folder.path().join("it-ran").exists(), "{inner:?}");
}

#[test]
fn another_package_or_library_is_a_fault_and_a_missing_index_is_not() {
    let package = || "onnxruntime==1.32.0".to_owned();
    let fetch = |said: &str| InstallError::Fetch {
        package: package(),
        said: said.to_owned(),
    };
    let other = InstallError::Package {
        package: package(),
        said: "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE".to_owned(),
    };
    let digest = InstallError::Digest {
        path: LIBRARY.into(),
        found: "00".to_owned(),
        expected: "11",
    };
    for fault in [other, digest, fetch("no such option: --abi")] {
        assert!(!fault.cannot_be_had(), "{fault}");
    }
    assert!(fetch("ERROR: Could not find a version (from versions: none)").cannot_be_had());
    assert!(fetch("/usr/bin/python3: No module named pip").cannot_be_had());
}
