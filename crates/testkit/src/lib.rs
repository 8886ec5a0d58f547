//! What tests and the tools of developers share; nothing of the product depends on it.
//!
//! [`enclave`]: simulated enclaves in this process.
//!
//! Tests of the whole system run the binaries that are deployed: static, in release mode, each measured as one file.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "only tests and tools use this crate, and a broken build must fail them loudly"
)]

pub mod enclave;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub use sesemi_protocol::causes::in_one_line;

/// The folder with the product's binaries; they are built at the first call, by the command that `cargo demo` uses.
///
/// # Panics
/// If they do not build.
pub fn binaries() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).clone()
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["xtask", "build", "--json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "`cargo xtask build` failed");
    let built: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("`cargo xtask build --json` prints JSON");
    let folder = built.get("folder").and_then(serde_json::Value::as_str);
    PathBuf::from(folder.expect("the JSON names the folder"))
}
