//! Execution slots (the paper's TCSs): as many threads as runs at the same time, each with a bounded, fair queue in front of it.
//!
//! A request that gets a slot gets a thread along with it. Engines compute there and nowhere else, so however long a run takes,
//! the network's threads go on. A slot is free when its run has really ended, even if nobody waits for the result any more.

mod queue;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::{PrincipalId, Refusal, RefusalCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::sync::mpsc::{Receiver, SyncSender, sync_channel};
use crate::sync::{Mutex, lock, thread};
use queue::{FairQueue, Pushed, Ticket};
pub use watchdog::{Overdue, Watchdog};

type Work = Box<dyn FnOnce() + Send>;

/// What wakes a request that waits.
type Wakes = oneshot::Sender<Turn>;

/// All slots of this enclave.
#[derive(Clone)]
pub struct Slots {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// One for each slot.
    threads: Vec<SyncSender<Work>>,
}

struct State {
    /// Slots that nobody has.
    free: Vec<usize>,
    queue: FairQueue<PrincipalId, Instant, Waiting>,
}

/// A request in the queue.
struct Waiting {
    /// About how long its run will take, in seconds.
    expected: f64,
    wakes: Wakes,
}

impl core::fmt::Debug for Slots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Slots(..)")
    }
}

impl Slots {
    /// As many slots as `count`, and a queue for at most `queue` requests that wait for one.
    ///
    /// # Errors
    /// [`std::io::Error`] if a thread cannot be started.
    pub fn new(count: usize, queue: usize) -> std::io::Result<Self> {
        let mut threads = Vec::with_capacity(count);
        for slot in 0..count {
            // A slot has one holder at a time. Its work may come while the thread is still busy giving the slot back.
            let (send, receive) = sync_channel(1);
            thread::Builder::new()
                .name(format!("slot-{slot}"))
                .spawn(move || serve(&receive))?;
            threads.push(send);
        }
        let state = State {
            free: (0..count).rev().collect(),
            queue: FairQueue::new(queue),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                threads,
            }),
        })
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.threads.len()
    }

    /// Requests that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.shared.state).queue.len()
    }

    /// Slots that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        let free = lock(&self.shared.state).free.len();
        self.count().saturating_sub(free)
    }

    /// Waits for a slot, for a run of about the time `expected`. Whoever drops this leaves the queue.
    ///
    /// # Errors
    /// [`RefusalCode::Busy`] if the queue is full, or if others, who have fewer requests in it, need the room.
    pub async fn turn(
        &self,
        user: PrincipalId,
        deadline: Instant,
        expected: Duration,
    ) -> Result<Turn, Refusal> {
        let expected = expected.as_secs_f64();
        let (wakes, woken) = oneshot::channel();
        let waiting = Waiting { expected, wakes };
        let ticket = {
            let mut state = lock(&self.shared.state);
            // Somebody who waits already comes first.
            if state.queue.is_empty()
                && let Some(slot) = state.free.pop()
            {
                state.queue.began(user, expected);
                drop(state);
                return Ok(self.shared.clone().turn(slot, user, expected));
            }
            match state.queue.push(user, deadline, waiting) {
                Pushed::Waits(ticket) => ticket,
                // Whoever it was learns it by its sender being dropped.
                Pushed::InPlaceOf(ticket, _) => ticket,
                Pushed::Full => return Err(RefusalCode::Busy.into()),
            }
        };
        let place = Queued {
            shared: &self.shared,
            user,
            ticket,
        };
        let turn = woken.await;
        drop(place);
        turn.map_err(|_| RefusalCode::Busy.into())
    }
}

/// A place in the queue.
struct Queued<'s> {
    shared: &'s Shared,
    user: PrincipalId,
    ticket: Ticket<Instant>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        lock(&self.shared.state)
            .queue
            .remove(&self.user, self.ticket);
    }
}

impl Shared {
    fn turn(self: Arc<Self>, slot: usize, user: PrincipalId, expected: f64) -> Turn {
        Turn {
            began: Instant::now(),
            shared: self,
            slot,
            user,
            expected,
            given_back: false,
        }
    }

    /// Gives a slot to whoever is next.
    fn give_back(self: &Arc<Self>, slot: usize) {
        loop {
            let next = {
                let mut state = lock(&self.state);
                let Some((user, waiting)) = state.queue.pop() else {
                    state.free.push(slot);
                    return;
                };
                state.queue.began(user, waiting.expected);
                (user, waiting)
            };
            let (user, Waiting { expected, wakes }) = next;
            let turn = self.clone().turn(slot, user, expected);
            match wakes.send(turn) {
                Ok(()) => return,
                // It has just left. The slot goes to the next, here and not in its drop, which would be in here once more.
                Err(mut turn) => turn.forget(),
            }
        }
    }
}

/// A slot, until this is dropped.
pub struct Turn {
    shared: Arc<Shared>,
    slot: usize,
    user: PrincipalId,
    expected: f64,
    began: Instant,
    given_back: bool,
}

impl core::fmt::Debug for Turn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}

impl Turn {
    /// Does `work` on the slot's thread. If nobody waits for it any more it is done all the same, and the slot is free
    /// after that.
    ///
    /// # Errors
    /// [`RefusalCode::Internal`] if it panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (done, result) = oneshot::channel();
        let slot = self.slot;
        let shared = self.shared.clone();
        let thread = shared.threads.get(slot).ok_or(RefusalCode::Internal)?;
        let work: Work = Box::new(move || {
            // Dropped however the work ends, also by a panic. Whoever has the result finds the slot free.
            let turn = self;
            let result = work();
            drop(turn);
            let _ = done.send(result);
        });
        // The thread takes one piece of work at a time, and only from whoever has its slot: this does not block.
        thread.send(work).map_err(|_| RefusalCode::Internal)?;
        received(result).await
    }

    /// The user's clock is charged with what was used of it.
    fn forget(&mut self) {
        self.given_back = true;
        let seconds = self.began.elapsed().as_secs_f64();
        let mut state = lock(&self.shared.state);
        state.queue.ended(&self.user, self.expected, seconds);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.given_back {
            self.forget();
            self.shared.give_back(self.slot);
        }
    }
}

/// What the thread sends.
#[cfg(not(test))]
async fn received<T: Send + 'static>(result: oneshot::Receiver<T>) -> Result<T, Refusal> {
    result.await.map_err(|_| RefusalCode::Internal.into())
}

/// Tests stop the clock, and it must stand still as long as the thread works; but tokio lets it go on when all of its own threads
/// wait. So one of them seems to be busy.
#[cfg(test)]
async fn received<T: Send + 'static>(result: oneshot::Receiver<T>) -> Result<T, Refusal> {
    let received = tokio::task::spawn_blocking(move || result.blocking_recv());
    received
        .await
        .map_err(|_| RefusalCode::Internal)?
        .map_err(|_| RefusalCode::Internal.into())
}

/// What a slot's thread does, until the slots are gone.
fn serve(work: &Receiver<Work>) {
    while let Ok(work) = work.recv() {
        // What it was working on is dropped with it, and whoever waits for it sees that.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests;
