//! Whatever a disk holds after a crash: every acknowledged entry is found, and nothing that was refused for good.

use std::time::Duration;

use super::disk::{Disk, Event, Image, next};
use super::*;

/// A batch that was tried: from and up to which event, and what became of it.
#[derive(Debug)]
struct Tried {
    publics: Vec<Vec<u8>>,
    events: std::ops::Range<usize>,
    end: Outcome,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Acknowledged,
    Refused,
    Uncertain,
}

struct Run {
    disk: Disk,
    tried: Vec<Tried>,
}

/// A random run: batches of all sizes, and now and then a failing sync or a disk that is full for a while.
fn run(seed: u64) -> Run {
    let disk = Disk::default();
    let (mut log, _) = open_from(Arc::new(disk.clone()), &key(), Start::ORIGIN).unwrap();
    let mut random = seed;
    let mut below = |limit: u64| {
        random = next(random);
        random % limit
    };
    let mut now = Instant::now();
    let mut tried = Vec::new();
    for round in 0..40 {
        now += Duration::from_secs(below(3));
        let publics: Vec<Vec<u8>> = (0..=below(6))
            .map(|number| {
                let mut public = format!("{seed}/{round}/{number}/").into_bytes();
                public.resize(public.len() + below(900) as usize, b'.');
                public
            })
            .collect();
        let used = disk.used();
        {
            let mut state = disk.state();
            state.failing_syncs = (below(6) == 0).into();
            if state.failing_syncs > 0 {
                state.failing_syncs += below(3) as u32;
            }
            state.evicts = below(2) == 0;
            state.room = (below(8) == 0).then_some(used + below(3) as usize);
        }
        let begin = disk.state().history.len();
        let batch: Vec<_> = publics.iter().map(draft).collect();
        let end = match log.append(&batch, &SystemEntropy::new(), now) {
            Ok(_) => {
                disk.state().history.push(Event::Acknowledged);
                Outcome::Acknowledged
            }
            Err(LogError::Unwritable { .. }) => Outcome::Refused,
            Err(LogError::Uncertain { .. }) => Outcome::Uncertain,
            Err(other) => panic!("{other}"),
        };
        let events = begin..disk.state().history.len();
        tried.push(Tried {
            publics,
            events,
            end,
        });
    }
    Run { disk, tried }
}

/// Opens what a disk holds after a crash right before event `at`, and checks it.
fn check(run: &Run, at: usize, image: Image) {
    let (log, replayed) = open_from(Arc::new(Disk::with(image)), &key(), Start::ORIGIN).unwrap();
    assert_eq!(log.reader().verify_all(|_, _| ()).unwrap(), log.point());
    let acknowledged: Vec<_> = run
        .tried
        .iter()
        .filter(|tried| tried.events.end <= at && tried.end == Outcome::Acknowledged)
        .flat_map(|tried| &tried.publics)
        .collect();
    let (kept, more) = replayed.split_at(acknowledged.len());
    assert!(kept.iter().eq(acknowledged), "before event {at}");
    // More is there only if its fate was open when the power went: all of one batch, or nothing.
    if more.is_empty() {
        return;
    }
    let open = run
        .tried
        .iter()
        .find(|tried| tried.publics == more)
        .unwrap();
    let under_way = open.events.contains(&at);
    assert!(
        under_way || (open.end == Outcome::Uncertain && open.events.start < at),
        "a batch that was {:?} is there before event {at}",
        open.end
    );
}

/// Goes through a run's events and checks every image that a crash could leave.
fn check_all(run: &Run) -> usize {
    let history = run.disk.state().history.clone();
    let mut random = 1;
    let mut durable = Image::default();
    let mut pending: Vec<Event> = Vec::new();
    let mut images = 0;
    let first = run.tried[0].events.start;
    for (at, event) in history.iter().enumerate() {
        match event {
            Event::Synced => pending.drain(..).for_each(|event| durable.apply(&event)),
            Event::NotSynced(through) => {
                for (event, through) in pending.drain(..).zip(through) {
                    if *through {
                        durable.apply(&event);
                    }
                }
            }
            Event::Write(offset, data) if at >= first => {
                // All writes before this one came to the disk, and of this one a part.
                let mut torn = durable.clone();
                pending.iter().for_each(|event| torn.apply(event));
                random = next(random);
                torn.write(*offset, &data[..random as usize % data.len()]);
                check(run, at, torn);
                // Any of the writes came to the disk, in whatever order the disk liked.
                let mut some = durable.clone();
                pending.push(event.clone());
                for event in &pending {
                    random = next(random);
                    if random.is_multiple_of(2) || matches!(event, Event::Length(_)) {
                        some.apply(event);
                    }
                }
                check(run, at, some);
                images += 2;
            }
            Event::Acknowledged => check(run, at + 1, durable.clone()),
            other => pending.push(other.clone()),
        }
    }
    images
}

#[test]
fn after_any_crash_every_acknowledged_entry_is_there_and_no_refused_one() {
    let mut images = 0;
    let mut outcomes = [0; 3];
    for seed in 0..6 {
        let run = run(seed);
        images += check_all(&run);
        for tried in &run.tried {
            outcomes[match tried.end {
                Outcome::Acknowledged => 0,
                Outcome::Refused => 1,
                Outcome::Uncertain => 2,
            }] += 1;
        }
    }
    // The runs had all that they are for.
    assert!(
        images > 2000 && outcomes.iter().all(|count| *count > 2),
        "{images} {outcomes:?}"
    );
}

#[test]
fn a_file_that_was_never_made_to_its_end_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(open(&path).unwrap());
    let made = std::fs::metadata(&path).unwrap().len();
    // What is there before the magic number: a header without it, and no page; or an end that was not written at all.
    for length in [made, 100] {
        let mut unfinished = vec![0; usize::try_from(length).unwrap()];
        unfinished[9..64].fill(1);
        std::fs::write(&path, unfinished).unwrap();
        let (mut log, replayed) = open(&path).unwrap();
        assert!(replayed.is_empty());
        append(&mut log, &[b"first"]).unwrap();
        drop(log);
        assert_eq!(open(&path).unwrap().1, [b"first"]);
    }
}

#[test]
fn a_file_that_lost_its_magic_number_and_holds_more_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    drop(filled(&path, 10));
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[..9].fill(0);
    std::fs::write(&path, &damaged).unwrap();
    assert!(matches!(open(&path), Err(LogError::Database(_))));
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
}
