//! Who waits when every slot is taken: first in, first out, bounded, each with a deadline. Pure: no I/O, no clock.
//!
//! A request that cannot be served in time is refused at once instead of after a wait in vain. "Cannot" is meant
//! strictly: even if every slot ran at the fastest pace seen so far, its turn would come too late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Retry-After is at least one second, as HTTP has no smaller unit, and never so long that a client gives up for good.
const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u64> = 1..=60;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait already.
    Full {
        /// When it may be worth another try, in seconds.
        retry_after: u64,
    },
    /// Its turn would come after its deadline.
    TooLate,
}

/// How fast slots become free, at best.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    slots: u64,
    fastest: Option<Duration>,
}

impl Pace {
    /// Nothing is known yet of these `slots` slots.
    pub fn new(slots: u64) -> Self {
        Self {
            slots: slots.max(1),
            fastest: None,
        }
    }

    /// A request was served in this time.
    pub fn served_in(&mut self, time: Duration) {
        self.fastest = Some(self.fastest.map_or(time, |fastest| fastest.min(time)));
    }

    /// The least time until a request has its turn that has `ahead` others before it. The first round of slots may become
    /// free at any moment.
    pub fn least_wait(&self, ahead: usize) -> Duration {
        let rounds = u32::try_from(ahead as u64 / self.slots).unwrap_or(u32::MAX);
        self.fastest.unwrap_or_default().saturating_mul(rounds)
    }
}

/// A bounded queue of `T`.
#[derive(Debug)]
pub struct WaitQueue<T> {
    capacity: usize,
    tickets: u64,
    entries: VecDeque<(Ticket, T)>,
}

impl<T> WaitQueue<T> {
    /// A queue for `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            tickets: 0,
            entries: VecDeque::new(),
        }
    }

    /// Goes to the end of the queue.
    pub fn enter(
        &mut self,
        deadline: Instant,
        now: Instant,
        pace: &Pace,
        waiter: T,
    ) -> Result<Ticket, Refusal> {
        let ahead = self.entries.len();
        let least_wait = pace.least_wait(ahead);
        if deadline.saturating_duration_since(now) <= least_wait {
            return Err(Refusal::TooLate);
        }
        if ahead >= self.capacity {
            let seconds = least_wait.as_secs() + 1;
            let retry_after =
                seconds.clamp(*RETRY_AFTER_SECONDS.start(), *RETRY_AFTER_SECONDS.end());
            return Err(Refusal::Full { retry_after });
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.entries.push_back((ticket, waiter));
        Ok(ticket)
    }

    /// Leaves the queue, wherever the place is. `None` if it is not in the queue any more.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let index = self
            .entries
            .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
            .ok()?;
        self.entries.remove(index).map(|(_, waiter)| waiter)
    }

    /// The one whose turn is next.
    pub fn first(&self) -> Option<&T> {
        self.entries.front().map(|(_, waiter)| waiter)
    }

    /// Takes the one whose turn is next.
    pub fn pop(&mut self) -> Option<T> {
        self.entries.pop_front().map(|(_, waiter)| waiter)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many may wait.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
        let (mut queue, now) = (WaitQueue::new(2), Instant::now());
        let mut pace = Pace::new(1);
        queue.enter(now + LONG, now, &pace, 'a').unwrap();
        queue.enter(now + LONG, now, &pace, 'b').unwrap();
        assert_eq!(
            queue.enter(now + LONG, now, &pace, 'c'),
            Err(Refusal::Full { retry_after: 1 })
        );
        pace.served_in(Duration::from_secs(3));
        assert_eq!(
            queue.enter(now + LONG, now, &pace, 'c'),
            Err(Refusal::Full { retry_after: 7 })
        );
        pace = Pace::new(1);
        pace.served_in(Duration::from_secs(100));
        assert_eq!(
            queue.enter(now + LONG, now, &pace, 'c'),
            Err(Refusal::Full { retry_after: 60 })
        );
    }

    #[test]
    fn a_deadline_that_has_passed_or_cannot_be_met_at_the_best_pace_is_refused_at_once() {
        let (mut queue, now) = (WaitQueue::new(9), Instant::now());
        let mut pace = Pace::new(2);
        assert_eq!(queue.enter(now, now, &pace, 0), Err(Refusal::TooLate));
        pace.served_in(Duration::from_secs(5));
        pace.served_in(Duration::from_secs(9));
        let soon = now + Duration::from_secs(4);
        for n in 0..2 {
            queue.enter(soon, now, &pace, n).unwrap();
        }
        assert_eq!(
            queue.enter(soon, now, &pace, 2),
            Err(Refusal::TooLate),
            "one whole round is ahead of it"
        );
        assert!(
            queue
                .enter(now + Duration::from_secs(6), now, &pace, 2)
                .is_ok()
        );
    }

    #[test]
    fn without_experience_nobody_is_refused_for_being_late() {
        let (mut queue, now) = (WaitQueue::new(100), Instant::now());
        for n in 0..100 {
            queue
                .enter(now + Duration::from_millis(1), now, &Pace::new(1), n)
                .unwrap();
        }
    }

    proptest! {
        #[test]
        fn it_is_a_bounded_first_in_first_out_queue_that_one_can_leave(
            steps in prop::collection::vec((0..3u8, any::<usize>()), 0..200),
        ) {
            let (mut queue, now, pace) = (WaitQueue::new(5), Instant::now(), Pace::new(1));
            let mut expected: Vec<(Ticket, usize)> = Vec::new();
            for (step, n) in steps {
                match step {
                    0 => match queue.enter(now + LONG, now, &pace, n) {
                        Ok(ticket) => expected.push((ticket, n)),
                        Err(_) => prop_assert_eq!(expected.len(), 5),
                    },
                    1 if !expected.is_empty() => {
                        let (ticket, waiter) = expected.remove(n % expected.len());
                        prop_assert_eq!(queue.leave(ticket), Some(waiter));
                        prop_assert_eq!(queue.leave(ticket), None);
                    }
                    _ => {
                        let first = (!expected.is_empty()).then(|| expected.remove(0).1);
                        prop_assert_eq!(queue.pop(), first);
                    }
                }
                prop_assert_eq!(queue.len(), expected.len());
                prop_assert_eq!(queue.first().copied(), expected.first().map(|(_, waiter)| *waiter));
            }
        }
    }
}
