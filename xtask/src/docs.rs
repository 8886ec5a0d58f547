//! The documents name tests as their evidence. A name that no test has is a claim without evidence, so a test of ours reads
//! the documents and looks for each.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Documents whose backticks name tests, beside files and types.
const DOCUMENTS: [&str; 2] = ["docs/THREAT_MODEL.md", "docs/ARCHITECTURE.md"];
/// A test's name is a sentence: this many words at least. Shorter names in backticks are modules, fields and system calls.
const WORDS: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names of tests that a document mentions.
fn mentioned(text: &str) -> BTreeSet<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.split('_').count() >= WORDS
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect()
}

/// The text of every Rust file in a folder.
fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let mut code = String::new();
    for folder in ["crates", "fuzz", "xtask"] {
        let folder = root().join(folder);
        if folder.is_dir() {
            sources(&folder, &mut code);
        }
    }
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        let names = mentioned(&text);
        assert!(names.len() > 10, "{document} names tests");
        let missing: Vec<_> = names
            .into_iter()
            .filter(|name| {
                !code.contains(&format!("fn {name}(")) && !code.contains(&format!("fn {name}<"))
            })
            .collect();
        assert!(missing.is_empty(), "{document} names {missing:#?}");
    }
}
