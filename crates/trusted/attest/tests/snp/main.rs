//! Verification of AMD SEV-SNP reports: a real one, and made ones that each break one link.
//!
//! Material is in `testdata/snp`; its README says what is from AMD and what is made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod arbitrary;
mod certificates;
mod made;
mod real;
mod reports;

use std::path::PathBuf;

/// A file of `testdata/snp`.
fn testdata(file: &str) -> Vec<u8> {
    read(&format!("testdata/snp/{file}"))
}

fn read(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
