//! Backups of a running log, and what becomes of damaged ones.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::log::backup::{self, BackupError, Summary};
use crate::log::restore;
use crate::log::snapshot::Snapshots;

struct Service {
    folder: tempfile::TempDir,
    log: Log,
}

/// A state folder as a service has it: 50 entries, a snapshot at 20, a later one, two ways to unlock it.
fn service() -> Service {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join(backup::DATABASE), 20);
    let unlock = folder.path().join("unlock");
    std::fs::create_dir(&unlock).unwrap();
    for name in ["recovery", &format!("{}.tee", "ab".repeat(32))] {
        std::fs::write(unlock.join(name), format!("key for {name}")).unwrap();
    }
    std::fs::write(unlock.join("recovery.new"), "half-written").unwrap();
    let snapshots = Snapshots::new(folder.path().join("snapshots"), &key()).unwrap();
    for count in [0, 30] {
        extend(&mut log, count);
        let state = vec![3; 1_100_000];
        snapshots
            .write(&log.start(), &state, &SystemEntropy::new())
            .unwrap();
    }
    Service { folder, log }
}

fn back_up(service: &Service) -> Vec<u8> {
    let mut out = Vec::new();
    let summary = backup::write(&service.log.reader(), service.folder.path(), &mut out).unwrap();
    assert_eq!(summary.files, 3);
    out
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let names = |path: &Path| {
        let items = std::fs::read_dir(path).unwrap();
        items.map(|item| item.unwrap().path()).collect::<Vec<_>>()
    };
    let all = names(folder).into_iter().flat_map(|path| {
        if path.is_dir() {
            names(&path)
        } else {
            vec![path]
        }
    });
    all.map(|path| path.strip_prefix(folder).unwrap().to_owned())
        .collect()
}

#[test]
fn a_restored_folder_opens_and_replays_the_same() {
    let service = service();
    let bytes = back_up(&service);
    let other = tempfile::tempdir().unwrap();
    let target = other.path().join("restored");
    let summary = restore::read(bytes.as_slice(), &target).unwrap();
    assert_eq!(
        summary,
        Summary {
            entries: 50,
            files: 3
        }
    );
    let snapshot = format!("snapshots/{:020}.snapshot", 50);
    let tee = format!("unlock/{}.tee", "ab".repeat(32));
    let expected = ["state.redb", "unlock/recovery", &snapshot, &tee];
    assert_eq!(files(&target), expected.map(PathBuf::from).into());
    for name in &expected[1..] {
        let there = |folder: &Path| std::fs::read(folder.join(name)).unwrap();
        assert!(there(&target) == there(service.folder.path()), "{name}");
    }
    let (log, replayed) = open(&target.join(backup::DATABASE)).unwrap();
    assert_eq!((log.point(), replayed.len()), (service.log.point(), 50));
    drop(log);
    let snapshots = Snapshots::new(target.join("snapshots"), &key()).unwrap();
    let start = snapshots.newest().unwrap().snapshot.unwrap().start;
    let storage = Arc::new(FileStorage::new(target.join(backup::DATABASE)));
    assert_eq!(open_from(storage, &key(), start).unwrap().1.len(), 0);
}

/// Appends to the log, and takes a snapshot, when the backup is at its first entries.
struct Busy<'a> {
    log: &'a mut Log,
    folder: &'a Path,
    bytes: Vec<u8>,
    writes: usize,
}

impl Write for Busy<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.writes += 1;
        if self.writes % 20 == 5 {
            extend(self.log, 7);
            Snapshots::new(self.folder.join("snapshots"), &key())
                .unwrap()
                .write(&self.log.start(), b"newer", &SystemEntropy::new())
                .unwrap();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_backup_is_of_one_moment_while_appends_and_snapshots_go_on() {
    let mut service = service();
    let (reader, before) = (service.log.reader(), service.log.point());
    let mut busy = Busy {
        log: &mut service.log,
        folder: service.folder.path(),
        bytes: Vec::new(),
        writes: 0,
    };
    let summary = backup::write(&reader, service.folder.path(), &mut busy).unwrap();
    assert_eq!(summary.entries, before.sequence);
    let bytes = busy.bytes;
    assert!(service.log.point().sequence > before.sequence + 20);
    let other = tempfile::tempdir().unwrap();
    let target = other.path().join("restored");
    restore::read(bytes.as_slice(), &target).unwrap();
    let snapshots = Snapshots::new(target.join("snapshots"), &key()).unwrap();
    let start = snapshots
        .newest()
        .unwrap()
        .snapshot
        .map(|found| found.start);
    let storage = Arc::new(FileStorage::new(target.join(backup::DATABASE)));
    let (log, _) = open_from(storage, &key(), start.unwrap_or(Start::ORIGIN)).unwrap();
    assert_eq!(log.point(), before);
}

/// Where records begin, and the end.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut found = vec![0];
    let mut at = 20;
    while at < bytes.len() {
        found.push(at);
        let length = u32::from_be_bytes(bytes[at + 1..at + 5].try_into().unwrap());
        at += 5 + length as usize;
    }
    assert_eq!(at, bytes.len());
    found
}

