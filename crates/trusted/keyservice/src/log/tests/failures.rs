//! Disks that are full, fail to sync, or take no writes at all.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::disk::Disk;
use super::*;

fn open_disk(disk: &Disk) -> Result<Replayed, LogError> {
    open_from(Arc::new(disk.clone()), &key(), Start::ORIGIN)
}

/// A log on a disk, filled, and a clock.
fn start(disk: &Disk, count: usize) -> (Log, Instant) {
    let (mut log, _) = open_disk(disk).unwrap();
    extend(&mut log, count);
    (log, Instant::now())
}

fn put(log: &mut Log, public: &[u8], now: Instant) -> Result<Vec<Point>, LogError> {
    log.append(&[draft(public)], &SystemEntropy::new(), now)
}

const LATER: Duration = Duration::from_secs(1);

#[test]
fn a_full_disk_is_named_loses_nothing_and_is_written_again_when_there_is_room() {
    let disk = Disk::default();
    let (mut log, mut now) = start(&disk, 20);
    disk.state().room = Some(disk.used() + 3);
    let mut kept = 20;
    let error = loop {
        match put(&mut log, &[7; 3000], now) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1000, "the disk never fills up");
    };
    assert!(matches!(error, LogError::Unwritable { .. }), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(log.point().sequence, kept);
    for _ in 0..3 {
        now += LATER;
        assert!(put(&mut log, &[8; 9000], now).is_err());
    }
    assert_eq!(log.reader().verify_all(|_, _| ()).unwrap(), log.point());

    disk.state().room = None;
    now += LATER;
    assert_eq!(
        put(&mut log, b"room again", now).unwrap()[0].sequence,
        kept + 1
    );
    assert!(log.failure().is_none());
    let (log, replayed) = open_disk(&disk.after_a_crash()).unwrap();
    assert_eq!(log.point().sequence, kept + 1);
    assert_eq!(replayed.last().unwrap(), b"room again");
    assert!(!replayed.iter().any(|public| public[0] == 8));
}

#[test]
fn the_disk_is_tried_again_after_a_second_and_not_before() {
    let disk = Disk::default();
    let (mut log, now) = start(&disk, 5);
    disk.state().failing_syncs = 1;
    assert!(put(&mut log, b"lost", now).is_err());
    let events = disk.state().history.len();
    let early = put(&mut log, b"early", now + LATER - Duration::from_millis(1));
    assert!(matches!(early, Err(LogError::Unwritable { .. })));
    assert_eq!(disk.state().history.len(), events);
    assert_eq!(
        put(&mut log, b"in time", now + LATER).unwrap()[0].sequence,
        6
    );
}

#[test]
fn what_a_failed_sync_left_behind_is_removed_before_anything_else_is_acknowledged() {
    for (evicts, failing) in [(false, 1), (false, 4), (true, 1), (true, 4)] {
        let disk = Disk::default();
        let (mut log, mut now) = start(&disk, 40);
        disk.state().evicts = evicts;
        for round in 0..30u8 {
            disk.state().failing_syncs = failing;
            let mut failed = 0;
            // As long as the disk fails; each attempt takes at least one of the failing syncs.
            while let Err(error) = put(&mut log, &[b'x', round], now) {
                assert!(
                    matches!(
                        error,
                        LogError::Unwritable { .. } | LogError::Uncertain { .. }
                    ),
                    "{error}"
                );
                now += LATER;
                failed += 1;
                assert!(failed <= failing, "it never works again");
            }
            assert!(failed > 0);
            // Right after the acknowledgement the power goes.
            let (after, replayed) = open_disk(&disk.after_a_crash()).unwrap();
            assert_eq!(after.point(), log.point());
            assert_eq!(replayed.len(), 41 + usize::from(round));
        }
    }
}

#[test]
fn readers_go_on_when_the_disk_takes_no_writes() {
    let disk = Disk::default();
    let (mut log, mut now) = start(&disk, 70);
    let reader = log.reader();
    disk.state().read_only = true;
    let error = put(&mut log, b"refused", now).unwrap_err();
    assert!(matches!(error, LogError::Uncertain { .. }), "{error}");
    for _ in 0..3 {
        now += LATER;
        let error = put(&mut log, b"refused", now).unwrap_err();
        assert!(matches!(error, LogError::Unwritable { .. }), "{error}");
        assert_eq!(reader.verify_all(|_, _| ()).unwrap().sequence, 70);
        assert_eq!(reader.read(33).unwrap().public, b"entry 33");
    }
    disk.state().read_only = false;
    now += LATER;
    put(&mut log, b"entry 71", now).unwrap();
    drop(log);
    assert_eq!(open_disk(&disk).unwrap().1.len(), 71);
}

