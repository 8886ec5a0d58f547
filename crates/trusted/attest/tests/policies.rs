//! The policies in deploy/policies are policies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sesemi_attest::AppraisalPolicy;

/// Every file's text, by name.
fn files() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../deploy/policies");
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files: BTreeMap<_, _> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(files.len() >= 4, "found only {:?}", files.keys());
    files
}

#[test]
fn every_published_policy_can_be_used_and_demands_something_of_its_own() {
    let mut seen = BTreeMap::new();
    for (name, text) in files() {
        assert!(name.ends_with(".toml"), "{name} is no policy");
        let policy = AppraisalPolicy::from_toml(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let digest = policy.digest().unwrap().to_string();
        if let Some(other) = seen.insert(digest, name.clone()) {
            panic!("{name} demands the same as {other}");
        }
    }
}

#[test]
fn the_policies_for_keyservice_name_no_code() {
    let files = files();
    let for_keyservice = files
        .iter()
        .filter(|(name, _)| name.starts_with("keyservice"));
    let mut found = 0;
    for (name, text) in for_keyservice {
        assert!(
            text.lines().any(|line| line == "code = \"per-release\""),
            "{name}"
        );
        found += 1;
    }
    assert!(found >= 2);
}

#[test]
fn no_published_policy_accepts_a_platform_that_is_out_of_date() {
    for (name, text) in files() {
        let demands = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        for line in demands {
            assert!(
                !line.contains("OutOfDate") && !line.contains("grace"),
                "{name}: {line}"
            );
        }
    }
}
