//! Work that reads much of the log, on threads that may block.
//!
//! There are few of these threads, and the TEE's evidence, which every handshake needs, is made on them too. So only some of
//! them ever read pages, and who asks for one waits a bounded time for its turn.

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::{Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Pages that are read at once. The program has to have more blocking threads than this, those of a backup counted off.
pub const PAGES: usize = 2;
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Turns at reading pages.
#[derive(Debug)]
pub struct Pages {
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
            turns: Arc::new(Semaphore::new(at_once)),
            patience,
        }
    }

    /// Reads on a thread that may block, when it is its turn.
    ///
    /// # Errors
    /// [`RefusalCode::Busy`] if its turn does not come, [`RefusalCode::Internal`] if reading panics, or what `read` refuses.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Ok(Ok(turn)) = timeout(self.patience, self.turns.clone().acquire_owned()).await else {
            let detail = "others are reading the log; ask for the page again in a few seconds";
            return Err(Refusal::new(RefusalCode::Busy, detail));
        };
        tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the caller: one that leaves does not make room for another thread.
            let _turn = turn;
            read()
        })
        .await
        .unwrap_or_else(|_| Err(RefusalCode::Internal.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Starts to read and goes on until it is told to end.
    fn occupy(pages: &Arc<Pages>) -> (Sender<()>, tokio::task::JoinHandle<Result<u8, Refusal>>) {
        let (end, ended) = channel::<()>();
        let pages = pages.clone();
        let reading = tokio::spawn(async move {
            let read = move || {
                let _ = ended.recv();
                Ok(7)
            };
            pages.read(read).await
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
        let (first, second) = (occupy(&pages), occupy(&pages));
        until_taken(&pages).await;
        let refused = pages
            .read(|| -> Result<(), Refusal> { panic!("a third thread reads") })
            .await;
        assert_eq!(refused.unwrap_err().code, RefusalCode::Busy);
        drop((first.0, second.0));
        assert_eq!(first.1.await.unwrap(), Ok(7));
        assert_eq!(second.1.await.unwrap(), Ok(7));
        assert_eq!(pages.read(|| Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_keeps_its_turn_until_its_thread_is_done() {
        let pages = Arc::new(Pages::new(1, Duration::from_millis(1)));
        let (end, reading) = occupy(&pages);
        until_taken(&pages).await;
        reading.abort();
        let _ = reading.await;
        assert_eq!(pages.turns.available_permits(), 0);
        drop(end);
        let pages = Pages {
            patience: Duration::from_secs(30),
            turns: pages.turns.clone(),
        };
        assert_eq!(pages.read(|| Ok(8)).await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_while_reading_is_an_internal_fault_and_gives_the_turn_back() {
        let pages = Pages::new(1, Duration::from_secs(30));
        let panicked = pages
            .read(|| -> Result<(), Refusal> { panic!("on purpose") })
            .await;
        assert_eq!(panicked.unwrap_err().code, RefusalCode::Internal);
        assert_eq!(pages.read(|| Ok(8)).await, Ok(8));
    }
}