#[test]
fn a_disk_that_cannot_even_be_read_is_an_error_and_comes_back() {
    let disk = Disk::default();
    let (mut log, now) = start(&disk, 70);
    let reader = log.reader();
    disk.state().failing_syncs = 1;
    disk.state().unreadable = true;
    assert!(put(&mut log, b"refused", now).is_err());
    assert!(matches!(reader.read(5), Err(LogError::Unreadable)));
    // What is known without the disk is still known.
    assert_eq!(reader.agrees(log.point()).unwrap(), Agreement::Same);
    disk.state().unreadable = false;
    put(&mut log, b"entry 71", now + LATER).unwrap();
    assert_eq!(reader.verify_all(|_, _| ()).unwrap().sequence, 71);
}

/// A disk that takes its time to be opened again: it says so, and goes on when it is told to.
#[derive(Debug)]
struct SlowToOpen {
    disk: Disk,
    opening: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Storage for SlowToOpen {
    fn open(&self, access: Access) -> std::io::Result<Box<dyn redb::StorageBackend>> {
        let _ = self.opening.send(());
        let _ = self.go_on.lock().unwrap().recv();
        self.disk.open(access)
    }
}

#[test]
fn the_end_of_the_log_is_known_while_a_failing_disk_is_opened_again() {
    let patience = Duration::from_secs(60);
    let disk = Disk::default();
    let ((opening, opened), (go_on, told)) = (channel(), channel());
    let storage = SlowToOpen {
        disk: disk.clone(),
        opening,
        go_on: Mutex::new(told),
    };
    go_on.send(()).unwrap();
    let (mut log, _) = open_from(Arc::new(storage), &key(), Start::ORIGIN).unwrap();
    opened.recv().unwrap();
    extend(&mut log, 5);
    let (reader, end) = (log.reader(), log.point());
    disk.state().failing_syncs = 1;
    let appending = std::thread::spawn(move || {
        let failed = put(&mut log, b"lost", Instant::now());
        (log, failed)
    });
    opened.recv_timeout(patience).expect("it is opened again");
    let (answer, answered) = channel();
    let asking = std::thread::spawn(move || {
        let newer = Point {
            sequence: end.sequence + 1,
            ..end
        };
        let agreed = [end, newer].map(|point| reader.agrees(point).unwrap());
        answer.send((reader.point(), agreed)).unwrap();
        reader
    });
    let known = answered.recv_timeout(patience);
    // Whatever came of it, the threads end.
    drop(go_on);
    let (log, failed) = appending.join().unwrap();
    let reader = asking.join().unwrap();
    assert_eq!(known, Ok((end, [Agreement::Same, Agreement::Behind])));
    assert!(failed.is_err());
    assert_eq!(log.point(), end);
    assert_eq!(reader.read(5).unwrap().sequence, 5);
}

#[test]
fn readers_on_other_threads_survive_failing_writes() {
    let disk = Disk::default();
    let (mut log, mut now) = start(&disk, 100);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reading = {
            let (reader, done) = (log.reader(), &done);
            scope.spawn(move || {
                let mut reads = 0u64;
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    reads += 1;
                    assert_eq!(
                        reader.read(1 + reads % 100).unwrap().sequence,
                        1 + reads % 100
                    );
                }
                reads
            })
        };
        for round in 0..100 {
            disk.state().failing_syncs = round % 2;
            let number = log.point().sequence + 1;
            let result = put(&mut log, format!("entry {number}").as_bytes(), now);
            assert_eq!(result.is_err(), round % 2 == 1);
            now += LATER;
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        assert!(reading.join().unwrap() > 0);
    });
    assert_eq!(log.point().sequence, 150);
}

#[test]
fn a_disk_that_lost_acknowledged_entries_is_never_written_again() {
    let disk = Disk::default();
    let (log, _) = start(&disk, 20);
    drop(log);
    let older = disk.after_a_crash();
    let (mut log, mut now) = start(&disk, 5);
    disk.state().failing_syncs = 1;
    disk.state().unreadable = true;
    assert!(put(&mut log, b"refused", now).is_err());
    // The disk comes back as it was five entries ago.
    *disk.state() = std::mem::take(&mut *older.state());
    for _ in 0..3 {
        now += LATER;
        let error = put(&mut log, b"refused", now).unwrap_err().to_string();
        assert!(error.contains("no longer has entry 25"), "{error}");
    }
}
