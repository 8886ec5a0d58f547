//! Leases that are asked for, renewed, ended, refused and forgotten at the same time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sesemi_interleavings::keys::{KeySource, Keys, LiveLease};
use sesemi_protocol::envelope::Route;
use sesemi_protocol::id::ModelTarget;
use sesemi_protocol::isolation::{Isolation, IsolationLevel};
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::{
    Digest, ModelName, ModelRef, ModelVersion, PrincipalId, Refusal, RefusalCode, RequestId,
    SecretKey, ServiceId, SystemEntropy,
};
use shuttle::future::{block_on, spawn, yield_now};

/// Orders that are tried.
const ORDERS: usize = 2000;
/// Seconds that a lease lasts.
const LEASE: u32 = 60;

fn model() -> ModelRef {
    ModelRef::new(
        PrincipalId([2; 32]),
        ModelName::new("m").unwrap(),
        ModelVersion::new(1).unwrap(),
    )
}

fn route() -> Route {
    Route {
        user: PrincipalId([1; 32]),
        model: ModelTarget::from(model()),
        request: RequestId([0; 16]),
        key: RequestKeyName::model(1),
    }
}

/// KeyService, whose answers come at any time.
#[derive(Default)]
struct Service {
    /// Somebody asked.
    asked: AtomicBool,
    revoked: AtomicBool,
    level: Mutex<IsolationLevel>,
}

impl Service {
    fn lease(&self) -> ReleaseOutcome {
        if self.revoked.load(Ordering::SeqCst) {
            return ReleaseOutcome::Refused(RefusalCode::NotGranted.into());
        }
        ReleaseOutcome::Lease(Box::new(Lease {
            model: model(),
            model_key: SecretKey::from_bytes([3; 32]),
            manifest: Digest([4; 32]),
            request_key: SecretKey::from_bytes([5; 32]),
            seconds: LEASE,
            isolation: Isolation::from(*self.level.lock().unwrap()),
            state: StatePoint {
                service: ServiceId([6; 32]),
                point: Point {
                    sequence: 1,
                    chain: Digest([7; 32]),
                },
            },
        }))
    }
}

struct Answers(Arc<Service>);

impl KeySource for Answers {
    fn release(
        &self,
        requests: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
        let service = self.0.clone();
        service.asked.store(true, Ordering::SeqCst);
        async move {
            yield_now().await;
            let outcomes = requests.iter().map(|_| service.lease()).collect();
            yield_now().await;
            Ok(outcomes)
        }
        .boxed()
    }
}

/// Asks for the lease, in an enclave of one user.
async fn ask(keys: &Keys) -> Result<Arc<LiveLease>, Refusal> {
    let level = IsolationLevel::DedicatedUser;
    keys.fetch(&route(), Point::START, level, Arc::new(()))
        .await
}

/// Tries orders of what `test` does, with a clock that goes on only when it is told to.
fn check(test: impl Fn(Arc<Keys>, Arc<Service>) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
    shuttle::check_random(
        move || {
            let clock = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let _clock = clock.enter();
            let service = Arc::new(Service::default());
            let source = Arc::new(Answers(service.clone()));
            let keys = Arc::new(Keys::new(source, Arc::new(SystemEntropy::new())));
            block_on(test(keys, service));
        },
        ORDERS,
    );
}

#[test]
fn what_was_asked_for_before_all_was_forgotten_is_not_kept_after_it() {
    let orders = Arc::new(AtomicUsize::new(0));
    let before = orders.clone();
    check(move |keys, service| {
        let before = before.clone();
        async move {
            let asking = {
                let keys = keys.clone();
                spawn(async move { ask(&keys).await.is_ok() })
            };
            for _ in 0..3 {
                yield_now().await;
            }
            let asked_before = service.asked.load(Ordering::SeqCst);
            keys.forget_all();
            assert!(asking.await.unwrap(), "who asked gets a lease all the same");
            if asked_before {
                before.fetch_add(1, Ordering::Relaxed);
                assert!(keys.held(&route()).is_none());
            }
        }
        .boxed()
    });
    assert!(orders.load(Ordering::Relaxed) > 0, "it never came to that");
}

#[test]
fn a_lease_that_must_be_kept_apart_is_not_kept_among_others() {
    check(|keys, service| {
        async move {
            *service.level.lock().unwrap() = IsolationLevel::DedicatedUser;
            let asking = [(); 2].map(|()| {
                let keys = keys.clone();
                spawn(async move {
                    let level = IsolationLevel::Shared;
                    let asked = route();
                    let lease = keys.fetch(&asked, Point::START, level, Arc::new(()));
                    let lease = lease.await.unwrap();
                    assert_eq!(lease.level(), IsolationLevel::DedicatedUser);
                    assert!(keys.held(&route()).is_none());
                })
            });
            for asked in asking {
                asked.await.unwrap();
            }
        }
        .boxed()
    });
}

#[test]
fn a_lease_for_one_request_is_never_held() {
    check(|keys, service| {
        async move {
            *service.level.lock().unwrap() = IsolationLevel::Sequential;
            let asking: Vec<_> = (0..3)
                .map(|_| {
                    let keys = keys.clone();
                    spawn(async move {
                        let lease = ask(&keys).await.unwrap();
                        assert_eq!(lease.level(), IsolationLevel::Sequential);
                        assert!(keys.held(&route()).is_none());
                    })
                })
                .collect();
            for asked in asking {
                asked.await.unwrap();
            }
            assert_eq!(keys.level(&route()), IsolationLevel::Sequential);
        }
        .boxed()
    });
}

#[test]
fn a_revoked_lease_ends_in_its_time_whatever_else_goes_on() {
    check(|keys, service| {
        async move {
            let lease = ask(&keys).await.unwrap();
            lease.mark_used();
            tokio::time::advance(Duration::from_secs(45)).await;
            let renewing = {
                let keys = keys.clone();
                spawn(async move { keys.renew_due().await })
            };
            let asking = {
                let keys = keys.clone();
                spawn(async move { ask(&keys).await.is_ok() })
            };
            let forgetting = {
                let keys = keys.clone();
                spawn(async move { keys.forget_all() })
            };
            service.revoked.store(true, Ordering::SeqCst);
            renewing.await.unwrap();
            asking.await.unwrap();
            forgetting.await.unwrap();
            // Whatever was released before the revocation is good for its time, and nothing is released after it.
            tokio::time::advance(Duration::from_secs(u64::from(LEASE))).await;
            assert!(keys.held(&route()).is_none());
            keys.renew_due().await;
            assert!(ask(&keys).await.is_err());
            assert!(keys.held(&route()).is_none());
        }
        .boxed()
    });
}

#[test]
fn a_renewal_does_not_bring_back_what_was_forgotten() {
    check(|keys, _| {
        async move {
            let lease = ask(&keys).await.unwrap();
            lease.mark_used();
            tokio::time::advance(Duration::from_secs(45)).await;
            let renewing = {
                let keys = keys.clone();
                spawn(async move { keys.renew_due().await })
            };
            yield_now().await;
            keys.forget_all();
            renewing.await.unwrap();
            assert!(keys.held(&route()).is_none());
        }
        .boxed()
    });
}
