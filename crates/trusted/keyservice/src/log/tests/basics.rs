//! What was appended is there, in order, for everyone who reads.

use super::*;

#[test]
fn what_was_appended_is_replayed_in_order_with_the_same_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let (mut log, _) = open(&path).unwrap();
    let points = append(&mut log, &[b"one", b"two"]).unwrap();
    assert_eq!(
        points.iter().map(|p| p.sequence).collect::<Vec<_>>(),
        [1, 2]
    );
    let end = append(&mut log, &[b"three"]).unwrap()[0];
    assert_eq!(log.point(), end);
    drop(log);
    let (log, replayed) = open(&path).unwrap();
    assert_eq!(
        replayed,
        [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
    );
    assert_eq!(log.point(), end);
}

#[test]
fn the_chain_covers_the_public_part_and_not_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let mut ends = Vec::new();
    for (name, public, secret) in [
        ("a", b"public", b"secret"),
        ("b", b"public", b"SECRET"),
        ("c", b"PUBLIC", b"secret"),
    ] {
        let (mut log, _) = open(&folder.path().join(name)).unwrap();
        let batch = [with_secret(public, secret)];
        let points = log.append(&batch, &SystemEntropy::new(), Instant::now());
        ends.push(points.unwrap()[0]);
    }
    assert_eq!(ends[0], ends[1]);
    assert_ne!(ends[0], ends[2]);
    // As whoever holds the public parts computes it: SHA-256([1, 32 zero bytes] in CBOR || SHA-256(public)).
    let mut bytes = vec![0x82, 0x01, 0x58, 0x20];
    bytes.extend([0; 32]);
    bytes.extend(Digest::of(b"public").as_bytes());
    assert_eq!(ends[0].chain, Digest::of(&bytes));
}

#[test]
fn an_entry_is_read_at_random_with_its_secret_and_its_place_in_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join("state.redb"), 100);
    let before = log.point();
    let batch = [with_secret(b"public", b"secret"), draft(b"after")];
    let points = log
        .append(&batch, &SystemEntropy::new(), Instant::now())
        .unwrap();
    let reader = log.reader();
    let entry = reader.read(101).unwrap();
    assert_eq!(entry.public, b"public");
    assert_eq!(entry.secret.as_ref().unwrap().as_slice(), b"secret");
    assert_eq!(entry.chain_before, before.chain);
    assert_eq!(entry.point(), points[0]);
    assert!(!format!("{entry:?}{batch:?}").contains("secret\""));
    for number in 1..=100 {
        let entry = reader.read(number).unwrap();
        assert_eq!(entry.public, format!("entry {number}").into_bytes());
        assert!(entry.secret.is_none());
    }
    for number in [0, 103, u64::MAX] {
        assert!(matches!(
            reader.read(number),
            Err(LogError::NoEntry { last: 102, .. })
        ));
    }
}

#[test]
fn a_scan_hands_out_exactly_the_entries_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = filled(&folder.path().join("state.redb"), 100);
    for (first, last) in [(1, 1), (1, 100), (31, 34), (32, 32), (33, 64), (97, 100)] {
        let mut numbers = Vec::new();
        let scanned = log.reader().scan(first, last, |entry| {
            numbers.push(entry.sequence);
            Ok::<(), LogError>(())
        });
        scanned.unwrap();
        assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    }
    let beyond = log.reader().scan(100, 101, |_| Ok::<(), LogError>(()));
    assert!(matches!(beyond, Err(LogError::NoEntry { .. })));
}

#[test]
fn a_point_is_the_same_behind_or_forked() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(&folder.path().join("state.redb")).unwrap();
    let mut points = vec![Point::START];
    for number in 0..100u32 {
        points.extend(append(&mut log, &[&number.to_be_bytes()]).unwrap());
    }
    let reader = log.reader();
    for point in points {
        assert_eq!(reader.agrees(point).unwrap(), Agreement::Same);
        let forked = Point {
            chain: Digest([9; 32]),
            ..point
        };
        assert_eq!(reader.agrees(forked).unwrap(), Agreement::Forked);
    }
    let beyond = Point {
        sequence: 101,
        ..log.point()
    };
    assert_eq!(reader.agrees(beyond).unwrap(), Agreement::Behind);
}

#[test]
fn readers_go_on_while_the_writer_appends() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = filled(&folder.path().join("state.redb"), 50);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let (reader, done) = (log.reader(), &done);
                scope.spawn(move || {
                    let mut reads = 0u64;
                    while !done.load(std::sync::atomic::Ordering::Acquire) || reads == 0 {
                        let point = reader.point();
                        assert_eq!(reader.agrees(point).unwrap(), Agreement::Same);
                        let entry = reader.read(1 + reads % point.sequence).unwrap();
                        assert_eq!(
                            entry.public,
                            format!("entry {}", entry.sequence).into_bytes()
                        );
                        reads += 1;
                    }
                })
            })
            .collect();
        extend(&mut log, 500);
        done.store(true, std::sync::atomic::Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    assert_eq!(log.reader().verify_all(|_, _| ()).unwrap(), log.point());
}

#[test]
fn an_entry_that_is_too_long_is_refused_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let (mut log, _) = open(&path).unwrap();
    let entropy = SystemEntropy::new();
    let largest = with_secret(&vec![7; MAX_PUBLIC], &[8; MAX_SECRET]);
    for refused in [
        draft(vec![0; MAX_PUBLIC + 1]),
        with_secret(b"", &[0; MAX_SECRET + 1]),
    ] {
        let batch = [draft(b"with it"), refused];
        let result = log.append(&batch, &entropy, Instant::now());
        assert!(matches!(result, Err(LogError::TooLarge { .. })));
    }
    assert!(
        log.append(&[], &entropy, Instant::now())
            .unwrap()
            .is_empty()
    );
    log.append(&[largest], &entropy, Instant::now()).unwrap();
    drop(log);
    let (log, replayed) = open(&path).unwrap();
    assert_eq!((log.point().sequence, replayed.len()), (1, 1));
    assert_eq!(
        log.reader().read(1).unwrap().secret.unwrap().len(),
        MAX_SECRET
    );
}

#[test]
fn a_log_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let log = filled(&path, 3);
    assert!(matches!(open(&path), Err(LogError::InUse)));
    drop(log);
    open(&path).unwrap();
}

#[test]
fn a_long_replay_reports_how_far_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let (mut log, _) = open(&path).unwrap();
    let batch: Vec<_> = (0..PROGRESS + 5).map(|n| draft(n.to_be_bytes())).collect();
    log.append(&batch, &SystemEntropy::new(), Instant::now())
        .unwrap();
    drop(log);
    let mut reports = Vec::new();
    let log = Log::open(
        Arc::new(FileStorage::new(&path)),
        &key(),
        Start::ORIGIN,
        |done, all| reports.push((done, all)),
        |_| Ok::<(), LogError>(()),
    );
    assert_eq!(log.unwrap().point().sequence, PROGRESS + 5);
    assert_eq!(reports, [(PROGRESS, PROGRESS + 5)]);
}
