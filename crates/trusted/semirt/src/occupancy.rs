//! Whose requests may be open in this enclave at the same time.
//!
//! A request enters before its key is asked for and before it is opened, and leaves once its answer is sealed. In between there
//! may be others, as the [isolation levels](sesemi_protocol::isolation) of all of them allow: any that are *shared*, those of
//! one user under *dedicated-user*, none but itself under *sequential*. Whoever does not get along with those inside waits
//! outside, with its ciphertext alone, and nobody passes it there. So a switch happens when all of the one kind have left, and
//! what they left behind (keys, buffers of executions) is cleared before the first of the other kind enters.

use std::collections::VecDeque;
use std::sync::Arc;

use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::{PrincipalId, Refusal, RefusalCode};
use tokio::sync::oneshot;

use crate::sync::{Mutex, lock};

/// Who is in the enclave.
pub struct Occupancy {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    limit: usize,
    /// Removes what requests leave behind, and is told whether those who come are to be kept apart.
    clear: Box<dyn Fn(bool) + Send + Sync>,
}

struct State {
    /// What those inside are, or what those were who left last.
    kind: Kind,
    inside: usize,
    waiting: VecDeque<Waiting>,
    next: u64,
}

/// Requests that get along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Of any user.
    Shared,
    /// Of this user.
    Of(PrincipalId),
    /// One alone.
    Alone,
}

struct Waiting {
    number: u64,
    user: PrincipalId,
    level: IsolationLevel,
    wakes: oneshot::Sender<Place>,
}

impl core::fmt::Debug for Occupancy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Occupancy(..)")
    }
}

impl Kind {
    fn of(user: PrincipalId, level: IsolationLevel) -> Self {
        match level {
            IsolationLevel::Batched | IsolationLevel::Shared => Self::Shared,
            IsolationLevel::DedicatedUser => Self::Of(user),
            IsolationLevel::Sequential => Self::Alone,
        }
    }

    /// Whether a request may join those of this kind.
    fn admits(self, user: PrincipalId, level: IsolationLevel) -> bool {
        match self {
            Self::Shared => level <= IsolationLevel::Shared,
            // Among its own, a request that would get along with anybody does as well.
            Self::Of(other) => other == user && level <= IsolationLevel::DedicatedUser,
            Self::Alone => false,
        }
    }
}

impl Occupancy {
    /// An empty enclave. At most `limit` requests wait outside. `clear` removes what requests left behind, and is told whether
    /// those who come after it are to be kept apart from others; it is called while nobody is inside.
    #[must_use]
    pub fn new(limit: usize, clear: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    kind: Kind::Shared,
                    inside: 0,
                    waiting: VecDeque::new(),
                    next: 0,
                }),
                limit,
                clear: Box::new(clear),
            }),
        }
    }

    /// Enters as soon as nobody is inside, or waits in front, whom this level keeps apart. Whoever drops this leaves the queue.
    ///
    /// # Errors
    /// [`RefusalCode::Busy`] if too many wait.
    pub async fn enter(&self, user: PrincipalId, level: IsolationLevel) -> Result<Place, Refusal> {
        let (number, woken) = {
            let mut state = lock(&self.shared.state);
            if state.waiting.is_empty() && self.shared.admit(&mut state, user, level) {
                drop(state);
                return Ok(self.shared.place());
            }
            if state.waiting.len() >= self.shared.limit {
                return Err(RefusalCode::Busy.into());
            }
            let (wakes, woken) = oneshot::channel();
            let number = state.next;
            state.next = number.wrapping_add(1);
            state.waiting.push_back(Waiting {
                number,
                user,
                level,
                wakes,
            });
            (number, woken)
        };
        let outside = Outside {
            shared: &self.shared,
            number,
        };
        let place = woken.await;
        drop(outside);
        place.map_err(|_| RefusalCode::Internal.into())
    }

    /// Requests that are inside, and requests that wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let state = lock(&self.shared.state);
        (state.inside, state.waiting.len())
    }
}

/// A place in the queue.
struct Outside<'o> {
    shared: &'o Arc<Shared>,
    number: u64,
}

