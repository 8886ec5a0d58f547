//! A revocation under load, on the real stack, with a real lease of two seconds: before it no request fails, and once the lease
//! that was out has ended none is served.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sesemi::{Client, Error, Grant, IsolationChange, ModelRef, RefusalCode, Tensor};
use sesemi_cli::stack::Facts;
use support::{get, input, join, push, rows, scope, semirt, start};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(2);
/// Releases under load from which on leases have been renewed, and how long they may take.
const RENEWALS: u64 = 6;
const LIMIT: Duration = Duration::from_secs(120);
const AFTER: u64 = 10_000;
const WORKERS: u64 = 4;

struct Load {
    client: Client,
    gateway: String,
    model: ModelRef,
    row: Tensor,
}

impl Load {
    async fn ask(&self) -> Result<(), String> {
        let row = std::slice::from_ref(&self.row);
        match self
            .client
            .infer(&self.gateway, self.model.clone(), row)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(reason(&error)),
        }
    }
}

fn reason(error: &Error) -> String {
    let reason = error.refusal().map(ToOwned::to_owned);
    reason.unwrap_or_else(|| panic!("{error:?}"))
}

/// How many releases KeyService has allowed so far.
fn releases(facts: &Facts) -> u64 {
    let metrics = tokio::task::block_in_place(|| get(&format!("{}/metrics", facts.admin)));
    let metrics = String::from_utf8(metrics).unwrap();
    let mut counts = metrics.lines().filter_map(|line| {
        let count = line.strip_prefix("sesemi_keyservice_releases_total{outcome=\"ok\"} ")?;
        Some(count.parse().unwrap())
    });
    counts.next().unwrap_or(0)
}

/// Waits until something is so, and not for ever.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    waited
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_a_revocation_no_request_fails_and_after_the_lease_none_is_served() {
    let (_folder, stack) = start().await;
    let mut owner = join(&stack.facts).await;
    let mut user = join(&stack.facts).await;
    let model = push(&stack.facts, &mut owner).await;
    let code = semirt(&stack.facts);
    let seconds = u32::try_from(LEASE.as_secs()).unwrap();
    owner
        .set_lease(model.model.name.clone(), Some(seconds))
        .await
        .unwrap();
    let grant = owner
        .grant(Grant::of(&model, user.id(), code))
        .await
        .unwrap();
    user.deposit_key(&scope(&model), [code], IsolationChange::default())
        .await
        .unwrap();
    let load = Arc::new(Load {
        client: user,
        gateway: stack.facts.gateway.clone(),
        model,
        row: input(&rows()[0]),
    });

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (load, stop, served) = (load.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    load.ask().await.expect("before the revocation none fails");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    // The first releases are those of instances that start; what comes once the workers are served renews a lease.
    let failed = || workers.iter().any(JoinHandle::is_finished);
    until("the workers are served", || {
        failed() || served.load(Ordering::SeqCst) >= 10 * WORKERS
    })
    .await;
    let first = releases(&stack.facts);
    assert!(first > 0, "what was served needed a release");
    until("leases are renewed under load", || {
        failed() || releases(&stack.facts) >= first + RENEWALS
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }

    owner.revoke(owner.id(), vec![grant]).await.unwrap();
    // Real time has to pass here: it is the lease itself that is tried, not a condition that could be waited for.
    tokio::time::sleep_until(Instant::now() + LEASE).await;
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let load = load.clone();
            tokio::spawn(async move {
                for _ in 0..AFTER / WORKERS {
                    let answer = load.ask().await;
                    assert_eq!(answer.unwrap_err(), RefusalCode::NotGranted.as_str());
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    stack.stop().await.unwrap();
}
