//! The bytes that models and their executions may take together, and who has how many of them.
//!
//! Memory is reserved before it is taken. A reservation goes along with the memory, from thread to thread, and ends after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that may be taken, and how many are.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

/// Bytes of a budget; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of which nothing is taken.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// All bytes of it.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if so many are left.
    #[must_use]
    pub fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.limit)
            });
        taken.ok().map(|_| Reservation {
            budget: self.clone(),
            bytes,
        })
    }

    /// Takes up to `most` bytes, as many as are left.
    #[must_use]
    pub fn take_up_to(self: &Arc<Self>, most: u64) -> Reservation {
        let mut taken = 0;
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                taken = self.limit.saturating_sub(used).min(most);
                used.checked_add(taken)
            });
        Reservation {
            budget: self.clone(),
            bytes: taken,
        }
    }
}

impl Reservation {
    /// How many bytes it is for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Corrects it to what is really needed. More may be above the budget: what is in memory counts, and the next load makes
    /// room for it.
    pub fn correct(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            let more = bytes.saturating_sub(self.bytes);
            let _ = self
                .budget
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    Some(used.saturating_add(more))
                });
        } else {
            let less = self.bytes.saturating_sub(bytes);
            self.budget.used.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Adds another reservation of the same budget to this one.
    pub fn join(&mut self, mut other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        other.bytes = 0;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_corrected_or_joined_adds_up() {
        let budget = Budget::new(300);
        let mut reserved = budget.try_take(100).unwrap();
        reserved.correct(250);
        assert_eq!(budget.used(), 250);
        assert!(budget.try_take(51).is_none());
        let rest = budget.take_up_to(1000);
        assert_eq!((rest.bytes(), budget.used()), (50, 300));
        assert_eq!(budget.take_up_to(1).bytes(), 0);
        reserved.join(rest);
        reserved.correct(20);
        assert_eq!(budget.used(), 20);
        drop(reserved);
        assert_eq!(budget.used(), 0);
    }
}
