//! Work that reads the log, on threads that may block: a disk can take as long as it likes to answer.
//!
//! There are few of these threads, and the TEE's evidence, which every handshake needs, is made on them too. So only some of
//! them ever read the log, and who asks for it waits a bounded time for its turn. Each asker has one turn at a time, and all
//! whom nobody vouches for have one together, so that none of them takes what the others need.

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::{Digest, PrincipalId, Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::quota::{Held, Quota};

/// Pages that are read at once. The program has to have more blocking threads than this, those of a backup counted off.
pub const PAGES: usize = 2;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// Calls of one lane that may wait for a turn, or have it.
const LANE: usize = 64;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Of all whom nobody vouches for: callers that signed nothing, and whoever hands in a command that is not new.
    Strangers,
    /// An enclave's, by its evidence.
    Enclave(Digest),
    /// A registered principal's, whose signature has verified.
    Principal(PrincipalId),
}

/// Turns at reading the log.
#[derive(Debug)]
pub struct Pages {
    /// One turn of each lane.
    lanes: Quota<Lane, Semaphore>,
    turns: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Pages {
    fn default() -> Self {
        Self::new(PAGES, PATIENCE)
    }
}

impl Pages {
    /// Up to `at_once` at once; the others wait up to `patience`.
    fn new(at_once: usize, patience: Duration) -> Self {
        Self {
            lanes: Quota::new(LANE),
            turns: Arc::new(Semaphore::new(at_once)),
            patience,
        }
    }

    /// Reads on a thread that may block, when it is its turn.
    ///
    /// # Errors
    /// [`RefusalCode::Busy`] if too many of this lane wait or its turn does not come, [`RefusalCode::Internal`] if reading panics, or what `read` refuses.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        lane: Lane,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = timeout(self.patience, self.turn(lane)).await;
        let Some(turn) = turn.ok().flatten() else {
            let detail = "others are reading the log; send this again in a few seconds";
            return Err(Refusal::new(RefusalCode::Busy, detail));
        };
        // Held by the thread, not by the caller: one that leaves does not make room for another thread. Then by the caller until it
        // goes on, so that the next of its lane does not overtake it.
        let reading = tokio::task::spawn_blocking(move || (read(), turn));
        match reading.await {
            Ok((read, _turn)) => read,
            Err(_) => Err(RefusalCode::Internal.into()),
        }
    }

    /// Its lane's turn first, then one of all.
    async fn turn(&self, lane: Lane) -> Option<Turn> {
        let place = self.lanes.take(&lane, || Semaphore::new(1))?;
        let own = Arc::clone(place.shared()).acquire_owned().await.ok()?;
        let shared = self.turns.clone().acquire_owned().await.ok()?;
        Some((own, shared, place))
    }
}

/// The lane's turn, one of all, and the place in the lane: all given back together.
type Turn = (
    OwnedSemaphorePermit,
    OwnedSemaphorePermit,
    Held<Lane, Semaphore>,
);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn enclave(n: u8) -> Lane {
        Lane::Enclave(Digest([n; 32]))
    }

    /// Starts to read and goes on until it is told to end.
    fn occupy(
        pages: &Arc<Pages>,
        lane: Lane,
    ) -> (Sender<()>, tokio::task::JoinHandle<Result<u8, Refusal>>) {
        let (end, ended) = channel::<()>();
        let pages = pages.clone();
        let reading = tokio::spawn(async move {
            let read = move || {
                let _ = ended.recv();
                Ok(7)
            };
            pages.read(lane, read).await
        });
        (end, reading)
    }

    async fn until_taken(pages: &Pages) {
        while pages.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn whoever_asks_while_all_turns_are_taken_is_told_to_come_back_and_no_thread_is_used() {
        let pages = Arc::new(Pages::new(2, Duration::from_millis(1)));
        let (first, second) = (occupy(&pages, enclave(1)), occupy(&pages, enclave(2)));
        until_taken(&pages).await;
        let refused = pages
            .read(enclave(3), || -> Result<(), Refusal> {
                panic!("a third thread reads")
            })
            .await;
        assert_eq!(refused.unwrap_err().code, RefusalCode::Busy);
        drop((first.0, second.0));
        assert_eq!(first.1.await.unwrap(), Ok(7));
        assert_eq!(second.1.await.unwrap(), Ok(7));
        assert_eq!(pages.read(enclave(3), || Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn no_asker_has_two_turns_and_strangers_together_have_one() {
        for lane in [
            Lane::Strangers,
            enclave(1),
            Lane::Principal(PrincipalId([1; 32])),
        ] {
            let pages = Arc::new(Pages::new(2, Duration::from_millis(1)));
            let (end, reading) = occupy(&pages, lane);
            while pages.turns.available_permits() > 1 {
                tokio::task::yield_now().await;
            }
            let refused = pages
                .read(lane, || -> Result<(), Refusal> {
                    panic!("it has a turn already")
                })
                .await;
            assert_eq!(refused.unwrap_err().code, RefusalCode::Busy);
            assert_eq!(pages.read(enclave(2), || Ok(8)).await, Ok(8));
            drop(end);
            assert_eq!(reading.await.unwrap(), Ok(7));
            assert!(pages.lanes.is_empty(), "nobody is remembered");
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_keeps_its_turn_until_its_thread_is_done() {
        let pages = Arc::new(Pages::new(1, Duration::from_millis(1)));
        let (end, reading) = occupy(&pages, Lane::Strangers);
        until_taken(&pages).await;
        reading.abort();
        let _ = reading.await;
        assert_eq!(pages.turns.available_permits(), 0);
        drop(end);
        let pages = Pages {
            patience: Duration::from_secs(30),
            lanes: Quota::new(LANE),
            turns: pages.turns.clone(),
        };
        assert_eq!(pages.read(enclave(3), || Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_while_reading_is_an_internal_fault_and_gives_the_turn_back() {
        let pages = Pages::new(1, Duration::from_secs(30));
        let panicked = pages
            .read(enclave(3), || -> Result<(), Refusal> {
                panic!("on purpose")
            })
            .await;
        assert_eq!(panicked.unwrap_err().code, RefusalCode::Internal);
        assert_eq!(pages.read(enclave(3), || Ok(8)).await, Ok(8));
    }
}
