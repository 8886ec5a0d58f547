//! A pool while it runs: the [`Packer`] behind one mutex that is never held across an await, and guards for what it gives out.
//!
//! A [`Reservation`] is a slot. It is a guard: however its owner ends (done, failed, cancelled, panicked), the slot goes
//! back and whoever is next gets it. Someone who stops waiting leaves the queue the same way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sesemi_platform::ActionName;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::ModelKey;
use crate::packing::ledger::{Capacity, End, Phase, Report};
use crate::packing::queue::{Ticket, User};
use crate::packing::{Arrival, Go, Packer, Refusal, Rules, Slot};

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// The request may not wait.
    Refused(Refusal),
    /// It waited, and its deadline passed.
    Expired,
}

/// What a pool holds right now.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// The endpoints, by index.
    pub endpoints: Vec<EndpointStatus>,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that may wait.
    pub queue_capacity: usize,
}

/// What an endpoint of a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Requests that it serves.
    pub in_flight: u32,
    /// Requests that it may serve at once.
    pub slots: u32,
    /// Models that it probably holds.
    pub models: usize,
    /// Whether it has failed, and is left alone for a while.
    pub broken: bool,
}

impl PoolStatus {
    /// Requests that all endpoints serve now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.endpoints
            .iter()
            .map(|it| u64::from(it.in_flight))
            .sum()
    }
}

/// Endpoints and those who wait for them.
#[derive(Debug)]
pub struct Pool {
    actions: Vec<ActionName>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    packer: Packer,
    turns: HashMap<Ticket, oneshot::Sender<Reservation>>,
}

impl Pool {
    /// A pool of these actions, each with its capacity.
    #[must_use]
    pub fn new(endpoints: Vec<(ActionName, Capacity)>, rules: Rules) -> Arc<Self> {
        let (actions, capacities): (Vec<_>, Vec<_>) = endpoints.into_iter().unzip();
        let state = Mutex::new(State {
            packer: Packer::new(rules, &capacities, Instant::now()),
            turns: HashMap::new(),
        });
        Arc::new(Self { actions, state })
    }

    /// The actions, by index of their endpoint.
    pub fn actions(&self) -> &[ActionName] {
        &self.actions
    }

    /// A copy of the present state.
    pub fn status(&self) -> PoolStatus {
        let state = self.lock();
        let ledger = state.packer.ledger();
        let endpoint = |it| EndpointStatus {
            in_flight: ledger.load_of(it),
            slots: ledger.capacity(it).slots,
            models: ledger.held(it).len(),
            broken: matches!(ledger.phase(it), Phase::Broken(_)),
        };
        PoolStatus {
            endpoints: ledger.endpoints().map(endpoint).collect(),
            waiting: state.packer.waiting(),
            queue_capacity: state.packer.rules().queue.all,
        }
    }

    /// Waits for a slot for this model, not beyond the deadline.
    ///
    /// # Errors
    /// [`NoSlot`].
    pub async fn reserve(
        self: &Arc<Self>,
        model: &ModelKey,
        user: &User,
        deadline: Instant,
    ) -> Result<Reservation, NoSlot> {
        let arrival = Arrival {
            model: model.clone(),
            user: user.clone(),
            deadline,
        };
        let (place, mut turn) = self.enter(&arrival)?;
        loop {
            // Time alone may open a way: an endpoint that may be tried again, a wait that has become too long.
            let next = self.lock().packer.next_change();
            let until = next.map_or(deadline, |next| next.min(deadline));
            match timeout_at(until.into(), &mut turn).await {
                Ok(Ok(reservation)) => {
                    place.has_gone();
                    return Ok(reservation);
                }
                Err(_) if until < deadline => self.pass(),
                // Nobody drops a turn but its own place; and the deadline is the only end of waiting.
                Ok(Err(_)) | Err(_) => return Err(NoSlot::Expired),
            }
        }
    }

    fn enter(
        self: &Arc<Self>,
        arrival: &Arrival,
    ) -> Result<(Place, oneshot::Receiver<Reservation>), NoSlot> {
        let (sender, turn) = oneshot::channel();
        let now = Instant::now();
        let mut state = self.lock();
        let (ticket, gone) = state
            .packer
            .arrives(arrival, now)
            .map_err(NoSlot::Refused)?;
        state.turns.insert(ticket, sender);
        let sent = self.take(&mut state, gone, now);
        drop(state);
        send(sent);
        let place = Place {
            pool: Some(self.clone()),
            ticket,
        };
        Ok((place, turn))
    }

