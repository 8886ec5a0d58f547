//! What the REST interface is told once, at its start.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http::Bounds;
use crate::{Credentials, Program};

/// Settings of a [`RestServer`](super::RestServer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestConfig {
    /// Whoever has them may do everything here, and nobody else anything.
    pub credentials: Credentials,
    /// The one namespace; callers may write `_` for it. 1 to 64 characters of `a-z`, `0-9`, `-`, `_` and `.`.
    pub namespace: String,
    /// What actions may run, by the name that a caller gives as `exec.image`.
    pub images: BTreeMap<String, Program>,
    /// What connections may take.
    pub bounds: Bounds,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// Largest body of a request, parameters of an action, and result of an activation, in bytes.
    pub max_payload_bytes: usize,
    /// Actions at the same time.
    pub max_actions: usize,
    /// Memory that an action may have, in MiB.
    pub max_memory_mib: u32,
    /// Longest run that an action may have.
    pub max_timeout: Duration,
    /// Requests that one instance of an action may serve at once.
    pub max_concurrency: u32,
    /// Activations that run or wait to run at the same time.
    pub max_activations: usize,
    /// Longest that an activation waits for an instance, its start included.
    pub max_wait: Duration,
    /// Longest that a caller waits for a blocking activation before it is told only its id.
    pub max_blocking: Duration,
    /// Records that are kept; the oldest make room.
    pub max_records: usize,
    /// Results in the records that are kept, in bytes.
    pub max_record_bytes: usize,
}

/// Least memory of an action, in MiB, as in OpenWhisk.
pub(super) const MIN_MEMORY_MIB: u32 = 128;
/// Memory of an action that says nothing of it.
pub(super) const DEFAULT_MEMORY_MIB: u32 = 256;
/// Shortest time limit of an action.
pub(super) const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Time limit of an action that says nothing of it.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Log limit of an action, in MB: kept and told, and of no effect, because records have no logs.
pub(super) const MAX_LOGS: u32 = 10;

impl RestConfig {
    /// OpenWhisk's own limits where it has some: 1 MiB of payload, 512 MiB of memory, 300 s, 60 s of blocking.
    pub fn new(credentials: Credentials, images: BTreeMap<String, Program>) -> Self {
        Self {
            credentials,
            namespace: "guest".to_owned(),
            images,
            bounds: Bounds {
                max_connections: 256,
                ..Bounds::default()
            },
            body_timeout: Duration::from_secs(30),
            max_payload_bytes: 1 << 20,
            max_actions: 256,
            max_memory_mib: 512,
            max_timeout: Duration::from_secs(300),
            max_concurrency: 64,
            max_activations: 128,
            max_wait: Duration::from_secs(120),
            max_blocking: Duration::from_secs(60),
            max_records: 1024,
            max_record_bytes: 64 << 20,
        }
    }

    /// What is wrong, as a phrase.
    pub(super) fn check(&self) -> Result<(), String> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c);
        let name = &self.namespace;
        // `_` stands for whichever namespace there is.
        if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) || name == "_" {
            return Err(format!(
                "{name:?} is no namespace: 1 to 64 characters of a-z, 0-9, '-', '_' and '.' are needed"
            ));
        }
        if self.images.is_empty() {
            return Err("no image is registered, so no action could be made".to_owned());
        }
        let counts = [
            self.max_payload_bytes,
            self.max_actions,
            self.max_activations,
            self.max_records,
        ];
        if counts.contains(&0) || self.max_concurrency == 0 || self.max_memory_mib < MIN_MEMORY_MIB
        {
            return Err(format!(
                "limits must be at least 1, and that of memory at least {MIN_MEMORY_MIB} MiB"
            ));
        }
        if self.max_timeout < MIN_TIMEOUT {
            return Err(format!("the time limit must be at least {MIN_TIMEOUT:?}"));
        }
        Ok(())
    }
}
