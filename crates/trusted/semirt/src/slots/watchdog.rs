//! Notices an engine that hangs. Its thread cannot be stopped, and its slot and memory cannot be had back; so its instance
//! has to end, and the platform starts a new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Mutex, lock};

/// How often it looks.
const TICK: Duration = Duration::from_millis(250);

/// Watches work that must end by itself.
#[derive(Debug)]
pub struct Watchdog {
    limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    under_way: BTreeMap<u64, Work>,
}

#[derive(Debug)]
struct Work {
    what: &'static str,
    began: Instant,
}

/// Work that took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has been busy with a {what} for {} s, which is the limit", limit.as_secs_f64())]
pub struct Overdue {
    what: &'static str,
    limit: Duration,
}

impl Watchdog {
    /// Watches for work that takes longer than `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
        })
    }

    /// Notes that work began; it ended when the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>, what: &'static str) -> Watched {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next = number.wrapping_add(1);
        let began = Instant::now();
        state.under_way.insert(number, Work { what, began });
        Watched {
            watchdog: self.clone(),
            number,
        }
    }

    /// Returns once some work is overdue.
    pub async fn overdue(&self) -> Overdue {
        loop {
            // The oldest is in front.
            let oldest = lock(&self.state)
                .under_way
                .first_key_value()
                .map(|(_, work)| (work.what, work.began));
            if let Some((what, began)) = oldest
                && began.elapsed() >= self.limit
            {
                let limit = self.limit;
                return Overdue { what, limit };
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Work that is watched.
#[derive(Debug)]
pub struct Watched {
    watchdog: Arc<Watchdog>,
    number: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.watchdog.state).under_way.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_noticed_and_work_that_ends_is_not() {
        let watchdog = Watchdog::new(Duration::from_secs(10));
        for _ in 0..5 {
            let work = watchdog.begin("run");
            let quiet = tokio::time::timeout(Duration::from_secs(9), watchdog.overdue()).await;
            assert!(quiet.is_err());
            drop(work);
        }
        let began = Instant::now();
        let _hangs = watchdog.begin("load");
        let _short = watchdog.begin("run");
        let overdue = watchdog.overdue().await;
        assert_eq!(overdue.what, "load");
        assert!(began.elapsed() <= Duration::from_secs(11));
    }
}
