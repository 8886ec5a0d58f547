//! What loads and runs leave in the allocator goes back to the kernel a little later.
//!
//! What a model leaves that had to go is what the next one takes, if it is still there: its buffers, which it fills in its first run.
//! Given back at once, the kernel would wipe it and hand it out again page by page, in the middle of the request that waits for that
//! run. What nobody has taken after a moment goes; and so does what requests leave, once there are none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock;

/// Of quiet, after a load or a request: longer than most first runs take, and short for memory that is paid for by the second.
const A_MOMENT: Duration = Duration::from_millis(500);
/// Where one load follows the other, the first of them waits for no longer than this.
const AT_MOST: Duration = Duration::from_secs(1);

/// Gives memory back when there is a moment for it.
pub(super) struct Tidying {
    give_back: Box<dyn Fn() + Send + Sync>,
    due: Mutex<Due>,
}

#[derive(Debug, Default)]
struct Due {
    /// A moment after what was left last.
    at: Option<Instant>,
    /// However much is left in the meantime.
    latest: Option<Instant>,
    /// Whether a task waits for it.
    awaited: bool,
}

impl Due {
    fn time(&self) -> Option<Instant> {
        [self.at, self.latest].into_iter().flatten().min()
    }
}

impl Tidying {
    pub(super) fn new(give_back: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            give_back: Box::new(give_back),
            due: Mutex::default(),
        })
    }

    /// A load left something, or models and executions were dropped: it is worth an interruption, if there is no quiet.
    pub(super) fn soon(self: &Arc<Self>) {
        self.note(Some(AT_MOST));
    }

    /// A request left something that the next one probably takes.
    pub(super) fn when_quiet(self: &Arc<Self>) {
        self.note(None);
    }

    fn note(self: &Arc<Self>, at_most: Option<Duration>) {
        let now = Instant::now();
        let mut due = lock(&self.due);
        due.at = now.checked_add(A_MOMENT);
        due.latest = due
            .latest
            .or_else(|| at_most.and_then(|time| now.checked_add(time)));
        let awaited = core::mem::replace(&mut due.awaited, true);
        drop(due);
        if !awaited {
            let tidying = self.clone();
            drop(tokio::spawn(async move { tidying.wait().await }));
        }
    }

    async fn wait(self: Arc<Self>) {
        while let Some(time) = self.next() {
            tokio::time::sleep_until(time).await;
            let due = {
                let mut due = lock(&self.due);
                let due_now = due.time().is_some_and(|time| time <= Instant::now());
                if due_now {
                    (due.at, due.latest) = (None, None);
                }
                due_now
            };
            if due {
                // It takes its time: not on a thread of the network. What is left meanwhile is noted, and waited for next.
                let tidying = self.clone();
                let _ = tokio::task::spawn_blocking(move || (tidying.give_back)()).await;
            }
        }
    }

    /// When it is time. None, and nobody waits any more, if nothing was left.
    fn next(&self) -> Option<Instant> {
        let mut due = lock(&self.due);
        let time = due.time();
        due.awaited = time.is_some();
        time
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often memory was given back.
    fn counting() -> (Arc<Tidying>, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let tidying = Tidying::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        (tidying, count)
    }

    async fn wait(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        // What blocks is on threads that know nothing of the paused clock.
        for _ in 0..100 {
            tokio::task::yield_now().await;
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_say_so_it_is_done_once_a_moment_after_the_last_and_again_afterwards() {
        let (tidying, count) = counting();
        for _ in 0..2 {
            tidying.soon();
            wait(400).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 0, "no quiet yet");
        wait(200).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        wait(10_000).await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tidying.when_quiet();
        wait(600).await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn loads_without_quiet_wait_for_a_second_at_most_and_requests_for_quiet() {
        let (tidying, count) = counting();
        for _ in 0..30 {
            tidying.when_quiet();
            wait(100).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 0);
        for _ in 0..12 {
            tidying.soon();
            wait(100).await;
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
