//! The way to an instance that is ready, and what is remembered of how it answers. An instance that hangs looks like many
//! callers who lose patience: only the sum of their waiting tells it from callers who are in a hurry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::InstanceClient;

/// The way to an instance that is ready.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: InstanceClient,
    pub(super) pid: Option<u32>,
    pub(super) init_time: Duration,
    /// Milliseconds that it was asked without answering, summed over all who asked since its last answer.
    unanswered_ms: AtomicU64,
}

impl Link {
    pub(super) fn new(client: InstanceClient, pid: Option<u32>, init_time: Duration) -> Self {
        Self {
            client,
            pid,
            init_time,
            unanswered_ms: AtomicU64::new(0),
        }
    }

    /// The instance is asked something; the question counts as unanswered if nobody says otherwise.
    pub(super) fn ask(&self) -> Question<'_> {
        Question {
            link: self,
            asked: Instant::now(),
            answered: false,
        }
    }

    /// Time that those who asked waited in vain since the instance last answered somebody.
    pub(super) fn unanswered(&self) -> Duration {
        Duration::from_millis(self.unanswered_ms.load(Ordering::Relaxed))
    }
}

/// A question to an instance.
pub(super) struct Question<'a> {
    link: &'a Link,
    asked: Instant,
    answered: bool,
}

impl Question<'_> {
    /// The instance has answered.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let unanswered = &self.link.unanswered_ms;
        if self.answered {
            unanswered.store(0, Ordering::Relaxed);
        } else {
            let waited = u64::try_from(self.asked.elapsed().as_millis()).unwrap_or(u64::MAX);
            unanswered.fetch_add(waited, Ordering::Relaxed);
        }
    }
}