impl Drop for Outside<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        let before = state.waiting.len();
        state.waiting.retain(|other| other.number != self.number);
        let left = state.waiting.len() < before;
        drop(state);
        if left {
            // It may have been the one that all behind it waited for.
            self.shared.let_in();
        }
    }
}

impl Shared {
    /// Lets a request in, if it gets along with those inside.
    fn admit(&self, state: &mut State, user: PrincipalId, level: IsolationLevel) -> bool {
        if state.inside == 0 && !state.kind.admits(user, level) {
            // Under the lock, so that nobody is inside before it is done.
            (self.clear)(level > IsolationLevel::Shared);
            state.kind = Kind::of(user, level);
        } else if !state.kind.admits(user, level) {
            return false;
        }
        state.inside = state.inside.saturating_add(1);
        true
    }

    fn place(self: &Arc<Self>) -> Place {
        Place {
            shared: self.clone(),
            held: true,
        }
    }

    /// Lets those in who wait in front.
    fn let_in(self: &Arc<Self>) {
        loop {
            let wakes = {
                let mut state = lock(&self.state);
                let Some(first) = state.waiting.front() else {
                    return;
                };
                let (user, level) = (first.user, first.level);
                if !self.admit(&mut state, user, level) {
                    return;
                }
                state.waiting.pop_front().map(|first| first.wakes)
            };
            let failed = wakes.and_then(|wakes| wakes.send(self.place()).err());
            if let Some(mut place) = failed {
                // It has just left. The loop goes on to the next one, which the place's drop would do once more.
                place.held = false;
                self.leave();
            }
        }
    }

    fn leave(&self) {
        let mut state = lock(&self.state);
        state.inside = state.inside.saturating_sub(1);
        if state.inside == 0 && state.kind == Kind::Alone {
            // Not even until the next request comes.
            (self.clear)(true);
        }
    }
}

/// A request's place inside, until this is dropped.
pub struct Place {
    shared: Arc<Shared>,
    held: bool,
}

