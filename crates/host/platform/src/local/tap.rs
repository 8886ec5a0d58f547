//! The curious host, for audits and demos: a copy of everything the host sees of each invocation, as HTTP messages in two
//! files. Whoever wants to know whether a plaintext ever reached the host searches these files for it.
//!
//! Off unless a directory is given. The number of files is bounded: the oldest pair makes room. A tap that cannot write
//! never harms an invocation.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::HeaderMap;

use crate::ActivationId;

/// Activations whose copies are kept.
pub(super) const MAX_ACTIVATIONS: usize = 256;

/// A directory of copies.
#[derive(Debug, Clone)]
pub(super) struct Tap {
    directory: Arc<Path>,
    kept: Arc<Mutex<VecDeque<ActivationId>>>,
}

impl Tap {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.into(),
            kept: Arc::default(),
        })
    }

    /// Copies what is sent to an instance. Takes the place of the oldest activation if there are too many.
    pub(super) async fn request(
        &self,
        id: ActivationId,
        uri: String,
        headers: &HeaderMap,
        body: Bytes,
    ) {
        let surplus = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            // A request that is routed again overwrites its first copy.
            if !kept.contains(&id) {
                kept.push_back(id);
            }
            if kept.len() > MAX_ACTIVATIONS {
                kept.pop_front()
            } else {
                None
            }
        };
        let obsolete: Vec<PathBuf> = surplus.iter().flat_map(|id| self.paths(*id)).collect();
        let [path, _] = self.paths(id);
        self.store(
            path,
            message(&format!("POST {uri} HTTP/1.1"), headers),
            body,
            obsolete,
        )
        .await;
    }

    /// Copies what an instance answered.
    pub(super) async fn response(
        &self,
        id: ActivationId,
        status: u16,
        headers: &HeaderMap,
        body: Bytes,
    ) {
        let [_, path] = self.paths(id);
        self.store(
            path,
            message(&format!("HTTP/1.1 {status}"), headers),
            body,
            Vec::new(),
        )
        .await;
    }

    fn paths(&self, id: ActivationId) -> [PathBuf; 2] {
        ["request", "response"].map(|part| self.directory.join(format!("{id}.{part}")))
    }

    async fn store(&self, path: PathBuf, head: Vec<u8>, body: Bytes, obsolete: Vec<PathBuf>) {
        let write = move || {
            for path in obsolete {
                // Activations that got no answer have no second file.
                let _ = std::fs::remove_file(path);
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(path)?;
            file.write_all(&head)?;
            file.write_all(&body)
        };
        let problem = match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "the tap could not keep a copy");
    }
}

fn message(first_line: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = String::new();
    let _ = write!(head, "{first_line}\r\n");
    for (name, value) in headers {
        let _ = write!(
            head,
            "{name}: {}\r\n",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    head.push_str("\r\n");
    head.into_bytes()
}
