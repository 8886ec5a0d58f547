//! What the programs read themselves: inputs of models, KeyService's rules and snapshots, and files of operators and users.

#[cfg(feature = "engine")]
pub(crate) mod engine;
#[cfg(feature = "engine")]
pub(crate) mod files;
#[cfg(feature = "engine")]
pub(crate) mod graph;
pub(crate) mod identity;
pub(crate) mod state;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

/// Writes a file of this name, readable by its owner alone.
fn file(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(bytes))
        .unwrap();
    path
}