impl core::fmt::Debug for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            self.shared.leave();
            self.shared.let_in();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::IsolationLevel::{DedicatedUser, Sequential, Shared as Anybody};
    use super::*;

    struct World {
        occupancy: Arc<Occupancy>,
        cleared: Arc<AtomicUsize>,
    }

    fn world(limit: usize) -> World {
        let cleared = Arc::new(AtomicUsize::new(0));
        let count = cleared.clone();
        let clear = move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        };
        World {
            occupancy: Arc::new(Occupancy::new(limit, clear)),
            cleared,
        }
    }

    fn user(number: u8) -> PrincipalId {
        PrincipalId([number; 32])
    }

    impl World {
        fn cleared(&self) -> usize {
            self.cleared.load(Ordering::SeqCst)
        }

        /// Enters, which must be possible at once.
        async fn enter(&self, number: u8, level: IsolationLevel) -> Place {
            let entering = self.occupancy.enter(user(number), level);
            tokio::select! {
                biased;
                place = entering => place.unwrap(),
                () = tokio::task::yield_now() => panic!("it had to wait"),
            }
        }

        /// Begins to wait.
        async fn wait(&self, number: u8, level: IsolationLevel) -> tokio::task::JoinHandle<Place> {
            let (_, before) = self.occupancy.counts();
            let occupancy = self.occupancy.clone();
            let waiting = async move { occupancy.enter(user(number), level).await.unwrap() };
            let waiting = tokio::spawn(waiting);
            while self.occupancy.counts().1 == before {
                assert!(!waiting.is_finished(), "it did not have to wait");
                tokio::task::yield_now().await;
            }
            waiting
        }
    }

    #[tokio::test]
    async fn shared_requests_of_all_users_are_inside_together_and_nothing_is_cleared() {
        let world = world(0);
        let places = [
            world.enter(1, Anybody).await,
            world.enter(2, Anybody).await,
            world.enter(1, Anybody).await,
        ];
        assert_eq!(world.occupancy.counts(), (3, 0));
        drop(places);
        world.enter(3, Anybody).await;
        assert_eq!(world.cleared(), 0);
    }

    #[tokio::test]
    async fn a_dedicated_enclave_serves_one_user_until_it_is_cleared() {
        let world = world(9);
        let shared = world.enter(1, Anybody).await;
        let own = world.wait(2, DedicatedUser).await;
        // Nobody passes the one who waits, or it might wait for ever.
        let other = world.wait(1, Anybody).await;
        drop(shared);
        let own = own.await.unwrap();
        assert_eq!(world.cleared(), 1);
        assert_eq!(world.occupancy.counts(), (1, 1));
        drop(own);
        let other = other.await.unwrap();
        assert_eq!(world.cleared(), 2);
        drop(other);

        let first = world.enter(2, DedicatedUser).await;
        let more = world.enter(2, DedicatedUser).await;
        let lax = world.enter(2, Anybody).await;
        assert_eq!(world.cleared(), 3);
        drop((first, more, lax));
        world.enter(2, DedicatedUser).await;
        assert_eq!(world.cleared(), 3, "it is the same user still");
        world.enter(3, DedicatedUser).await;
        assert_eq!(world.cleared(), 4);
    }

    #[tokio::test]
    async fn a_sequential_request_is_alone_and_leaves_nothing() {
        let world = world(9);
        let first = world.enter(1, Sequential).await;
        assert_eq!(world.cleared(), 1);
        let second = world.wait(1, Sequential).await;
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(world.occupancy.counts(), (1, 0));
        let before = world.cleared();
        drop(second);
        assert_eq!(world.cleared(), before + 1);
    }

    #[tokio::test]
    async fn who_leaves_the_queue_lets_those_behind_it_in() {
        let world = world(2);
        let inside = world.enter(1, Anybody).await;
        let blocks = world.wait(2, Sequential).await;
        let behind = world.wait(3, Anybody).await;
        let refused = world.occupancy.enter(user(4), Anybody).await.unwrap_err();
        assert_eq!(refused.code, RefusalCode::Busy);
        blocks.abort();
        let behind = behind.await.unwrap();
        assert_eq!(world.occupancy.counts(), (2, 0));
        drop((inside, behind));
        assert_eq!(world.occupancy.counts(), (0, 0));
    }

    proptest! {
        /// Any order of coming, leaving and giving up: those inside always get along, and in the end all were let in.
        #[test]
        fn those_inside_always_get_along(
            steps in proptest::collection::vec((0..4_u8, 0..4_usize, 0..3_u8, any::<u8>()), 1..200)
        ) {
            let world = world(1000);
            let mut futures: Vec<(u8, IsolationLevel, _)> = Vec::new();
            let mut inside: Vec<(u8, IsolationLevel, Place)> = Vec::new();
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for (number, level, action, which) in steps {
                let level = IsolationLevel::ALL[level];
                match action {
                    0 => {
                        let occupancy = world.occupancy.clone();
                        let enter = Box::pin(async move { occupancy.enter(user(number), level).await.unwrap() });
                        futures.push((number, level, enter));
                    }
                    1 if !inside.is_empty() => drop(inside.remove(usize::from(which) % inside.len())),
                    2 if !futures.is_empty() => drop(futures.remove(usize::from(which) % futures.len())),
                    _ => {}
                }
                poll(&mut futures, &mut inside, &mut context);
                let alone = inside.iter().any(|it| it.1 == Sequential);
                prop_assert!(!alone || inside.len() == 1);
                for (number, level, _) in &inside {
                    let own = inside.iter().all(|other| other.0 == *number);
                    prop_assert!(*level != DedicatedUser || own);
                }
            }
            while !inside.is_empty() {
                drop(inside.remove(0));
                poll(&mut futures, &mut inside, &mut context);
            }
            prop_assert!(futures.is_empty());
            prop_assert_eq!(world.occupancy.counts(), (0, 0));
        }
    }

    fn poll<F: Future<Output = Place> + Unpin>(
        futures: &mut Vec<(u8, IsolationLevel, F)>,
        inside: &mut Vec<(u8, IsolationLevel, Place)>,
        context: &mut std::task::Context<'_>,
    ) {
        let mut waiting = Vec::new();
        for (number, level, mut future) in futures.drain(..) {
            match std::pin::Pin::new(&mut future).poll(context) {
                std::task::Poll::Ready(place) => inside.push((number, level, place)),
                std::task::Poll::Pending => waiting.push((number, level, future)),
            }
        }
        *futures = waiting;
    }
}
