//! The pool: endpoints with slots, and the queue before them, behind one mutex that is never held across an await.
//!
//! A [`Reservation`] is a slot. It is a guard: however its owner ends (done, failed, cancelled, panicked), the slot goes
//! back and the next in the queue gets one. Someone who stops waiting leaves the queue the same way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sesemi_platform::ActionName;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::ModelKey;
use crate::placement::{Placement, PoolView, place};
use crate::queue::{Pace, Refusal, Ticket, WaitQueue};

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
    pub view: PoolView,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that may wait.
    pub queue_capacity: usize,
}

/// Endpoints and those who wait for them.
#[derive(Debug)]
pub struct Pool {
    actions: Vec<ActionName>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    view: PoolView,
    queue: WaitQueue<Waiter>,
    pace: Pace,
}

#[derive(Debug)]
struct Waiter {
    model: ModelKey,
    turn: oneshot::Sender<Reservation>,
}

impl Pool {
    /// A pool of these actions, each with `slots` slots, and a queue of `queue_capacity`; see [`PoolView::new`].
    pub fn new(
        actions: Vec<ActionName>,
        slots: u32,
        queue_capacity: usize,
        keep_warm: Duration,
    ) -> Arc<Self> {
        let view = PoolView::new(actions.len(), slots, keep_warm);
        let pace = Pace::new(view.capacity());
        let state = Mutex::new(State {
            view,
            queue: WaitQueue::new(queue_capacity),
            pace,
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
        PoolStatus {
            view: state.view.clone(),
            waiting: state.queue.len(),
            queue_capacity: state.queue.capacity(),
        }
    }

    /// Waits for a slot for this model, not beyond the deadline.
    pub async fn reserve(
        self: &Arc<Self>,
        model: &ModelKey,
        deadline: Instant,
    ) -> Result<Reservation, NoSlot> {
        let (place, turn) = match self.enter(model, deadline)? {
            Entered::Reserved(reservation) => return Ok(reservation),
            Entered::Waiting(place, turn) => (place, turn),
        };
        let turn = timeout_at(deadline.into(), turn).await;
        drop(place);
        match turn {
            Ok(Ok(reservation)) => Ok(reservation),
            // Nobody drops a waiter but its own place; and the deadline is the only end of waiting.
            Ok(Err(_)) | Err(_) => Err(NoSlot::Expired),
        }
    }

    fn enter(self: &Arc<Self>, model: &ModelKey, deadline: Instant) -> Result<Entered, NoSlot> {
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        // Nobody overtakes those who wait, even if a slot has just become free.
        if state.queue.is_empty()
            && let Placement::Endpoint(endpoint) = place(&state.view, model, now)
        {
            if deadline <= now {
                return Err(NoSlot::Refused(Refusal::TooLate));
            }
            if let Some(reservation) = self.take(state, endpoint, model, now) {
                return Ok(Entered::Reserved(reservation));
            }
        }
        let (sender, turn) = oneshot::channel();
        let waiter = Waiter {
            model: model.clone(),
            turn: sender,
        };
        let ticket = state
            .queue
            .enter(deadline, now, &state.pace, waiter)
            .map_err(NoSlot::Refused)?;
        Ok(Entered::Waiting(
            Place {
                pool: self.clone(),
                ticket,
            },
            turn,
        ))
    }

    fn take(
        self: &Arc<Self>,
        state: &mut State,
        endpoint: usize,
        model: &ModelKey,
        now: Instant,
    ) -> Option<Reservation> {
        // There are as many actions as endpoints.
        let action = self.actions.get(endpoint)?.clone();
        state.view.reserve(endpoint, model, now);
        Some(Reservation {
            pool: self.clone(),
            endpoint,
            action,
            model: model.clone(),
            began: now,
            end: End::Unknown,
        })
    }

    fn give_back(self: &Arc<Self>, reservation: &Reservation) {
        let now = Instant::now();
        let mut turns = Vec::new();
        {
            let mut state = self.lock();
            let state = &mut *state;
            state
                .view
                .release(reservation.endpoint, &reservation.model, now);
            match reservation.end {
                End::Served => state
                    .pace
                    .served_in(now.saturating_duration_since(reservation.began)),
                End::InstanceLost => state.view.forget(reservation.endpoint),
                End::Unknown => {}
            }
            while let Some(first) = state.queue.first()
                && let Placement::Endpoint(endpoint) = place(&state.view, &first.model, now)
                && let Some(waiter) = state.queue.pop()
            {
                let reservation = self.take(state, endpoint, &waiter.model, now);
                turns.extend(reservation.map(|reservation| (waiter.turn, reservation)));
            }
        }
        // Outside the lock: a slot that nobody receives any more is dropped here, and comes back to this function.
        for (turn, reservation) in turns {
            drop(turn.send(reservation));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Entered {
    Reserved(Reservation),
    Waiting(Place, oneshot::Receiver<Reservation>),
}

/// A place in the queue; dropping it leaves the queue.
struct Place {
    pool: Arc<Pool>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.lock().queue.leave(self.ticket);
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Unknown,
    Served,
    InstanceLost,
}

/// A slot of an endpoint; dropping it gives the slot back.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<Pool>,
    endpoint: usize,
    action: ActionName,
    model: ModelKey,
    began: Instant,
    end: End,
}

impl Reservation {
    /// The index of the endpoint.
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// What is to be invoked.
    pub fn action(&self) -> &ActionName {
        &self.action
    }

    /// The request was served: its time counts as experience.
    pub fn served(mut self) {
        self.end = End::Served;
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

    const LONG: Duration = Duration::from_secs(600);

    fn pool(endpoints: usize, slots: u32, queue: usize) -> Arc<Pool> {
        let actions = (0..endpoints)
            .map(|n| ActionName::new(&format!("pool-{n}")).unwrap())
            .collect();
        Pool::new(actions, slots, queue, LONG)
    }

    fn model(name: &str) -> ModelKey {
        ModelKey::new(name.as_bytes()).unwrap()
    }

    fn waiting(
        pool: &Arc<Pool>,
        name: &'static str,
    ) -> tokio::task::JoinHandle<Result<Reservation, NoSlot>> {
        let pool = pool.clone();
        tokio::spawn(async move { pool.reserve(&model(name), Instant::now() + LONG).await })
    }

    async fn reserve(pool: &Arc<Pool>, name: &str) -> Reservation {
        pool.reserve(&model(name), Instant::now() + LONG)
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
        assert_eq!(pool.status().view.in_flight(), 3);
        let [first, second, third] = all;
        first.served();
        second.instance_lost();
        let panicked = tokio::spawn(async move {
            let _third = third;
            panic!("on purpose");
        });
        assert!(panicked.await.is_err());
        assert_eq!(pool.status().view.in_flight(), 0);
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
            assert_eq!(pool.status().view.in_flight(), 1);
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
        assert_eq!((status.waiting, status.view.in_flight()), (0, 0));
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_leaves_nothing_behind() {
        let pool = pool(1, 1, 8);
        let held = reserve(&pool, "a").await;
        let late = pool
            .reserve(&model("b"), Instant::now() + Duration::from_millis(20))
            .await;
        assert_eq!(late.err(), Some(NoSlot::Expired));
        assert_eq!(pool.status().waiting, 0);
        drop(held);
        reserve(&pool, "b").await;
    }

    #[tokio::test]
    async fn a_deadline_in_the_past_gets_no_slot_even_if_one_is_free() {
        let refused = pool(1, 1, 8).reserve(&model("a"), Instant::now()).await;
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
                        .reserve(&model(name), Instant::now() + LONG)
                        .await
                        .unwrap();
                    assert!(pool.status().view.endpoints()[slot.endpoint()].in_flight() <= 2);
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
        assert_eq!((status.waiting, status.view.in_flight()), (0, 0));
    }
}
