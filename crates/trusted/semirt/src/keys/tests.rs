//! Leases against a KeyService in memory, on a clock that only the tests advance.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sesemi_protocol::id::ModelTarget;
use sesemi_protocol::release::{ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::{Digest, EntropyError, PrincipalId, RequestId, SystemEntropy};

use super::*;
use crate::testing::{LEASE, Service, model};

fn route(user: u8, number: u32) -> Route {
    let mut id = [user; 32];
    id[1..5].copy_from_slice(&number.to_be_bytes());
    Route {
        user: PrincipalId(id),
        model: ModelTarget::from(model(1)),
        request: RequestId([0; 16]),
        key: RequestKeyName::model(1),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The same jitter each time.
struct Jitter(u8);

impl Entropy for Jitter {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(self.0);
        Ok(())
    }
}

struct World {
    service: Arc<Service>,
    keys: Arc<Keys>,
}

fn world(jitter: u8) -> World {
    let service = Arc::new(Service::new(Digest([0; 32])));
    let keys = Arc::new(Keys::new(service.clone(), Arc::new(Jitter(jitter))));
    World { service, keys }
}

impl World {
    /// A lease, as a request gets it, which then uses it.
    async fn use_lease(&self, route: &Route, seen: Point) -> Result<Arc<LiveLease>, RefusalCode> {
        let lease = match self.keys.held(route) {
            Some(held) if held.agrees_with(&seen) => held,
            _ => self
                .keys
                .fetch(route, seen, IsolationLevel::Shared, Arc::new(()))
                .await
                .map_err(|refusal| refusal.code)?,
        };
        lease.mark_used();
        Ok(lease)
    }

    fn tend(&self) {
        let keys = self.keys.clone();
        tokio::spawn(async move { keys.tend().await });
    }

    fn leases(&self) -> usize {
        lock(&self.keys.shared.table).len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_leases_in_use_are_renewed_in_two_calls() {
    let service = Arc::new(Service::new(Digest([0; 32])));
    let keys = Keys::new(service.clone(), Arc::new(SystemEntropy::new()));
    let world = World {
        service,
        keys: Arc::new(keys),
    };
    for number in 0..100 {
        world
            .use_lease(&route(1, number), Point::START)
            .await
            .unwrap();
    }
    world.tend();
    tokio::time::sleep(seconds(50)).await;
    let batches = world.service.batches().split_off(100);
    assert_eq!(batches, [64, 36]);
    tokio::time::sleep(seconds(20)).await;
    let held = (0..100).filter(|number| world.keys.held(&route(1, *number)).is_some());
    assert_eq!(held.count(), 100, "after the end of the first leases");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_used_is_not_renewed_and_is_wiped_at_its_end() {
    let world = world(0);
    let route = route(1, 0);
    let lease = world
        .keys
        .fetch(&route, Point::START, IsolationLevel::Shared, Arc::new(()))
        .await
        .unwrap();
    let forgotten = Arc::downgrade(&lease);
    drop(lease);
    world.tend();
    tokio::time::sleep(seconds(59)).await;
    assert!(world.keys.held(&route).is_some());
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(world.leases(), 0);
    assert!(forgotten.upgrade().is_none(), "nothing else keeps its keys");
    assert_eq!(world.service.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn jitter_moves_a_renewal_and_never_to_after_two_thirds_of_the_time() {
    for (jitter, from, to) in [
        (0, 39_500, 40_500),
        (128, 36_500, 37_500),
        (255, 33_500, 34_600),
    ] {
        let world = world(jitter);
        let start = Instant::now();
        world.use_lease(&route(1, 0), Point::START).await.unwrap();
        world.tend();
        tokio::time::sleep(seconds(50)).await;
        let calls = std::mem::take(&mut world.service.set().calls);
        let after = calls[1].0.duration_since(start).as_millis();
        assert!((from..=to).contains(&after), "{jitter}: {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_from_when_it_was_asked_for_however_late_it_came() {
    let world = world(0);
    let route = route(1, 0);
    world.service.set().delay = seconds(10);
    let asked = Instant::now();
    world.use_lease(&route, Point::START).await.unwrap();
    world.tend();
    // Its renewal is under way now, and comes ten seconds later.
    tokio::time::sleep_until(asked + seconds(45)).await;
    let renewal = world.service.set().calls[1].0;
    world.service.set().trouble = Some(RefusalCode::KeyServiceUnavailable);
    let end = renewal + seconds(u64::from(LEASE));
    tokio::time::sleep_until(end - Duration::from_millis(1)).await;
    assert!(world.keys.held(&route).is_some());
    tokio::time::sleep_until(end).await;
    assert!(world.keys.held(&route).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_after_its_end_is_no_lease() {
    let world = world(0);
    world.service.set().delay = seconds(u64::from(LEASE));
    let late = world.use_lease(&route(1, 0), Point::START).await;
    assert_eq!(late.unwrap_err(), RefusalCode::KeyServiceUnavailable);
    assert_eq!(world.leases(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_ends_the_lease_at_once() {
    let world = world(0);
    let (revoked, other) = (route(1, 0), route(2, 0));
    for route in [&revoked, &other] {
        world.use_lease(route, Point::START).await.unwrap();
    }
    world.service.set().revoked.insert(1);
    world.tend();
    tokio::time::sleep(seconds(42)).await;
    assert!(world.keys.held(&revoked).is_none());
    assert!(world.keys.held(&other).is_some(), "one by one");
    let again = world.use_lease(&revoked, Point::START).await;
    assert_eq!(again.unwrap_err(), RefusalCode::NotGranted);
}

#[tokio::test(start_paused = true)]
async fn trouble_leaves_a_lease_its_time_and_is_tried_again() {
    for code in [
        RefusalCode::KeyServiceUnavailable,
        RefusalCode::Busy,
        RefusalCode::Internal,
        RefusalCode::Unwritable,
        RefusalCode::Locked,
        RefusalCode::HandedOver,
    ] {
        let world = world(0);
        let route = route(1, 0);
        world.use_lease(&route, Point::START).await.unwrap();
        world.service.set().trouble = Some(code);
        world.tend();
        tokio::time::sleep(seconds(59)).await;
        assert!(world.keys.held(&route).is_some(), "{code}");
        let calls = world.service.calls();
        assert!((3..20).contains(&calls), "{calls} calls");
        tokio::time::sleep(seconds(1)).await;
        assert!(world.keys.held(&route).is_none(), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn once_trouble_is_over_the_lease_is_renewed_before_its_end() {
    let world = world(0);
    let route = route(1, 0);
    world.use_lease(&route, Point::START).await.unwrap();
    world.service.set().trouble = Some(RefusalCode::Locked);
    world.tend();
    tokio::time::sleep(seconds(50)).await;
    world.service.set().trouble = None;
    tokio::time::sleep(seconds(20)).await;
    assert!(world.keys.held(&route).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_rolled_back_renews_no_lease() {
    let world = world(0);
    let route = route(1, 0);
    world.use_lease(&route, Point::START).await.unwrap();
    world.service.fork_after(0);
    for _ in 0..10 {
        world.service.append();
    }
    world.tend();
    tokio::time::sleep(seconds(42)).await;
    assert!(world.keys.held(&route).is_none());
}

/// Two clients of one user, who did different things: each release makes the log longer, so no lease is from where either is.
#[tokio::test(start_paused = true)]
async fn a_point_that_was_confirmed_once_is_not_asked_for_again() {
    let world = world(0);
    let route = route(1, 0);
    let (laptop, phone) = (world.service.append(), world.service.append());
    world.use_lease(&route, Point::START).await.unwrap();
    world.use_lease(&route, laptop).await.unwrap();
    world.use_lease(&route, phone).await.unwrap();
    assert_eq!(world.service.calls(), 3);
    world.tend();
    for second in 0..600 {
        tokio::time::sleep(seconds(1)).await;
        let seen = if second % 2 == 0 { laptop } else { phone };
        assert!(world.keys.held(&route).unwrap().agrees_with(&seen));
        world.use_lease(&route, seen).await.unwrap();
    }
    let renewals = world.service.calls() - 3;
    assert!((600 / 60..=600 / 35).contains(&renewals), "{renewals}");
    let kept = world.keys.held(&route).unwrap();
    assert_eq!(kept.confirmed(), [phone, laptop]);
}

#[tokio::test(start_paused = true)]
async fn a_lower_point_of_another_fork_is_refused_and_the_lease_is_dropped() {
    let world = world(0);
    let route = route(1, 0);
    let here = world.service.append();
    for _ in 0..10 {
        world.service.append();
    }
    world.use_lease(&route, here).await.unwrap();
    let elsewhere = Point {
        chain: Digest([9; 32]),
        ..here
    };
    let refused = world.use_lease(&route, elsewhere).await;
    assert_eq!(refused.unwrap_err(), RefusalCode::StaleState);
    assert_eq!(world.leases(), 0);
    assert!(world.use_lease(&route, here).await.is_ok());
}

/// What one fork confirmed does not count in another.
#[tokio::test(start_paused = true)]
async fn points_are_not_carried_from_one_fork_to_another() {
    let world = world(0);
    let route = route(1, 0);
    let on_the_first = world.service.append();
    world.use_lease(&route, on_the_first).await.unwrap();
    world.service.fork_after(0);
    let on_the_second = (0..20).map(|_| world.service.append()).next_back().unwrap();
    let lease = world.use_lease(&route, on_the_second).await.unwrap();
    assert_eq!(lease.confirmed(), [on_the_second]);
    let refused = world.use_lease(&route, on_the_first).await;
    assert_eq!(refused.unwrap_err(), RefusalCode::StaleState);
}

#[tokio::test(start_paused = true)]
async fn a_lease_keeps_few_points_and_never_the_start() {
    let world = world(0);
    let route = route(1, 0);
    let points: Vec<Point> = (0..20).map(|_| world.service.append()).collect();
    world.use_lease(&route, Point::START).await.unwrap();
    for point in &points {
        world.use_lease(&route, *point).await.unwrap();
    }
    let lease = world.keys.held(&route).unwrap();
    assert_eq!(lease.confirmed().len(), 8);
    assert!(points[12..].iter().all(|point| lease.agrees_with(point)));
    assert!(!lease.agrees_with(&points[11]));
    assert!(lease.agrees_with(&Point::START));
}

/// A renewal under way while a request gets a newer lease: the newer one stays, with the point that it was asked for.
#[tokio::test(start_paused = true)]
async fn a_renewal_does_not_displace_a_lease_that_was_fetched_meanwhile() {
    let world = world(0);
    let route = route(1, 0);
    let old = world.use_lease(&route, Point::START).await.unwrap();
    tokio::time::sleep(seconds(45)).await;
    world.service.set().delay = seconds(3);
    let renewal = world.keys.shared.renew(vec![(LeaseId::of(&route), old)]);
    tokio::pin!(renewal);
    assert!(renewal.as_mut().now_or_never().is_none(), "under way");
    world.service.set().delay = Duration::ZERO;
    let seen = world.service.append();
    let fetched = world.use_lease(&route, seen).await.unwrap();
    renewal.await;
    assert!(Arc::ptr_eq(&fetched, &world.keys.held(&route).unwrap()));
}

/// KeyService that never answers.
struct Silent;

impl KeySource for Silent {
    fn release(
        &self,
        _: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
        Box::pin(futures::future::pending())
    }
}

/// What becomes of a fetch whose sender leaves at once; what it started goes on without it.
async fn left(keys: &Keys, route: &Route, seen: Point) -> Option<RefusalCode> {
    tokio::time::timeout(
        Duration::from_millis(1),
        keys.fetch(route, seen, IsolationLevel::Shared, Arc::new(())),
    )
    .await
    .ok()
    .and_then(|fetched| Some(fetched.err()?.code))
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_users_does_not_pile_up_behind_a_silent_keyservice() {
    let keys = Keys::new(Arc::new(Silent), Arc::new(SystemEntropy::new()));
    let mut refused = 0;
    for user in 0..1000 {
        let code = left(&keys, &route(1, user), Point::START).await;
        refused += u32::from(code == Some(RefusalCode::Busy));
    }
    assert_eq!(refused, 1000 - 256);
}

#[tokio::test(start_paused = true)]
async fn a_user_that_claims_another_point_each_time_takes_one_place_only() {
    let keys = Keys::new(Arc::new(Silent), Arc::new(SystemEntropy::new()));
    for sequence in 1..1000u64 {
        let seen = Point {
            sequence,
            chain: Digest([7; 32]),
        };
        assert_eq!(left(&keys, &route(1, 0), seen).await, None, "it waits");
    }
    assert_eq!(keys.shared.pending.available_permits(), MAX_PENDING - 1);
    assert_eq!(left(&keys, &route(2, 0), Point::START).await, None);
}

/// Whoever waits behind a fetch for another point is served, whether that point was known or not.
#[tokio::test(start_paused = true)]
async fn requests_with_different_points_do_not_take_each_others_answers() {
    let world = world(0);
    let route = route(1, 0);
    let known: Vec<Point> = (0..4).map(|_| world.service.append()).collect();
    let unknown = Point {
        sequence: 3,
        chain: Digest([7; 32]),
    };
    world.service.set().delay = Duration::from_millis(5);
    let asked = [Point::START, unknown, known[0], known[3], unknown, known[3]];
    let fetches = asked.map(|seen| {
        world
            .keys
            .fetch(&route, seen, IsolationLevel::Shared, Arc::new(()))
    });
    let answers = futures::future::join_all(fetches).await;
    for (seen, answer) in asked.iter().zip(answers) {
        match answer {
            Ok(lease) => assert!(lease.agrees_with(seen)),
            Err(refusal) => {
                assert_eq!(refusal.code, RefusalCode::StaleState);
                assert_eq!(*seen, unknown);
            }
        }
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_the_questions_are_no_leases() {
    struct Odd(usize);
    impl KeySource for Odd {
        fn release(
            &self,
            requests: Vec<ReleaseRequest>,
        ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
            let service = Service::new(Digest([0; 32]));
            let other = ReleaseRequest {
                model: ModelTarget::from(model(2)),
                ..requests[0].clone()
            };
            service.release(vec![other; self.0])
        }
    }
    for (answers, code) in [
        (0, RefusalCode::KeyServiceUnavailable),
        (1, RefusalCode::Internal),
        (2, RefusalCode::KeyServiceUnavailable),
    ] {
        let keys = Keys::new(Arc::new(Odd(answers)), Arc::new(SystemEntropy::new()));
        let refused = keys
            .fetch(
                &route(1, 0),
                Point::START,
                IsolationLevel::Shared,
                Arc::new(()),
            )
            .await
            .unwrap_err();
        assert_eq!(refused.code, code);
    }
}