    /// Time passed.
    fn pass(self: &Arc<Self>) {
        let now = Instant::now();
        let mut state = self.lock();
        let gone = state.packer.passes(now);
        let sent = self.take(&mut state, gone, now);
        drop(state);
        send(sent);
    }

    fn take(
        self: &Arc<Self>,
        state: &mut State,
        gone: Vec<Go>,
        now: Instant,
    ) -> Vec<(oneshot::Sender<Reservation>, Reservation)> {
        let reservation = |go: Go| {
            let turn = state.turns.remove(&go.ticket)?;
            // There are as many actions as endpoints.
            let action = self.actions.get(go.slot.endpoint.index())?.clone();
            let reservation = Reservation {
                pool: self.clone(),
                slot: go.slot,
                action,
                began: now,
                end: End::Unknown,
            };
            Some((turn, reservation))
        };
        gone.into_iter().filter_map(reservation).collect()
    }

    fn give_back(self: &Arc<Self>, reservation: &Reservation) {
        let now = Instant::now();
        let mut state = self.lock();
        let gone = state.packer.ended(reservation.slot, reservation.end, now);
        let sent = self.take(&mut state, gone, now);
        drop(state);
        send(sent);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outside the lock: a slot that nobody receives any more is dropped here, and is given back.
fn send(turns: Vec<(oneshot::Sender<Reservation>, Reservation)>) {
    for (turn, reservation) in turns {
        drop(turn.send(reservation));
    }
}

/// A place in the queue; dropping it leaves the queue.
struct Place {
    pool: Option<Arc<Pool>>,
    ticket: Ticket,
}

impl Place {
    /// It became a slot.
    fn has_gone(mut self) {
        self.pool = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            let mut state = pool.lock();
            state.packer.leaves(self.ticket);
            state.turns.remove(&self.ticket);
        }
    }
}

/// A slot of an endpoint; dropping it gives the slot back.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    slot: Slot,
    action: ActionName,
    began: Instant,
    end: End,
}

impl Reservation {
    /// The index of the endpoint.
    pub fn endpoint(&self) -> usize {
        self.slot.endpoint.index()
    }

    /// What is to be invoked.
    pub fn action(&self) -> &ActionName {
        &self.action
    }

    /// The request was served; `start` is how long its instance took to start, if it was started for it. What else its time was
    /// for is what the endpoint was taken to hold when it was sent there.
    pub fn served(mut self, start: Option<Duration>) {
        let took = self
            .began
            .elapsed()
            .saturating_sub(start.unwrap_or_default());
        let report = if self.slot.held && start.is_none() {
            Report {
                run: Some(took),
                ..Report::default()
            }
        } else {
            let run = self.pool.lock().packer.run_of(self.slot);
            Report {
                run: None,
                load: Some(took.saturating_sub(run)),
                start,
            }
        };
        self.end = End::Answered(report);
    }

    /// Its instance answered, but not with a result: it is there, and nothing is learned of times.
    pub fn answered(mut self) {
        self.end = End::Answered(Report::default());
    }

