//! Many clients, users and models in one enclave, with faults on all sides: every answer is right or a clean error, memory
//! stays within its budget, and nothing is left behind.
//!
//! 200 clients of 20 users ask for 10 models, on 4 slots and a budget for 3 models, while the store, KeyService and the engine
//! fail, lie, stall and panic at random. Requests are run in
//! batches: the first users' with each other's, the next ones' with their own. Two users, of one client each, demand that they be kept apart from all others. It takes
//! `SESEMI_STRESS_SECONDS`, 10 if that is not set.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod clients;
mod faults;
mod memory;
mod models;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi_process::WipingAllocator;
use sesemi_protocol::SystemEntropy;
use sesemi_semirt::keys::Keys;
use sesemi_semirt::metrics::Metrics;
use sesemi_semirt::models::Models;
use sesemi_semirt::runtime::{Capacity, Runtime};
use sesemi_semirt::slots::Watchdog;

use clients::{Client, PATIENT, Tally};
use faults::{FaultyEngine, FaultyKeyService, FaultyStore};
use models::World;

/// The product's: what it keeps is part of what is measured.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

const CLIENTS: usize = 200;
const SLOTS: usize = 4;
/// Models that fit into memory.
const FIT: u64 = 3;

fn seconds() -> u64 {
    let set = std::env::var("SESEMI_STRESS_SECONDS");
    set.map_or(10, |text| text.parse().unwrap())
}

fn runtime(world: &Arc<World>, failing: &Arc<AtomicBool>) -> Arc<Runtime> {
    let entropy = Arc::new(SystemEntropy::new());
    let keyservice = FaultyKeyService::new(world.clone(), failing.clone());
    let store = Arc::new(FaultyStore::new(world.store(), failing.clone()));
    let engine = Arc::new(FaultyEngine::new(failing.clone()));
    let capacity = Capacity {
        batch_window: Duration::from_millis(2),
        slots: SLOTS,
        queue: CLIENTS,
    };
    let watchdog = Watchdog::new(Duration::from_secs(60));
    let models = Models::new(store, engine, world.budget(FIT), watchdog.clone());
    let runtime = Runtime::new(
        Keys::new(Arc::new(keyservice), entropy.clone()),
        Arc::new(models),
        capacity,
        watchdog,
        entropy,
        Metrics::new(),
    );
    Arc::new(runtime.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_right_or_a_clean_error_and_nothing_is_left_behind() {
    // Faults panic often, and a backtrace keeps the program's debug information in memory.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    // As the product does, although the test has threads already: they have not come far.
    assert!(sesemi_process::share_one_arena() && sesemi_process::keep_what_is_freed());
    let world = Arc::new(World::new());
    let failing = Arc::new(AtomicBool::new(true));
    let before = memory::resident();
    let runtime = runtime(&world, &failing);
    let tending = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.keys().tend().await })
    };
    let watching = memory::Watch::start();

    let stop = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Tally::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = Client::new(number, runtime.clone(), tally.clone());
            tokio::spawn(client.go_on_until(stop.clone()))
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds())).await;
    // A user of one client may have met nothing but faults so far, and some faults nobody.
    let complete = async {
        while !tally.is_complete() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), complete).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let most = watching.most();
    tally.print(most.saturating_sub(before), world.budget(FIT));

    tally.check();
    let allowed = world.budget(FIT) * 115 / 100;
    assert!(
        most.saturating_sub(before) <= allowed,
        "{} MiB more than before, with a budget of {} MiB",
        (most - before) >> 20,
        world.budget(FIT) >> 20
    );
    until_empty(&runtime).await;

    // Nothing of the faults stays: every model serves every user now.
    failing.store(false, Ordering::SeqCst);
    for user in 0..models::USERS {
        let number = user % models::MODELS;
        let client = Client::new(user, runtime.clone(), tally.clone());
        client.ask_once(number, PATIENT).await.unwrap();
    }
    until_empty(&runtime).await;
    let metrics = runtime.metrics();
    let batches = metrics.lines().find_map(|line| {
        let count = line.strip_prefix("sesemi_semirt_batches_total ")?;
        count.parse::<u64>().ok()
    });
    assert!(batches.unwrap() > 0, "nothing was run together");
    tending.abort();
}

/// Until nobody is inside and no slot is taken: work that nobody waits for any more ends soon, and then this does.
async fn until_empty(runtime: &Runtime) {
    let wanted = [
        "sesemi_semirt_slots_taken 0",
        "sesemi_semirt_waiting 0",
        "sesemi_semirt_inside 0",
    ];
    let emptied = async {
        loop {
            let metrics = runtime.metrics();
            if wanted
                .iter()
                .all(|line| metrics.lines().any(|it| it == *line))
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let emptied = tokio::time::timeout(Duration::from_secs(30), emptied).await;
    assert!(emptied.is_ok(), "{}", runtime.metrics());
}
