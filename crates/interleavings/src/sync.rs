//! The model checker's locks, threads and tasks, under the names that SeMIRT has for the real ones.

pub(crate) use shuttle::future::spawn;
pub(crate) use shuttle::sync::{Mutex, MutexGuard, mpsc};
pub(crate) use shuttle::thread;

/// Takes a lock. What panics under the model checker ends the test.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
