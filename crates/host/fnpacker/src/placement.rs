//! Which endpoint serves a request. Pure: the whole state is a [`PoolView`], the time is passed in.
//!
//! The rule is the simplest sound one in the spirit of the paper's FnPacker: a model that is being served keeps its
//! endpoint, the others share what is idle.
//!
//! 1. An endpoint with a free slot that has the model: one that serves it right now before one that served it last.
//! 2. Else an idle endpoint: one without any model before the one least recently used.
//! 3. Else the endpoint with a free slot and the fewest requests.
//! 4. Else wait: every slot is taken.
//!
//! An endpoint that nobody used for as long as the platform keeps idle instances has lost its instance, and its model with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ModelKey;

/// One endpoint, as the gateway knows it.
#[derive(Debug, Clone, Default)]
pub struct EndpointView {
    loaded: Option<ModelKey>,
    serving: BTreeMap<ModelKey, u32>,
    in_flight: u32,
    last_used: Option<Instant>,
}

/// All endpoints of a pool.
#[derive(Debug, Clone)]
pub struct PoolView {
    endpoints: Vec<EndpointView>,
    slots: u32,
    keep_warm: Duration,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To the endpoint with this index.
    Endpoint(usize),
    /// Nowhere yet: every slot is taken.
    Wait,
}

impl EndpointView {
    /// Requests that it serves now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether it served a model that it probably still has.
    pub fn is_loaded(&self, now: Instant, keep_warm: Duration) -> bool {
        self.warm_model(now, keep_warm).is_some()
    }

    fn warm_model(&self, now: Instant, keep_warm: Duration) -> Option<&ModelKey> {
        let recently = self
            .last_used
            .is_some_and(|last| now.saturating_duration_since(last) < keep_warm);
        if self.in_flight > 0 || recently {
            self.loaded.as_ref()
        } else {
            None
        }
    }
}

impl PoolView {
    /// `endpoints` endpoints with `slots` slots each; the platform ends instances that are idle for `keep_warm`.
    pub fn new(endpoints: usize, slots: u32, keep_warm: Duration) -> Self {
        Self {
            endpoints: vec![EndpointView::default(); endpoints],
            slots,
            keep_warm,
        }
    }

    /// The endpoints, by index.
    pub fn endpoints(&self) -> &[EndpointView] {
        &self.endpoints
    }

    /// Slots of each endpoint.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How long an idle endpoint is taken to keep its model.
    pub fn keep_warm(&self) -> Duration {
        self.keep_warm
    }

    /// Slots of all endpoints.
    pub fn capacity(&self) -> u64 {
        self.endpoints.len() as u64 * u64::from(self.slots)
    }

    /// Requests that all endpoints serve now.
    pub fn in_flight(&self) -> u64 {
        self.endpoints
            .iter()
            .map(|endpoint| u64::from(endpoint.in_flight))
            .sum()
    }

    /// Takes a slot for a request that [`place`] sent to this endpoint.
    pub fn reserve(&mut self, index: usize, model: &ModelKey, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(index) else {
            return;
        };
        endpoint.in_flight += 1;
        *endpoint.serving.entry(model.clone()).or_default() += 1;
        endpoint.loaded = Some(model.clone());
        endpoint.last_used = Some(now);
    }

    /// Gives a slot back.
    pub fn release(&mut self, index: usize, model: &ModelKey, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(index) else {
            return;
        };
        let Some(serving) = endpoint.serving.get_mut(model) else {
            return;
        };
        *serving -= 1;
        if *serving == 0 {
            endpoint.serving.remove(model);
        }
        endpoint.in_flight -= 1;
        endpoint.last_used = Some(now);
    }

    /// The endpoint's instance is gone, and what it had loaded.
    pub fn forget(&mut self, index: usize) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.loaded = None;
        }
    }
}

