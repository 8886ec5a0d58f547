//! Work that reads the log, on threads that may block: a disk can take as long as it likes to answer.
//!
//! There are few of these threads, and the TEE's evidence, which every handshake needs, is made on them too. So only some of
//! them ever read the log, and who asks for it waits a bounded time for its turn. Each asker has one turn at a time, and all
//! whom nobody vouches for have one together, so that none of them takes what the others need; of these each address has its own.

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::{Digest, PrincipalId, Refusal, RefusalCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits::Network;
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
    /// Of those at one address whom nobody vouches for: callers that signed nothing, and whoever hands in a command that is not
    /// new. `None` for callers from nowhere, inside this process.
    Strangers(Option<Network>),
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
    /// One turn of all strangers. Addresses come one after the other, so that the one that asks most gets no more than others.
    strangers: Arc<Semaphore>,
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
            strangers: Arc::new(Semaphore::new(1)),
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

    /// Its lane's turn first, then the strangers' if it is one of theirs, then one of all.
    async fn turn(&self, lane: Lane) -> Option<Turn> {
        let place = self.lanes.take(&lane, || Semaphore::new(1))?;
        let own = Arc::clone(place.shared()).acquire_owned().await.ok()?;
        let strangers = match lane {
            Lane::Strangers(_) => Some(self.strangers.clone().acquire_owned().await.ok()?),
            Lane::Enclave(_) | Lane::Principal(_) => None,
        };
        let shared = self.turns.clone().acquire_owned().await.ok()?;
        Some((own, strangers, shared, place))
    }
}

/// The lane's turn, the strangers' if it is one of theirs, one of all, and the place in the lane: all given back together.
type Turn = (
    OwnedSemaphorePermit,
    Option<OwnedSemaphorePermit>,
    OwnedSemaphorePermit,
    Held<Lane, Semaphore>,
);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn stranger(n: u8) -> Lane {
        Lane::Strangers(Some(IpAddr::from([127, 0, 0, n]).into()))
    }

    #[tokio::test]
    async fn an_address_that_asks_all_the_time_lets_another_one_have_its_turn() {
        let pages = Arc::new(Pages::new(2, Duration::from_secs(60)));
        let (end, reading) = occupy(&pages, stranger(1));
        while pages.turns.available_permits() > 1 {
            tokio::task::yield_now().await;
        }
        let (said, mut order) = tokio::sync::mpsc::unbounded_channel();
        for n in [1, 1, 1, 2] {
            let (pages, said) = (pages.clone(), said.clone());
            tokio::spawn(async move {
                let read = move || {
                    said.send(n).unwrap();
                    Ok(())
                };
                pages.read(stranger(n), read).await
            });
            // Each takes its place before the next one comes.
            tokio::task::yield_now().await;
        }
        drop((end, said));
        reading.await.unwrap().unwrap();
        let mut came = Vec::new();
        while let Some(n) = order.recv().await {
            came.push(n);
        }
        assert_eq!(came.len(), 4);
        let place = came.iter().position(|n| *n == 2).unwrap();
        assert!(place <= 1, "{came:?}");
    }

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
            stranger(1),
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
            let other = pages.read(stranger(2), || Ok(8)).await;
            let is_stranger = matches!(lane, Lane::Strangers(_));
            assert_eq!(other.is_err(), is_stranger);
            drop(end);
            assert_eq!(reading.await.unwrap(), Ok(7));
            assert!(pages.lanes.is_empty(), "nobody is remembered");
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_keeps_its_turn_until_its_thread_is_done() {
        let pages = Arc::new(Pages::new(1, Duration::from_millis(1)));
        let (end, reading) = occupy(&pages, stranger(1));
        until_taken(&pages).await;
        reading.abort();
        let _ = reading.await;
        assert_eq!(pages.turns.available_permits(), 0);
        drop(end);
        let pages = Pages {
            patience: Duration::from_secs(30),
            lanes: Quota::new(LANE),
            strangers: pages.strangers.clone(),
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
