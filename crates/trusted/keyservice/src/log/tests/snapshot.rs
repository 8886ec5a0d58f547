//! Snapshots, whole, torn, foreign, and of a log that is no longer there.

use std::path::PathBuf;

use super::*;
use crate::log::snapshot::{SnapshotError, Snapshots};

fn snapshots(folder: &Path) -> Snapshots {
    Snapshots::new(folder.join("snapshots"), &key()).unwrap()
}

fn write(folder: &Path, log: &Log, state: &[u8]) -> PathBuf {
    let written = snapshots(folder).write(&log.start(), state, &SystemEntropy::new());
    written.unwrap()
}

#[test]
fn a_snapshot_reads_back_and_the_log_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let mut log = filled(&path, 70);
    // Three segments, the last of them short; then one that ends on a segment's end; then an empty one.
    for length in [2_500_000, 2 * 1024 * 1024 - 2 * 32, 0] {
        let state: Vec<u8> = (0..length).map(|i: u32| (i / 7) as u8).collect();
        write(folder.path(), &log, &state);
        let newest = snapshots(folder.path()).newest().unwrap();
        let snapshot = newest.snapshot.unwrap();
        assert!(newest.skipped.is_empty());
        assert!(*snapshot.state == state);
        assert_eq!(snapshot.start, log.start());
    }
    let start = log.start();
    extend(&mut log, 40);
    let end = log.point();
    drop(log);
    let (log, replayed) = open_from(Arc::new(FileStorage::new(&path)), &key(), start).unwrap();
    assert_eq!((log.point(), replayed.len()), (end, 40));
    assert_eq!(replayed[0], b"entry 71");
    assert_eq!(log.reader().verify_all(|_, _| ()).unwrap(), end);
}

#[test]
fn the_newest_two_are_kept_and_none_means_the_first_entry() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        snapshots(folder.path())
            .newest()
            .unwrap()
            .snapshot
            .is_none()
    );
    let mut log = filled(&folder.path().join("state.redb"), 1);
    let mut written = Vec::new();
    for _ in 0..4 {
        extend(&mut log, 10);
        written.push(write(folder.path(), &log, b"state"));
    }
    let there: Vec<_> = written.iter().map(|path| path.exists()).collect();
    assert_eq!(there, [false, false, true, true]);
    assert_eq!(
        std::fs::read_dir(folder.path().join("snapshots"))
            .unwrap()
            .count(),
        2
    );
}

#[test]
fn one_that_is_torn_changed_or_foreign_is_passed_over_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join("state.redb"), 64);
    let state = vec![5; 1_500_000];
    write(folder.path(), &log, &state);
    let older = log.start();
    extend(&mut log, 3);
    let path = write(folder.path(), &log, &state);
    let good = std::fs::read(&path).unwrap();

    let foreign = {
        let elsewhere = tempfile::tempdir().unwrap();
        let other = SecretKey::from_bytes([2; 32]);
        let path = Snapshots::new(elsewhere.path(), &other)
            .unwrap()
            .write(&log.start(), &state, &SystemEntropy::new())
            .unwrap();
        std::fs::read(path).unwrap()
    };
    // A segment of an older snapshot of the same length, with the header of this one.
    let again = write(folder.path(), &log, &state);
    let mixed = [&good[..100_000], &std::fs::read(&again).unwrap()[100_000..]].concat();
    let flipped = |place: usize| {
        let mut bytes = good.clone();
        bytes[place] ^= 1;
        bytes
    };
    let mut bad: Vec<Vec<u8>> = vec![foreign, mixed, Vec::new()];
    bad.extend([0, 17, 27, 30, 60, 70, 83, 84, 1_200_000, good.len() - 1].map(flipped));
    bad.extend([10, 84, 85, 200_000, good.len() - 1].map(|cut| good[..cut].to_vec()));
    bad.push([good.as_slice(), &[0]].concat());
    for bytes in bad {
        std::fs::write(&path, &bytes).unwrap();
        let newest = snapshots(folder.path()).newest().unwrap();
        assert_eq!(newest.snapshot.unwrap().start, older);
        assert_eq!(newest.skipped.len(), 1);
        assert!(matches!(
            newest.skipped[0].1,
            SnapshotError::NotWhole | SnapshotError::NotAuthentic(_)
        ));
    }
    // The name is a hint: the place is in what is sealed.
    std::fs::write(&path, &good).unwrap();
    let renamed = path.with_file_name(format!("{:020}.snapshot", 9999));
    std::fs::rename(&path, renamed).unwrap();
    let newest = snapshots(folder.path()).newest().unwrap().snapshot.unwrap();
    assert_eq!(newest.start, log.start());
}

#[test]
fn a_log_that_does_not_contain_the_snapshot_was_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
    let mut log = filled(&path, 40);
    drop(log);
    std::fs::copy(&path, &copy).unwrap();
    (log, _) = open(&path).unwrap();
    extend(&mut log, 5);
    let start = log.start();
    drop(log);
    let reopen = || open_from(Arc::new(FileStorage::new(&copy)), &key(), start.clone());

    let shorter = reopen().unwrap_err();
    assert!(matches!(
        shorter,
        LogError::OlderThanSnapshot {
            log: 40,
            snapshot: 45
        }
    ));
    assert!(shorter.to_string().contains("older than the snapshot"));

    let (mut other, _) = open(&copy).unwrap();
    append(&mut other, &[b"1", b"2", b"3", b"4", b"5"]).unwrap();
    drop(other);
    assert!(matches!(reopen(), Err(LogError::ForkedFromSnapshot(45))));

    let (mut other, _) = open(&copy).unwrap();
    append(&mut other, &[b"6"]).unwrap();
    drop(other);
    assert!(matches!(reopen(), Err(LogError::ForkedFromSnapshot(45))));
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_the_others_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join("state.redb"), 10);
    write(folder.path(), &log, b"state");
    let older = log.start();
    extend(&mut log, 10);
    // A folder is where the temporary file would be.
    let taken = folder
        .path()
        .join("snapshots")
        .join(format!("{:020}.snapshot.new", 20));
    std::fs::create_dir(&taken).unwrap();
    let written = snapshots(folder.path()).write(&log.start(), b"new", &SystemEntropy::new());
    assert!(matches!(written, Err(SnapshotError::Io { .. })));
    let newest = snapshots(folder.path()).newest().unwrap();
    assert_eq!(newest.snapshot.unwrap().start, older);
}
