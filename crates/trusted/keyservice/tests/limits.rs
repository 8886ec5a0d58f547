//! Rate limits: what no sequence of calls can get more of, and what none can take from others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use sesemi_keyservice::limits::{Limits, Network, Rate, RateError, RetryAfter};

const SECOND: Duration = Duration::from_secs(1);

fn rate(burst: u32, refill: Duration) -> Rate {
    Rate::new(NonZeroU32::new(burst).unwrap(), refill).unwrap()
}

fn limits(burst: u32, refill: Duration, capacity: usize) -> Limits<u32> {
    let rate = rate(burst, refill);
    Limits::new(rate, rate, NonZeroUsize::new(capacity).unwrap())
}

/// Most tokens of a rate in a window, its ends included.
fn most(burst: u32, refill: Duration, window: Duration) -> u128 {
    u128::from(burst) + window.as_nanos() / refill.as_nanos()
}

#[test]
fn a_burst_passes_and_then_one_each_refill() {
    let mut limits = limits(3, SECOND, 10);
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(limits.check(&1, start), Ok(()));
    }
    assert_eq!(limits.check(&1, start), Err(RetryAfter { after: SECOND }));
    let early = start + SECOND - Duration::from_nanos(1);
    let after = Duration::from_nanos(1);
    assert_eq!(limits.check(&1, early), Err(RetryAfter { after }));
    assert_eq!(limits.check(&1, start + SECOND), Ok(()));
    assert!(limits.check(&1, start + SECOND).is_err());
    // However long a key waits, it has the burst and no more.
    let later = start + Duration::from_secs(3600);
    let passed = (0..10).filter(|_| limits.check(&1, later).is_ok()).count();
    assert_eq!(passed, 3);
}

#[test]
fn one_key_cannot_use_up_anothers_bucket() {
    let mut limits = limits(2, SECOND, 10);
    let start = Instant::now();
    for _ in 0..100 {
        let _ = limits.check(&1, start);
    }
    assert_eq!(limits.check(&2, start), Ok(()));
    assert_eq!(limits.check(&2, start), Ok(()));
    assert!(limits.check(&2, start).is_err());
}

#[test]
fn a_refusal_takes_nothing() {
    let mut limits = limits(1, SECOND, 10);
    let start = Instant::now();
    limits.check(&1, start).unwrap();
    for part in 1..1000 {
        assert!(limits.check(&1, start + SECOND * part / 1000).is_err());
    }
    assert_eq!(limits.check(&1, start + SECOND), Ok(()));
}

#[test]
fn a_flood_of_new_keys_locks_out_nobody_who_is_being_served() {
    let mut limits = limits(5, SECOND, 100);
    let start = Instant::now();
    for known in 0..100 {
        limits.check(&known, start).unwrap();
    }
    // A million strangers share one bucket of five.
    let passed = (1000..1_001_000)
        .filter(|stranger| limits.check(stranger, start).is_ok())
        .count();
    assert_eq!(passed, 5);
    assert_eq!(limits.len(), 100);
    for known in 0..100 {
        for _ in 0..4 {
            assert_eq!(limits.check(&known, start), Ok(()));
        }
        assert!(limits.check(&known, start).is_err());
    }
}

#[test]
fn the_bucket_that_is_full_for_longest_makes_room() {
    let mut limits = limits(2, SECOND, 3);
    let start = Instant::now();
    // 1 is full again after one second, 2 and 3 after two.
    limits.check(&1, start).unwrap();
    for key in [2, 2, 3, 3] {
        limits.check(&key, start).unwrap();
    }
    limits.check(&4, start + SECOND).unwrap();
    assert_eq!(limits.len(), 3);
    // 2 and 3 still have their buckets: one token came back to each. 4 has one left.
    for key in [2, 3, 4] {
        assert_eq!(limits.check(&key, start + SECOND), Ok(()), "{key}");
        assert!(limits.check(&key, start + SECOND).is_err(), "{key}");
    }
}

#[test]
fn when_the_flood_is_over_there_is_room_again() {
    let mut limits = limits(2, SECOND, 4);
    let start = Instant::now();
    for key in 0..1000 {
        let _ = limits.check(&key, start);
    }
    assert!(limits.check(&5000, start).is_err());
    for _ in 0..2 {
        assert_eq!(limits.check(&5000, start + 2 * SECOND), Ok(()));
    }
}

#[test]
fn a_clock_that_is_set_back_gives_no_token_and_takes_none() {
    let mut limits = limits(2, SECOND, 4);
    let past = Instant::now();
    let now = past + Duration::from_secs(100);
    assert_eq!(limits.check(&1, now), Ok(()));
    assert_eq!(limits.check(&1, past), Ok(()));
    assert_eq!(limits.check(&1, past), Err(RetryAfter { after: SECOND }));
    assert_eq!(limits.check(&2, past), Ok(()));
    assert_eq!(limits.check(&1, now + SECOND), Ok(()));
}

#[test]
fn rates_that_cannot_be_are_refused_and_the_largest_burst_is_no_overflow() {
    let day = Duration::from_secs(24 * 3600);
    let all = NonZeroU32::MAX;
    assert_eq!(Rate::new(all, Duration::ZERO), Err(RateError));
    assert_eq!(
        Rate::new(all, day + Duration::from_nanos(1)),
        Err(RateError)
    );
    let rate = Rate::new(all, day).unwrap();
    let mut limits = Limits::new(rate, rate, NonZeroUsize::MIN);
    for _ in 0..1000 {
        assert_eq!(limits.check(&1, Instant::now()), Ok(()));
    }
}

