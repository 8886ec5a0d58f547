//! Fetches that many want at once, some of which fail, and for which some do not wait.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sesemi_interleavings::single_flight::{Ended, SingleFlight};
use shuttle::future::{block_on, spawn, yield_now};

/// Orders that are tried.
const ORDERS: usize = 3000;

#[derive(Debug, Clone, PartialEq)]
struct Failed(usize);

impl From<Ended> for Failed {
    fn from(_: Ended) -> Self {
        Self(usize::MAX)
    }
}

type Flights = SingleFlight<u8, usize, Failed>;

/// What all fetches have in common.
#[derive(Default)]
struct Seen {
    begun: AtomicUsize,
    at_once: AtomicUsize,
}

/// The number of the fetch; every third one fails.
async fn fetch(seen: Arc<Seen>) -> Result<usize, Failed> {
    let number = seen.begun.fetch_add(1, Ordering::SeqCst);
    assert_eq!(
        seen.at_once.fetch_add(1, Ordering::SeqCst),
        0,
        "two at once"
    );
    yield_now().await;
    seen.at_once.fetch_sub(1, Ordering::SeqCst);
    if number % 3 == 2 {
        return Err(Failed(number));
    }
    Ok(number)
}

#[test]
fn there_is_one_fetch_at_once_and_all_who_wait_for_it_get_its_result_and_nothing_stays() {
    shuttle::check_random(
        || {
            block_on(async {
                let (flights, seen) = (Arc::new(Flights::default()), Arc::new(Seen::default()));
                let callers: Vec<_> = (0..4)
                    .map(|_| {
                        let (flights, seen) = (flights.clone(), seen.clone());
                        spawn(async move {
                            for _ in 0..2 {
                                let before = seen.begun.load(Ordering::SeqCst);
                                let joined = flights.join(1, || fetch(seen.clone())).await;
                                let (Ok(number) | Err(Failed(number))) = joined;
                                // Nobody gets what somebody else's fetch found before they asked: the one under way at most.
                                assert!(number + 1 >= before, "{number} after {before}");
                                assert_eq!(joined.is_err(), number % 3 == 2);
                            }
                        })
                    })
                    .collect();
                for caller in callers {
                    caller.await.unwrap();
                }
                assert!(!flights.is_under_way(&1));
            });
        },
        ORDERS,
    );
}

#[test]
fn a_caller_that_leaves_stops_nobody_elses_fetch() {
    shuttle::check_random(
        || {
            block_on(async {
                let (flights, seen) = (Arc::new(Flights::default()), Arc::new(Seen::default()));
                let start = || {
                    let (flights, seen) = (flights.clone(), seen.clone());
                    spawn(async move { flights.join(1, || fetch(seen)).await })
                };
                let (leaves, stays) = (start(), start());
                yield_now().await;
                leaves.abort();
                assert!(matches!(stays.await.unwrap(), Ok(0 | 1)));
                // A fetch goes on without anybody who waits for it, and then leaves nothing either.
                while flights.is_under_way(&1) {
                    yield_now().await;
                }
            });
        },
        ORDERS,
    );
}
