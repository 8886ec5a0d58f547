//! Snapshots and replays: a state that was read back is the state that was written, wherever in its history that was.

use sesemi_keyservice::state::State;
use sesemi_protocol::audit::{self, Entry, Record};
use sesemi_protocol::command::Action;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{Digest, cbor};

use crate::histories::{Happened, Run};
use crate::random::{Random, any_command, history};
use crate::world::{founding, id, person, point, secret};

/// One entry as the log would give it: where it ends, what it says, and what belongs to it.
struct Logged {
    point: Point,
    entry: Entry,
    secret: Option<Vec<u8>>,
}

/// A random history and the log of it.
fn logged(seed: u64) -> (Run, Vec<Logged>) {
    let mut run = Run::new();
    for step in history(&mut Random::new(seed)) {
        run.step(&step).unwrap();
    }
    let mut end = extend(&Point::START, &founding());
    let log = run.entries.iter().map(|(at, happened)| {
        let (record, secret) = match happened {
            Happened::Record(record) => (record.clone(), None),
            Happened::Command(signer, command) => {
                let signed = command.sign(person(*signer)).unwrap();
                let secret = secret(&command.action).to_bytes();
                let secret = secret.map(|bytes| bytes.to_vec());
                (Record::Command(signed.into()), secret)
            }
        };
        let entry = Entry {
            at: *at,
            record,
            ..founding()
        };
        end = extend(&end, &entry);
        Logged {
            point: end,
            entry,
            secret,
        }
    });
    let log = log.collect();
    (run, log)
}

fn extend(before: &Point, entry: &Entry) -> Point {
    audit::extend(before, &Digest::of(&cbor::encode(entry).unwrap()))
}

fn replay(state: &mut State, log: &[Logged]) {
    for logged in log {
        let secret = logged.secret.as_deref();
        state.replay(logged.point, &logged.entry, secret).unwrap();
    }
}

fn first() -> State {
    State::found(&founding(), extend(&Point::START, &founding())).unwrap()
}

#[test]
fn a_log_and_any_snapshot_with_the_log_after_it_replay_to_the_same_state() {
    for seed in 0..400 {
        let (mut run, log) = logged(seed);
        // The log does not say when ended keys were wiped; every time by which they were is in it.
        let now = log.last().map_or(0, |logged| logged.entry.at);
        let bytes = |state: &mut State| {
            state.forget_ended(now);
            state.to_snapshot().to_vec()
        };
        let live = bytes(&mut run.state);
        let mut full = first();
        replay(&mut full, &log);
        assert_eq!(full.point(), log.last().unwrap().point);
        assert!(bytes(&mut full) == live, "seed {seed}");

        let mut random = Random::new(seed);
        for _ in 0..3 {
            let (before, after) = log.split_at(random.below(log.len() + 1));
            let mut state = first();
            replay(&mut state, before);
            let snapshot = state.to_snapshot();
            let mut state = State::from_snapshot(&snapshot, state.point()).unwrap();
            assert!(*state.to_snapshot() == *snapshot, "seed {seed}");
            replay(&mut state, after);
            assert_eq!(state.point(), full.point());
            assert!(
                bytes(&mut state) == live,
                "seed {seed}, after {}",
                before.len()
            );
        }
    }
}

