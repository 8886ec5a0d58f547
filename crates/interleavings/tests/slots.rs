//! Slots that are taken, given back and left, and the enclave's places in front of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sesemi_interleavings::occupancy::Occupancy;
use sesemi_interleavings::slots::Slots;
use sesemi_protocol::PrincipalId;
use sesemi_protocol::isolation::IsolationLevel;
use shuttle::future::{block_on, spawn, yield_now};
use tokio::time::Instant;

/// Orders that are tried.
const ORDERS: usize = 2000;

fn user(number: u8) -> PrincipalId {
    PrincipalId([number; 32])
}

#[test]
fn every_request_gets_its_slot_unless_it_leaves_and_all_slots_come_back() {
    shuttle::check_random(
        || {
            block_on(async {
                let slots = Slots::new(2, 10).unwrap();
                let running = Arc::new(AtomicUsize::new(0));
                let requests: Vec<_> = (0..4_u8)
                    .map(|number| {
                        let (slots, running) = (slots.clone(), running.clone());
                        spawn(async move {
                            let deadline = Instant::now() + Duration::from_secs(60);
                            let turn = slots.turn(user(number % 2), deadline, Duration::ZERO);
                            let turn = turn.await.unwrap();
                            let work = move || {
                                assert!(running.fetch_add(1, Ordering::SeqCst) < 2);
                                shuttle::thread::yield_now();
                                running.fetch_sub(1, Ordering::SeqCst);
                            };
                            turn.run(work).await.unwrap();
                        })
                    })
                    .collect();
                yield_now().await;
                let mut requests = requests.into_iter();
                requests.next().unwrap().abort();
                for request in requests {
                    request.await.unwrap();
                }
                while slots.taken() > 0 {
                    yield_now().await;
                }
                assert_eq!(slots.waiting(), 0);
            });
        },
        ORDERS,
    );
}

#[test]
fn those_inside_get_along_and_all_get_in() {
    shuttle::check_random(
        || {
            block_on(async {
                let cleared_with = Arc::new(AtomicUsize::new(0));
                let inside = Arc::new(AtomicUsize::new(0));
                let occupancy = {
                    let (cleared_with, inside) = (cleared_with.clone(), inside.clone());
                    Arc::new(Occupancy::new(10, move |_| {
                        cleared_with.fetch_add(inside.load(Ordering::SeqCst), Ordering::SeqCst);
                    }))
                };
                let levels = [
                    IsolationLevel::Shared,
                    IsolationLevel::DedicatedUser,
                    IsolationLevel::Sequential,
                    IsolationLevel::Shared,
                ];
                let requests: Vec<_> = (0..4_u8)
                    .map(|number| {
                        let (occupancy, inside) = (occupancy.clone(), inside.clone());
                        let level = levels[usize::from(number)];
                        spawn(async move {
                            let place = occupancy.enter(user(number), level).await.unwrap();
                            let others = inside.fetch_add(1, Ordering::SeqCst);
                            assert!(level == IsolationLevel::Shared || others == 0);
                            yield_now().await;
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        })
                    })
                    .collect();
                for request in requests {
                    request.await.unwrap();
                }
                assert_eq!(occupancy.counts(), (0, 0));
                assert_eq!(
                    cleared_with.load(Ordering::SeqCst),
                    0,
                    "with somebody inside"
                );
            });
        },
        ORDERS,
    );
}
