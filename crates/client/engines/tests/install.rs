//! The library comes from the package index as it is pinned, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use sesemi_engines::{EngineError, LIBRARY, ONNXRUNTIME};

#[test]
fn a_library_of_another_digest_is_refused_where_it_would_be_used() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(ONNXRUNTIME.installed(folder.path()).unwrap(), None);
    let path = ONNXRUNTIME.path(folder.path());
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"something else").unwrap();
    let refused = ONNXRUNTIME.installed(folder.path()).unwrap_err();
    assert!(matches!(refused, EngineError::Digest { .. }), "{refused}");
}

#[test]
fn what_is_installed_is_the_pinned_library_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = match ONNXRUNTIME.install(folder.path()) {
        Ok(path) => path,
        Err(error @ (EngineError::Fetch { .. } | EngineError::Client { .. })) => {
            eprintln!("skipped, for the package cannot be had here: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
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
