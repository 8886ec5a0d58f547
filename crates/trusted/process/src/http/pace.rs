//! When a connection must end by itself: it is silent, or its peer does not take an answer.
//!
//! HTTP/2 has no such bounds of its own: a peer that answers pings may open no stream for ever, and one that opens no window
//! may leave an answer in our memory for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// What one connection is doing.
#[derive(Debug)]
struct State {
    /// Requests from their head until their answer has left.
    open: usize,
    /// Since when there is none.
    quiet: Instant,
    /// When the answers were made that have not left.
    answers: BTreeMap<u64, Instant>,
    next: u64,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nobody asked anything for too long.
    Silent,
    /// An answer was not taken for too long.
    NotTaken,
}

/// Follows one connection. Clones follow the same.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    state: watch::Sender<State>,
}

impl Pace {
    pub(super) fn new() -> Self {
        let state = State {
            open: 0,
            quiet: Instant::now(),
            answers: BTreeMap::new(),
            next: 0,
        };
        Self {
            state: watch::Sender::new(state),
        }
    }

    /// A request has come.
    pub(super) fn begin(&self) -> Open {
        self.state
            .send_modify(|state| state.open = state.open.saturating_add(1));
        Open {
            pace: self.clone(),
            answer: None,
        }
    }

    /// Returns when the connection must end.
    pub(super) async fn end(&self, silence: Duration, taking: Duration) -> End {
        let mut state = self.state.subscribe();
        loop {
            let next = state.borrow_and_update().end(silence, taking);
            let changed = state.changed();
            match next {
                // The sender is ours, so it is there.
                None => drop(changed.await),
                Some((at, end)) => {
                    if timeout_at(at, changed).await.is_err() {
                        return end;
                    }
                }
            }
        }
    }
}

impl State {
    fn end(&self, silence: Duration, taking: Duration) -> Option<(Instant, End)> {
        let (from, limit, end) = match self.answers.first_key_value() {
            _ if self.open == 0 => (self.quiet, silence, End::Silent),
            Some((_, made)) => (*made, taking, End::NotTaken),
            None => return None,
        };
        Some((from.checked_add(limit)?, end))
    }
}

/// A request from its head until its answer has left.
#[derive(Debug)]
pub(super) struct Open {
    pace: Pace,
    answer: Option<u64>,
}

impl Open {
    /// The answer is made.
    pub(super) fn answered(&mut self) {
        let mut number = 0;
        self.pace.state.send_modify(|state| {
            number = state.next;
            state.next = state.next.wrapping_add(1);
            state.answers.insert(number, Instant::now());
        });
        self.answer = Some(number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pace.state.send_modify(|state| {
            if let Some(number) = self.answer {
                state.answers.remove(&number);
            }
            state.open = state.open.saturating_sub(1);
            state.quiet = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);
    const TAKING: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_connection_and_work_does_not() {
        let pace = Pace::new();
        let began = Instant::now();
        assert_eq!(pace.end(SILENCE, TAKING).await, End::Silent);
        assert_eq!(began.elapsed(), SILENCE);
        let open = pace.begin();
        tokio::time::sleep(10 * TAKING).await;
        assert!(pace.end(SILENCE, TAKING).now_or_never().is_none());
        drop(open);
        let quiet = Instant::now();
        assert_eq!(pace.end(SILENCE, TAKING).await, End::Silent);
        assert_eq!(quiet.elapsed(), SILENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_that_waits_longest_ends_a_connection_unless_it_is_taken() {
        let pace = Pace::new();
        let (mut first, mut second) = (pace.begin(), pace.begin());
        first.answered();
        tokio::time::sleep(TAKING / 2).await;
        second.answered();
        let made = Instant::now();
        drop(first);
        assert_eq!(pace.end(SILENCE, TAKING).await, End::NotTaken);
        assert_eq!(made.elapsed(), TAKING);
    }
}
