//! Tests of the log, and what they share.

mod backup;
mod basics;
mod crash;
mod damage;
mod disk;
mod failures;
mod snapshot;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sesemi_protocol::{Digest, SecretKey, SystemEntropy};
use zeroize::Zeroizing;

use super::*;

pub(super) const KEY: [u8; 32] = [1; 32];

pub(super) fn key() -> SecretKey {
    SecretKey::from_bytes(KEY)
}

pub(super) fn draft(public: impl AsRef<[u8]>) -> Draft {
    Draft {
        public: public.as_ref().to_vec(),
        secret: None,
    }
}

/// An opened log, and the public parts that it replayed.
pub(super) type Replayed = (Log, Vec<Vec<u8>>);

pub(super) fn open_from(
    storage: Arc<dyn Storage>,
    key: &SecretKey,
    from: Start,
) -> Result<Replayed, LogError> {
    let mut replayed = Vec::new();
    let log = Log::open(
        storage,
        key,
        from,
        |_, _| (),
        |entry| {
            replayed.push(entry.public);
            Ok::<(), LogError>(())
        },
    )?;
    Ok((log, replayed))
}

pub(super) fn open(path: &Path) -> Result<Replayed, LogError> {
    open_from(Arc::new(FileStorage::new(path)), &key(), Start::ORIGIN)
}

pub(super) fn append(log: &mut Log, publics: &[&[u8]]) -> Result<Vec<Point>, LogError> {
    let batch: Vec<_> = publics.iter().map(draft).collect();
    log.append(&batch, &SystemEntropy::new(), Instant::now())
}

/// A log of `count` entries, `entry 1` and so on, in batches of 10.
pub(super) fn filled(path: &Path, count: usize) -> Log {
    let (mut log, _) = open(path).unwrap();
    extend(&mut log, count);
    log
}

pub(super) fn extend(log: &mut Log, count: usize) {
    let first = log.point().sequence + 1;
    let publics: Vec<_> = (first..first + count as u64)
        .map(|number| format!("entry {number}").into_bytes())
        .collect();
    for batch in publics.chunks(10) {
        let batch: Vec<_> = batch.iter().map(Vec::as_slice).collect();
        append(log, &batch).unwrap();
    }
}

pub(super) fn with_secret(public: &[u8], secret: &[u8]) -> Draft {
    Draft {
        public: public.to_vec(),
        secret: Some(Zeroizing::new(secret.to_vec())),
    }
}
