//! How many bytes of bodies are in memory at once, over all connections.
//!
//! A body is not read before there is room for all of it, so that bodies that arrive at the same time cannot each have a part of
//! the room and wait for the rest of it for ever. An answer is in memory already when its length is known: it takes room that
//! is not there as well, and bodies wait until that is made good.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Bytes that bodies may take. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    free: Semaphore,
    /// Bytes of answers that there was no room for.
    owed: Mutex<usize>,
}

/// A body is longer than the whole budget, or there is no room for it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// There never will be.
    #[error("the body is longer than all the memory for bodies")]
    Never,
    /// There may be later.
    #[error("there is no memory left for the body now")]
    Now,
}

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub fn new(total: usize) -> Self {
        // A body's length is counted in 32 bits, and the semaphore has a limit of its own.
        let total = total.min(u32::MAX as usize).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                total,
                free: Semaphore::new(total),
                owed: Mutex::new(0),
            }),
        }
    }

    /// Waits until there is room for `bytes`. Whoever came first gets it first; whoever drops this does not wait any more.
    ///
    /// # Errors
    /// [`NoRoom::Never`].
    pub async fn take(&self, bytes: usize) -> Result<Room, NoRoom> {
        let permits = self.permits(bytes)?;
        let taken = self.shared.free.acquire_many(permits).await;
        // Nobody closes the semaphore.
        taken.map_err(|_| NoRoom::Now)?.forget();
        Ok(self.room(bytes))
    }

    /// Room for nothing yet.
    pub(super) fn none(&self) -> Room {
        self.room(0)
    }

    /// Room for bytes that are in memory already, whether or not there is any.
    pub(super) fn take_over(&self, bytes: usize) -> Room {
        let mut owed = self.shared.owed();
        let found = self.shared.free.forget_permits(bytes);
        *owed = owed.saturating_add(bytes.saturating_sub(found));
        drop(owed);
        self.room(bytes)
    }

    /// Bytes in memory; more than the budget while answers take more room than there is.
    #[must_use]
    pub fn used(&self) -> usize {
        let owed = *self.shared.owed();
        let free = self.shared.free.available_permits();
        self.shared.total.saturating_sub(free).saturating_add(owed)
    }

    fn permits(&self, bytes: usize) -> Result<u32, NoRoom> {
        if bytes > self.shared.total {
            return Err(NoRoom::Never);
        }
        u32::try_from(bytes).map_err(|_| NoRoom::Never)
    }

    fn room(&self, bytes: usize) -> Room {
        Room {
            budget: self.clone(),
            bytes,
        }
    }
}

impl Shared {
    /// Nothing that can panic runs under this lock.
    fn owed(&self) -> std::sync::MutexGuard<'_, usize> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room that a body has; dropped along with the body.
#[derive(Debug)]
pub struct Room {
    budget: Budget,
    bytes: usize,
}

impl Room {
    /// More room at once, for a body whose length nobody announced: it has some already, so it must not wait.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let more = self.budget.permits(bytes.saturating_sub(self.bytes))?;
        let taken = self.budget.shared.free.try_acquire_many(more);
        taken.map_err(|_| NoRoom::Now)?.forget();
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }

    /// The budget that it is from.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let shared = &self.budget.shared;
        let mut owed = shared.owed();
        let paid = self.bytes.min(*owed);
        *owed = owed.saturating_sub(paid);
        shared.free.add_permits(self.bytes.saturating_sub(paid));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_does_not_fit_waits_until_there_is_room() {
        let budget = Budget::new(100);
        let first = budget.take(60).await.unwrap();
        let mut second = Box::pin(budget.take(50));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(budget.used(), 50);
        drop(second);
        assert_eq!(budget.used(), 0);
        assert_eq!(budget.take(101).await.unwrap_err(), NoRoom::Never);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_leaves_nothing_taken() {
        let budget = Budget::new(100);
        let first = budget.take(60).await.unwrap();
        let mut second = Box::pin(budget.take(50));
        assert!(second.as_mut().now_or_never().is_none());
        drop(second);
        drop(first);
        assert_eq!(budget.used(), 0);
        budget.take(100).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_takes_room_that_is_not_there_and_bodies_wait_until_it_is_made_good() {
        let budget = Budget::new(100);
        let body = budget.take(80).await.unwrap();
        let answer = budget.take_over(50);
        assert_eq!(budget.used(), 130);
        drop(body);
        assert_eq!(budget.used(), 50);
        assert!(budget.take(51).now_or_never().is_none());
        assert!(budget.take(50).now_or_never().is_some());
        drop(answer);
        assert_eq!(budget.used(), 0);
        assert!(budget.take(100).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_body_that_grows_does_not_wait() {
        let budget = Budget::new(100);
        let mut growing = budget.none();
        growing.grow(60).unwrap();
        let _other = budget.take(30).await.unwrap();
        assert_eq!(growing.grow(71), Err(NoRoom::Now));
        growing.grow(70).unwrap();
        assert_eq!(budget.used(), 100);
        drop(growing);
        assert_eq!(budget.used(), 30);
    }
}