    /// The endpoint's instance is gone: it has no model any more.
    pub fn instance_lost(mut self) {
        self.end = End::InstanceLost;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.clone().give_back(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::policy::{Policy, Prices};
    use crate::packing::queue::Bounds;

    const LONG: Duration = Duration::from_secs(600);

    fn pool(endpoints: usize, slots: u32, queue: usize) -> Arc<Pool> {
        let capacity = Capacity {
            slots,
            room: 1 << 30,
            memory: 1 << 30,
        };
        let action = |n| ActionName::new(&format!("pool-{n}")).unwrap();
        let endpoints = (0..endpoints).map(|n| (action(n), capacity)).collect();
        let rules = Rules {
            policy: Policy::Cost,
            prices: Prices::default(),
            queue: Bounds {
                all: queue,
                each: queue,
            },
            keep_warm: LONG,
        };
        Pool::new(endpoints, rules)
    }

    fn model(name: &str) -> ModelKey {
        ModelKey::new(name.as_bytes()).unwrap()
    }

    fn user() -> User {
        User::new(b"user")
    }

    fn waiting(
        pool: &Arc<Pool>,
        name: &'static str,
    ) -> tokio::task::JoinHandle<Result<Reservation, NoSlot>> {
        let pool = pool.clone();
        tokio::spawn(async move {
            pool.reserve(&model(name), &user(), Instant::now() + LONG)
                .await
        })
    }

    async fn reserve(pool: &Arc<Pool>, name: &str) -> Reservation {
        pool.reserve(&model(name), &user(), Instant::now() + LONG)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn slots_come_back_when_reservations_are_dropped_cancelled_or_lost_in_a_panic() {
        let pool = pool(2, 2, 8);
        let all = [
            reserve(&pool, "a").await,
            reserve(&pool, "b").await,
            reserve(&pool, "c").await,
        ];
        assert_eq!(pool.status().in_flight(), 3);
        let [first, second, third] = all;
        first.served(None);
        second.instance_lost();
        let panicked = tokio::spawn(async move {
            let _third = third;
            panic!("on purpose");
        });
        assert!(panicked.await.is_err());
        assert_eq!(pool.status().in_flight(), 0);
    }

    #[tokio::test]
    async fn those_who_wait_are_served_in_order_and_nobody_overtakes() {
        let pool = pool(1, 1, 8);
        let mut held = reserve(&pool, "a").await;
        let mut tasks = Vec::new();
        for name in ["a", "b", "a", "c"] {
            tasks.push(waiting(&pool, name));
            while pool.status().waiting < tasks.len() {
                tokio::task::yield_now().await;
            }
        }
        for task in tasks {
            drop(held);
            held = task.await.unwrap().unwrap();
            assert_eq!(pool.status().in_flight(), 1);
        }
        assert_eq!(pool.status().waiting, 0);
    }

    #[tokio::test]
    async fn someone_who_leaves_frees_the_place_and_a_slot_on_its_way_to_them() {
        let pool = pool(1, 1, 8);
        let held = reserve(&pool, "a").await;
        let (first, second) = (waiting(&pool, "b"), waiting(&pool, "c"));
        while pool.status().waiting < 2 {
            tokio::task::yield_now().await;
        }
        // The slot is sent to the first, who has not run since and never will.
        drop(held);
        first.abort();
        assert!(first.await.is_err());
        drop(second.await.unwrap().unwrap());
        let status = pool.status();
        assert_eq!((status.waiting, status.in_flight()), (0, 0));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_leaves_nothing_behind() {
        let pool = pool(1, 1, 8);
        let held = reserve(&pool, "a").await;
        let late = pool
            .reserve(
                &model("b"),
                &user(),
                Instant::now() + Duration::from_millis(20),
            )
            .await;
        assert_eq!(late.err(), Some(NoSlot::Expired));
        assert_eq!(pool.status().waiting, 0);
        drop(held);
        reserve(&pool, "b").await;
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_gets_no_slot_even_if_one_is_free() {
        let refused = pool(1, 1, 8)
            .reserve(&model("a"), &user(), Instant::now())
            .await;
        assert_eq!(refused.err(), Some(NoSlot::Refused(Refusal::TooLate)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn under_load_and_random_departures_no_slot_is_lost() {
        let pool = pool(3, 2, 1000);
        let tasks: Vec<_> = (0..500_usize)
            .map(|n| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let name = ["a", "b", "c", "d", "e"][n % 5];
                    let slot = pool
                        .reserve(&model(name), &user(), Instant::now() + LONG)
                        .await
                        .unwrap();
                    assert!(pool.status().endpoints[slot.endpoint()].in_flight <= 2);
                    tokio::task::yield_now().await;
                })
            })
            .collect();
        for (n, task) in tasks.iter().enumerate() {
            if n % 3 == 0 {
                task.abort();
            }
        }
        for task in tasks {
            assert!(
                task.await
                    .map_or_else(|error| error.is_cancelled(), |()| true)
            );
        }
        let status = pool.status();
        assert_eq!((status.waiting, status.in_flight()), (0, 0));
    }
}
