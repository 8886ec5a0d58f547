//! What the embedded platform is told once, at its start.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a [`LocalPlatform`](super::LocalPlatform).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalConfig {
    /// Command prefix of every instance, for example `simtee run --state DIR --`; empty to start the binary itself.
    pub launcher: Vec<OsString>,
    /// Memory that all instances together may take, in MiB.
    pub user_memory_mib: u32,
    /// An instance idle for so long ends.
    pub idle_timeout: Duration,
    /// Time that an instance has from its start until it has answered `/init`.
    pub start_timeout: Duration,
    /// Invocations that may wait for an instance; at least 1.
    pub queue_capacity: usize,
    /// Time between SIGTERM and SIGKILL, and time that work in flight has at a shutdown.
    pub stop_grace: Duration,
    /// Largest response body that is passed on, in bytes.
    pub max_response_bytes: usize,
    /// Directory for what the instances print. It is made if it is not there.
    pub log_dir: PathBuf,
    /// Directory for copies of everything the host sees of each invocation. For audits; `None` keeps no copies.
    pub tap: Option<PathBuf>,
}

impl LocalConfig {
    /// Settings that suit one machine: 2 GiB, three minutes idle (as in the paper), 64 MiB of response, no launcher, no tap.
    pub fn new(log_dir: impl Into<PathBuf>) -> Self {
        Self {
            launcher: Vec::new(),
            user_memory_mib: 2048,
            idle_timeout: Duration::from_secs(180),
            start_timeout: Duration::from_secs(60),
            queue_capacity: 256,
            stop_grace: Duration::from_secs(10),
            max_response_bytes: 64 << 20,
            log_dir: log_dir.into(),
            tap: None,
        }
    }
}
