//! Locks, threads and tasks of what many requests share, in one place: a model checker puts its own in their place, and tries
//! in which order things may happen (`crates/interleavings`).

use std::sync::PoisonError;

pub(crate) use std::sync::{Mutex, MutexGuard, mpsc};
pub(crate) use std::thread;
pub(crate) use tokio::spawn;

/// Takes a lock under which no code runs that can panic: whatever it guards is whole, also after a panic elsewhere.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