/// Restores, expects to fail, and expects to find nothing afterwards.
fn refused(bytes: &[u8]) -> BackupError {
    let folder = tempfile::tempdir().unwrap();
    let error = restore::read(bytes, &folder.path().join("restored")).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    error
}

#[test]
fn a_backup_cut_at_or_within_any_record_is_refused() {
    let bytes = back_up(&service());
    for cut in boundaries(&bytes) {
        for cut in [cut, cut + 3, cut + 7] {
            let error = refused(&bytes[..cut]);
            assert!(matches!(error, BackupError::CutShort), "{cut}: {error}");
        }
    }
    assert!(matches!(
        refused(&[bytes.as_slice(), &[0]].concat()),
        BackupError::Damaged(_)
    ));
    assert!(matches!(
        refused(b"something else that is long enough"),
        BackupError::NotABackup
    ));
}

#[test]
fn a_backup_with_any_byte_changed_is_refused() {
    let bytes = back_up(&service());
    let heads = boundaries(&bytes)
        .into_iter()
        .flat_map(|at| at..at + 12)
        .chain((0..bytes.len()).step_by(77_777))
        .chain(bytes.len() - 45..bytes.len());
    for place in heads {
        let mut bad = bytes.clone();
        bad[place] ^= 1;
        refused(&bad);
    }
}

/// A backup of one's own making, with a right checksum.
fn made(records: &[(u8, &[u8])], entries: u64) -> Vec<u8> {
    let mut bytes = b"SeSeMI backup\n\0\0\0\0\0\x02".to_vec();
    for (kind, content) in records {
        bytes.push(*kind);
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend(*content);
    }
    let digest = Digest::of(&bytes);
    bytes.extend([4, 0, 0, 0, 40]);
    bytes.extend(entries.to_be_bytes());
    bytes.extend(digest.as_bytes());
    bytes
}

#[test]
fn a_backup_cannot_write_outside_the_folder_or_claim_what_it_does_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let good = made(&[(1, b"unlock/recovery"), (2, b"x"), (3, b"entry")], 1);
    restore::read(good.as_slice(), &folder.path().join("good")).unwrap();
    for name in [
        "../evil",
        "/etc/evil",
        "unlock/../../evil",
        "unlock/evil",
        "snapshots/00000000000000000001.snapshot/..",
        "state.redb",
        "",
    ] {
        let bad = made(&[(1, name.as_bytes())], 0);
        assert!(matches!(refused(&bad), BackupError::Damaged(_)), "{name}");
    }
    for bad in [
        made(&[(3, b"entry")], 2),
        made(&[(2, b"content of nothing")], 0),
        made(&[(3, b"entry"), (2, b"x")], 1),
        made(&[(9, b"unknown")], 0),
        made(&[(3, &vec![0; 300_000])], 1),
    ] {
        assert!(matches!(refused(&bad), BackupError::Damaged(_)));
    }
    // A record that claims to be larger than any is not waited for.
    let mut huge = made(&[], 0);
    huge.truncate(20);
    huge.extend([3, 0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(refused(&huge), BackupError::Damaged(_)));
    let twice = made(&[(1, b"unlock/recovery"), (1, b"unlock/recovery")], 0);
    assert!(matches!(refused(&twice), BackupError::File { .. }));
}

#[test]
fn a_folder_with_something_in_it_is_never_restored_to() {
    let bytes = back_up(&service());
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("state");
    std::fs::create_dir(&target).unwrap();
    restore::read(bytes.as_slice(), &target).unwrap();
    let again = restore::read(bytes.as_slice(), &target);
    assert!(matches!(again, Err(BackupError::NotEmpty(_))));
    assert_eq!(open(&target.join(backup::DATABASE)).unwrap().1.len(), 50);
}
