//! What the host may do to the file between two starts, or while the service runs.

use redb::{Database, ReadableTable as _, TableDefinition};

use super::*;
use crate::log::database::ENTRIES;

type Entries<'t> = redb::Table<'t, u64, &'static [u8]>;

fn tamper(path: &Path, change: impl FnOnce(&mut Entries<'_>)) {
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    change(&mut write.open_table(ENTRIES).unwrap());
    write.commit().unwrap();
}

fn stored(path: &Path, number: u64) -> Vec<u8> {
    let mut value = Vec::new();
    tamper(path, |table| {
        value = table.get(number).unwrap().unwrap().value().to_vec();
    });
    value
}

fn put(path: &Path, number: u64, value: &[u8]) {
    tamper(path, |table| drop(table.insert(number, value).unwrap()));
}

fn remove(path: &Path, number: u64) {
    tamper(path, |table| drop(table.remove(number).unwrap()));
}

#[test]
fn another_key_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(filled(&path, 1));
    let other = SecretKey::from_bytes([2; 32]);
    let opened = open_from(Arc::new(FileStorage::new(&path)), &other, Start::ORIGIN);
    assert!(matches!(
        opened,
        Err(LogError::NotAuthentic { sequence: 1, .. })
    ));
}

#[test]
fn a_missing_entry_is_named() {
    for (missing, found) in [
        (1, Next::Entry(2)),
        (7, Next::Entry(8)),
        (9, Next::Entry(10)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        drop(filled(&path, 10));
        remove(&path, missing);
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains("sesemi keyservice restore"));
        match error {
            LogError::Gap { expected, found: f } => assert_eq!((expected, f), (missing, found)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_entry_missing_before_the_snapshot_is_noticed_though_it_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let log = filled(&path, 10);
    let start = log.start();
    drop(log);
    remove(&path, 4);
    let opened = open_from(Arc::new(FileStorage::new(&path)), &key(), start);
    assert!(matches!(opened, Err(LogError::Gap { expected: 4, .. })));
}

#[test]
fn entries_that_were_swapped_or_changed_are_noticed() {
    let changes: [fn(&Path); 5] = [
        |path| {
            let (two, three) = (stored(path, 2), stored(path, 3));
            put(path, 2, &three);
            put(path, 3, &two);
        },
        |path| put(path, 3, &stored(path, 2)),
        |path| {
            let mut two = stored(path, 2);
            *two.last_mut().unwrap() ^= 1;
            put(path, 2, &two);
        },
        |path| {
            let mut two = stored(path, 2);
            two[0] ^= 1;
            put(path, 2, &two);
        },
        |path| put(path, 2, b"short"),
    ];
    for change in changes {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        drop(filled(&path, 3));
        change(&path);
        assert!(matches!(open(&path), Err(LogError::NotAuthentic { .. })));
    }
}

/// Two histories that are the same up to entry `common` and differ after it.
fn fork(folder: &Path, common: usize, after: usize) -> [std::path::PathBuf; 2] {
    let paths = ["a", "b"].map(|name| folder.join(name));
    drop(filled(&paths[0], common));
    std::fs::copy(&paths[0], &paths[1]).unwrap();
    for (path, word) in paths.iter().zip(["one way", "other way"]) {
        let (mut log, _) = open(path).unwrap();
        for _ in 0..after {
            append(&mut log, &[word.as_bytes()]).unwrap();
        }
    }
    paths
}

#[test]
fn histories_that_diverged_cannot_be_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = fork(folder.path(), 5, 3);
    put(&a, 8, &stored(&b, 8));
    assert!(matches!(
        open(&a),
        Err(LogError::OtherHistory { sequence: 8 })
    ));
}

#[test]
fn a_fork_is_not_agreed_with_though_its_entries_are_put_into_the_file_before_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = fork(folder.path(), 40, 40);
    let point = open(&b).unwrap().0.reader().read(50).unwrap().point();
    let (log, _) = open(&a).unwrap();
    let start = log.start();
    assert_eq!(log.reader().agrees(point).unwrap(), Agreement::Forked);
    drop(log);
    // A start from the snapshot reads entry 80 alone; all others come from the fork.
    for number in 41..80 {
        put(&a, number, &stored(&b, number));
    }
    let (log, replayed) = open_from(Arc::new(FileStorage::new(&a)), &key(), start).unwrap();
    assert!(replayed.is_empty());
    let reader = log.reader();
    for number in [41, 50, 64, 65] {
        assert!(matches!(
            reader.read(number),
            Err(LogError::OtherHistory { .. })
        ));
    }
    assert!(matches!(
        reader.agrees(point),
        Err(LogError::OtherHistory { .. })
    ));
    assert!(matches!(
        reader.verify_all(|_, _| ()),
        Err(LogError::OtherHistory { .. })
    ));
    assert_eq!(reader.read(10).unwrap().public, b"entry 10");
}

#[test]
fn a_database_of_another_format_is_refused_with_its_number() {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    const IDENTITY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("identity");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("newer.redb");
    drop(filled(&path, 1));
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    let newer = 3u32.to_be_bytes();
    drop(
        write
            .open_table(META)
            .unwrap()
            .insert("format", newer.as_slice()),
    );
    write.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("format 3"), "{error}");

    // The first version kept no format.
    let path = folder.path().join("older.redb");
    let database = Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    drop(write.open_table(IDENTITY).unwrap());
    write.commit().unwrap();
    drop(database);
    assert!(matches!(open(&path), Err(LogError::Format { .. })));

    let path = folder.path().join("text.redb");
    std::fs::write(&path, "this is no database").unwrap();
    assert!(matches!(open(&path), Err(LogError::Database(_))));
}

#[test]
fn a_file_with_a_flipped_bit_is_refused_or_reads_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let log = filled(&path, 60);
    let end = log.point();
    drop(log);
    let good = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for place in (0..good.len()).step_by(509) {
        let mut bad = good.clone();
        bad[place] ^= 0x10;
        std::fs::write(&path, &bad).unwrap();
        match open(&path) {
            Ok((log, replayed)) => assert_eq!((log.point(), replayed.len()), (end, 60)),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
}