#[test]
fn a_state_from_a_snapshot_decides_and_checks_as_before() {
    for seed in 0..400 {
        let (mut run, _) = logged(seed);
        let restored = State::from_snapshot(&run.state.to_snapshot(), run.state.point()).unwrap();
        let original = core::mem::replace(&mut run.state, restored);
        assert_eq!(run.state.point(), original.point());
        assert_eq!(run.state.service(), original.service());
        assert_eq!(run.state.floor(), original.floor());
        assert_eq!(run.state.governance(), original.governance());
        assert_eq!(run.state.time(0), original.time(0));
        // The naive model, which agreed with the original, agrees with what was read back.
        let now = run.now();
        for time in [now, now + 4] {
            run.asks(time, seed % 20 == 0)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        let mut random = Random::new(!seed);
        for _ in 0..100 {
            let step = any_command(&mut random, now);
            let crate::random::Step::Command {
                signer,
                numbering,
                other_service,
                action,
            } = &step
            else {
                continue;
            };
            let command = run.command(*signer, *numbering, *other_service, action);
            assert_eq!(
                run.state.check(&id(*signer), &command, now),
                original.check(&id(*signer), &command, now),
                "seed {seed}: {command:?}"
            );
        }
    }
}

/// A history after which most sections of a snapshot have something in them.
fn rich() -> Run {
    let runs = (0..200).map(|seed| logged(seed).0);
    runs.max_by_key(|run| run.state.to_snapshot().len())
        .unwrap()
}

#[test]
fn a_snapshot_that_was_cut_off_or_goes_on_is_refused() {
    let bytes = rich().state.to_snapshot();
    for length in 0..bytes.len() {
        assert!(State::from_snapshot(&bytes[..length], point(9)).is_err());
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(State::from_snapshot(&longer, point(9)).is_err());
}

#[test]
fn a_snapshot_that_was_altered_is_refused_or_at_least_harmless() {
    let mut run = rich();
    let bytes = run.state.to_snapshot();
    let (mut refused, mut read) = (0, 0);
    for at in 0..bytes.len() {
        for flip in [0x01, 0x20, 0x80, 0xff] {
            let mut altered = bytes.to_vec();
            altered[at] ^= flip;
            // What it then decides is of no matter: its seal refuses it before. But nothing panics.
            match State::from_snapshot(&altered, point(9)) {
                Err(_) => refused += 1,
                Ok(state) => {
                    read += 1;
                    run.state = state;
                    let _ = run.asks(5, false);
                    let _ = run.state.to_snapshot();
                }
            }
        }
    }
    assert!(
        refused > 500 && read > 500,
        "{refused} refused, {read} read"
    );
}

#[test]
fn a_claimed_length_is_not_believed() {
    // Every array of a snapshot may claim 2^64 - 1 items: reading ends with the bytes that are there.
    let bytes = rich().state.to_snapshot();
    for at in 0..bytes.len() {
        if bytes[at] & 0xe0 == 0x80 {
            let mut claims = bytes[..at].to_vec();
            claims.push(0x9b);
            claims.extend([0xff; 8]);
            claims.extend(&bytes[at + 1..]);
            assert!(State::from_snapshot(&claims, point(9)).is_err());
        }
    }
}

#[test]
fn no_copy_of_a_key_stays_behind_when_a_snapshot_is_written() {
    // A buffer that grows is copied, and what it was copied from is freed with the keys in it.
    for seed in 0..50 {
        let bytes = logged(seed).0.state.to_snapshot();
        assert_eq!(bytes.capacity(), bytes.len(), "seed {seed}");
    }
}

#[test]
fn an_entry_with_another_key_or_without_its_key_is_not_replayed() {
    let mut tried = 0;
    for seed in 0..100 {
        let (_, log) = logged(seed);
        let mut state = first();
        for logged in &log {
            let keyed = matches!(&logged.secret, Some(secret) if secret.len() == 32);
            let other = match &logged.secret {
                None => vec![Some(vec![1; 32])],
                Some(secret) if keyed => vec![
                    None,
                    Some(vec![1; 32]),
                    Some(secret[..31].to_vec()),
                    Some([secret.as_slice(), &[0]].concat()),
                ],
                Some(shares) => vec![
                    None,
                    Some(shares[1..].to_vec()),
                    Some(shares[32..].to_vec()),
                ],
            };
            if matches!(logged.entry.record, Record::Command(_)) {
                for other in other {
                    tried += 1;
                    let replayed = state.replay(logged.point, &logged.entry, other.as_deref());
                    assert!(replayed.is_err(), "seed {seed}: {:?}", logged.entry);
                }
            }
            replay(&mut state, core::slice::from_ref(logged));
            // Once more is refused: nothing has its effect twice.
            if matches!(logged.entry.record, Record::Command(_)) {
                let secret = logged.secret.as_deref();
                assert!(state.replay(logged.point, &logged.entry, secret).is_err());
            }
        }
        let (_, first_entry) = (first(), founding());
        assert!(state.replay(state.point(), &first_entry, None).is_err());
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_revocation_is_not_undone_by_any_command_that_was_carried_out_before() {
    let mut revocations = 0;
    for seed in 0..300 {
        let (run, log) = logged(seed);
        for (at, (_, happened)) in run.entries.iter().enumerate() {
            let Happened::Command(_, command) = happened else {
                continue;
            };
            if !matches!(
                command.action,
                Action::Revoke { .. } | Action::EndRequestKey { .. }
            ) {
                continue;
            }
            revocations += 1;
            let mut state = first();
            replay(&mut state, &log[..=at]);
            for (logged, (_, earlier)) in log[..=at].iter().zip(&run.entries) {
                if let Happened::Command(signer, command) = earlier {
                    assert!(state.check(&id(*signer), command, 5).is_err());
                    let secret = logged.secret.as_deref();
                    assert!(state.replay(logged.point, &logged.entry, secret).is_err());
                }
            }
        }
    }
    assert!(revocations > 50, "{revocations}");
}