/// Chooses the endpoint of a request for `model`, by the rule of the [module](self).
pub fn place(pool: &PoolView, model: &ModelKey, now: Instant) -> Placement {
    let free = || {
        pool.endpoints
            .iter()
            .enumerate()
            .filter(|(_, endpoint)| endpoint.in_flight < pool.slots)
    };
    let warm = |endpoint: &EndpointView| endpoint.warm_model(now, pool.keep_warm).cloned();
    let has_model = |endpoint: &EndpointView| {
        endpoint.serving.contains_key(model)
            || warm(endpoint).is_some_and(|loaded| loaded == *model)
    };
    let with_model = free()
        .filter(|(_, endpoint)| has_model(endpoint))
        .min_by_key(|(_, endpoint)| (!endpoint.serving.contains_key(model), endpoint.in_flight));
    let idle = || {
        free()
            .filter(|(_, endpoint)| endpoint.in_flight == 0)
            .min_by_key(|(_, endpoint)| (warm(endpoint).is_some(), endpoint.last_used))
    };
    let any = || free().min_by_key(|(_, endpoint)| (endpoint.in_flight, endpoint.last_used));
    match with_model.or_else(idle).or_else(any) {
        Some((index, _)) => Placement::Endpoint(index),
        None => Placement::Wait,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP_WARM: Duration = Duration::from_secs(60);

    fn model(name: &str) -> ModelKey {
        ModelKey::new(name.as_bytes()).unwrap()
    }

    fn second(n: u64, start: Instant) -> Instant {
        start + Duration::from_secs(n)
    }

    /// Serves one request for each `(endpoint, model)` in turn, a second apart.
    fn after(endpoints: usize, slots: u32, served: &[(usize, &str)]) -> (PoolView, Instant) {
        let (mut pool, start) = (PoolView::new(endpoints, slots, KEEP_WARM), Instant::now());
        for (n, (index, name)) in served.iter().enumerate() {
            pool.reserve(*index, &model(name), second(n as u64, start));
            pool.release(*index, &model(name), second(n as u64, start));
        }
        (pool, second(served.len() as u64, start))
    }

    #[test]
    fn a_model_returns_to_the_endpoint_that_served_it_last() {
        let (pool, now) = after(3, 1, &[(0, "a"), (1, "b")]);
        assert_eq!(place(&pool, &model("a"), now), Placement::Endpoint(0));
        assert_eq!(place(&pool, &model("b"), now), Placement::Endpoint(1));
    }

    #[test]
    fn a_model_in_flight_is_preferred_over_the_same_model_merely_loaded() {
        let (mut pool, now) = after(2, 2, &[(0, "a"), (1, "a")]);
        pool.reserve(1, &model("a"), now);
        assert_eq!(place(&pool, &model("a"), now), Placement::Endpoint(1));
    }

    #[test]
    fn a_new_model_takes_an_endpoint_without_model_before_the_least_recently_used() {
        let (pool, now) = after(3, 1, &[(0, "a"), (2, "b")]);
        assert_eq!(place(&pool, &model("c"), now), Placement::Endpoint(1));
        let (pool, now) = after(3, 1, &[(1, "b"), (0, "a"), (2, "c")]);
        assert_eq!(place(&pool, &model("d"), now), Placement::Endpoint(1));
    }

    #[test]
    fn a_model_does_not_disturb_one_in_flight_while_an_endpoint_is_idle() {
        let (mut pool, now) = after(2, 4, &[(0, "a"), (1, "b")]);
        pool.reserve(0, &model("a"), now);
        assert_eq!(place(&pool, &model("c"), now), Placement::Endpoint(1));
    }

    #[test]
    fn without_an_idle_endpoint_the_one_with_the_fewest_requests_is_shared() {
        let (mut pool, now) = after(2, 4, &[]);
        for (index, name) in [(0, "a"), (0, "a"), (1, "b")] {
            pool.reserve(index, &model(name), now);
        }
        assert_eq!(place(&pool, &model("c"), now), Placement::Endpoint(1));
    }

    #[test]
    fn a_full_pool_means_waiting() {
        let (mut pool, now) = after(1, 1, &[]);
        pool.reserve(0, &model("a"), now);
        assert_eq!(place(&pool, &model("a"), now), Placement::Wait);
        pool.release(0, &model("a"), now);
        assert_eq!(place(&pool, &model("a"), now), Placement::Endpoint(0));
    }

    #[test]
    fn an_endpoint_idle_for_too_long_or_forgotten_has_no_model() {
        let (mut pool, now) = after(2, 1, &[(0, "a")]);
        let later = now + KEEP_WARM;
        assert_eq!(
            place(&pool, &model("b"), later),
            Placement::Endpoint(1),
            "never used sorts first"
        );
        pool.reserve(1, &model("b"), later);
        pool.release(1, &model("b"), later);
        assert_eq!(
            place(&pool, &model("c"), later),
            Placement::Endpoint(0),
            "its model is taken to be gone"
        );
        pool.forget(1);
        assert_eq!(
            place(&pool, &model("b"), later),
            Placement::Endpoint(0),
            "used before the other one"
        );
    }

    proptest! {
        #[test]
        fn any_history_keeps_the_rule(steps in prop::collection::vec((any::<bool>(), 0..5usize, 0..90u64), 1..300)) {
            let names = ["a", "b", "c", "d", "e"].map(model);
            let (mut pool, mut now) = (PoolView::new(3, 2, KEEP_WARM), Instant::now());
            let mut running: Vec<(usize, ModelKey)> = Vec::new();
            for (arrives, n, seconds) in steps {
                now += Duration::from_secs(seconds);
                if !arrives {
                    if !running.is_empty() {
                        let (index, model) = running.swap_remove(n % running.len());
                        pool.release(index, &model, now);
                    }
                } else {
                    let model = &names[n];
                    match place(&pool, model, now) {
                        Placement::Wait => prop_assert_eq!(pool.in_flight(), pool.capacity()),
                        Placement::Endpoint(index) => {
                            let chosen = &pool.endpoints()[index];
                            prop_assert!(chosen.in_flight() < pool.slots());
                            let serving = |e: &EndpointView| e.serving.contains_key(model);
                            let better = pool.endpoints().iter().any(|e| serving(e) && e.in_flight() < pool.slots());
                            prop_assert!(serving(chosen) || !better, "left the endpoint that serves it");
                            let idle = pool.endpoints().iter().any(|e| e.in_flight() == 0);
                            let has = serving(chosen) || chosen.loaded.as_ref() == Some(model);
                            prop_assert!(has || chosen.in_flight() == 0 || !idle, "shared while one was idle");
                            pool.reserve(index, model, now);
                            running.push((index, model.clone()));
                        }
                    }
                }
                prop_assert_eq!(pool.in_flight(), running.len() as u64);
            }
        }
    }
}