#[test]
fn a_refusal_says_when_to_ask_again_and_rounds_up() {
    for (nanos, said) in [(1, "1 ms"), (1_000_000, "1 ms"), (1_000_001, "2 ms")] {
        let after = Duration::from_nanos(nanos);
        let text = RetryAfter { after }.to_string();
        assert_eq!(text, format!("too many requests; ask again in {said}"));
    }
}

#[test]
fn addresses_count_by_who_has_them() {
    let network = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
    for (a, b, same) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ] {
        assert_eq!(network(a) == network(b), same, "{a} {b}");
    }
    assert_eq!(
        network("2001:db8:1:2:3:4:5:6").to_string(),
        "2001:db8:1:2::/64"
    );
    assert_eq!(network("::ffff:192.0.2.1").to_string(), "192.0.2.1/32");
}

#[test]
fn what_is_printed_names_no_caller() {
    let mut limits = limits(1, SECOND, 4);
    limits.check(&123_456, Instant::now()).unwrap();
    let printed = format!("{limits:?}");
    assert!(printed.contains("keys: 1") && !printed.contains("123456"));
}

/// Calls: who, and how long after the call before.
fn calls(keys: u32) -> impl Strategy<Value = Vec<(u32, Duration)>> {
    let pause = prop_oneof![
        3 => Just(0u64),
        3 => 1..40_000_000u64,
        1 => 40_000_000..900_000_000u64,
    ];
    proptest::collection::vec((0..keys, pause.prop_map(Duration::from_nanos)), 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_key_gets_more_than_burst_and_rate_in_any_window(
        calls in calls(5),
        burst in 1u32..6,
        refill in 1u64..100_000_000,
    ) {
        let refill = Duration::from_nanos(refill);
        let mut limits = limits(burst, refill, 5);
        let mut now = Instant::now();
        let mut passed: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
        for (key, pause) in calls {
            now += pause;
            if limits.check(&key, now).is_ok() {
                passed.entry(key).or_default().push(now);
            }
        }
        for times in passed.values() {
            for (from, first) in times.iter().enumerate() {
                for (to, last) in times.iter().enumerate().skip(from) {
                    let count = (to - from + 1) as u128;
                    prop_assert!(count <= most(burst, refill, *last - *first));
                }
            }
        }
    }

    #[test]
    fn with_more_keys_than_room_the_table_is_bounded_and_so_is_what_a_key_gets(
        calls in calls(40),
        capacity in 1usize..8,
        shared_burst in 1u32..4,
    ) {
        let (burst, refill) = (3, Duration::from_millis(30));
        let shared_refill = Duration::from_millis(20);
        let capacity_ = NonZeroUsize::new(capacity).unwrap();
        let mut limits = Limits::new(rate(burst, refill), rate(shared_burst, shared_refill), capacity_);
        let start = Instant::now();
        let mut now = start;
        let mut passed: BTreeMap<u32, u128> = BTreeMap::new();
        for (key, pause) in calls {
            now += pause;
            if limits.check(&key, now).is_ok() {
                *passed.entry(key).or_default() += 1;
            }
            prop_assert!(limits.len() <= capacity);
            let window = now - start;
            let bound = most(burst, refill, window) + most(shared_burst, shared_refill, window);
            prop_assert!(passed.values().all(|count| *count <= bound));
        }
    }

    #[test]
    fn whoever_waits_as_long_as_told_gets_through(calls in calls(3), burst in 1u32..6) {
        let mut limits = limits(burst, Duration::from_millis(25), 3);
        let mut now = Instant::now();
        for (key, pause) in calls {
            now += pause;
            if let Err(RetryAfter { after }) = limits.check(&key, now) {
                prop_assert!(!after.is_zero());
                let early = after - Duration::from_nanos(1);
                prop_assert!(limits.check(&key, now + early).is_err());
                now += after;
                prop_assert_eq!(limits.check(&key, now), Ok(()));
            }
        }
    }

    #[test]
    fn an_idle_key_always_gets_through_however_many_others_ask(
        calls in calls(60),
        burst in 1u32..6,
    ) {
        // Key 1000 asks once a refill, which keeps its bucket from being dropped.
        let refill = Duration::from_millis(50);
        let mut limits = limits(burst, refill, 4);
        let mut now = Instant::now();
        limits.check(&1000, now).unwrap();
        let mut due = now + refill;
        for (key, pause) in calls {
            now += pause;
            while due <= now {
                prop_assert_eq!(limits.check(&1000, due), Ok(()));
                due += refill;
            }
            let _ = limits.check(&key, now);
        }
    }

    #[test]
    fn dropping_full_buckets_changes_no_decision(calls in calls(6)) {
        // With pauses after which all buckets are full, room for one key more is as good as room for all.
        let (burst, refill) = (2, Duration::from_millis(10));
        let (mut small, mut large) = (limits(burst, refill, 6), limits(burst, refill, 1000));
        let mut now = Instant::now();
        for (round, (key, pause)) in calls.into_iter().enumerate() {
            now += pause;
            // Key sets come and go, so that the small table has to drop some.
            if round % 20 == 0 {
                now += 3 * refill;
            }
            let key = key + 6 * (round as u32 / 20);
            prop_assert_eq!(small.check(&key, now), large.check(&key, now));
        }
        prop_assert!(small.len() <= 6);
    }
}
