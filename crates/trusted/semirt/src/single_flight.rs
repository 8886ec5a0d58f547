//! Single flight: however many callers want one thing at once, it is fetched once, and all get that result.
//!
//! A fetch runs as a task of its own, so a caller that leaves does not stop it for the others. A fetch that fails leaves no
//! entry: all who waited get the error, and the next caller starts afresh.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};

use crate::sync::{Mutex, lock, spawn};

/// What somebody who asked for something lends to it: dropped when that has really ended, whether anybody waits for it or not.
pub type Keep = Arc<dyn core::any::Any + Send + Sync>;

type Flight<V, E> = Shared<BoxFuture<'static, Result<V, E>>>;

/// Fetches under way, by key.
pub struct SingleFlight<K, V, E> {
    flights: Arc<Mutex<HashMap<K, Flight<V, E>>>>,
}

impl<K, V, E> core::fmt::Debug for SingleFlight<K, V, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SingleFlight(..)")
    }
}

impl<K, V, E> Default for SingleFlight<K, V, E> {
    fn default() -> Self {
        Self {
            flights: Arc::default(),
        }
    }
}

impl<K, V, E> SingleFlight<K, V, E>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + From<Ended> + 'static,
{
    /// Joins the fetch for `key`, or starts `fetch` if none is under way. `fetch` should itself put its result wherever
    /// later callers look first.
    ///
    /// # Errors
    /// Whatever the fetch fails with, or [`Ended`] if its task was stopped.
    pub async fn join<F>(&self, key: K, fetch: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let flight = {
            let mut flights = lock(&self.flights);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(key.clone(), fetch());
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Whether a fetch for `key` is under way.
    #[must_use]
    pub fn is_under_way(&self, key: &K) -> bool {
        lock(&self.flights).contains_key(key)
    }

    fn start<F>(&self, key: K, fetch: F) -> Flight<V, E>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let landing = Landing {
            key,
            flights: self.flights.clone(),
        };
        // By whoever polls it first, which is the caller that is about to, and not under the lock: a runtime that is shutting
        // down drops the task at once, and that takes the lock.
        let flight = async move {
            let task = spawn(async move {
                // Dropped however the fetch ends, also by a panic: the entry never outlives it.
                let _landing = landing;
                fetch.await
            });
            task.await.unwrap_or_else(|_| Err(Ended.into()))
        };
        flight.boxed().shared()
    }
}

/// The task of a fetch ended without a result: it panicked, or the runtime is shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fetch ended without a result")]
pub struct Ended;

/// Removes a flight's entry when it ends.
struct Landing<K: Hash + Eq, V, E> {
    key: K,
    flights: Arc<Mutex<HashMap<K, Flight<V, E>>>>,
}

impl<K: Hash + Eq, V, E> Drop for Landing<K, V, E> {
    fn drop(&mut self) {
        // What it brought is dropped outside the lock.
        let landed = lock(&self.flights).remove(&self.key);
        drop(landed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Failure(&'static str);

    impl From<Ended> for Failure {
        fn from(_: Ended) -> Self {
            Self("ended")
        }
    }

    type Flights = SingleFlight<u8, u32, Failure>;

    #[tokio::test]
    async fn a_hundred_callers_cause_one_fetch() {
        let (flights, fetches) = (Flights::default(), AtomicU32::new(0));
        let calls = (0..100).map(|_| {
            flights.join(1, || {
                let n = fetches.fetch_add(1, Ordering::SeqCst);
                async move {
                    tokio::task::yield_now().await;
                    Ok(n)
                }
            })
        });
        let results = futures::future::join_all(calls).await;
        assert!(results.iter().all(|result| *result == Ok(0)));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_failed_or_panicking_fetch_tells_all_who_wait_and_leaves_nothing() {
        let flights = Flights::default();
        let failing = (0..10).map(|_| flights.join(1, || async { Err(Failure("no")) }));
        let results = futures::future::join_all(failing).await;
        assert!(results.iter().all(|result| *result == Err(Failure("no"))));
        let ended = flights.join(1, || async { panic!("a defect") }).await;
        assert_eq!(ended, Err(Failure("ended")));
        assert!(lock(&flights.flights).is_empty());
        assert_eq!(flights.join(1, || async { Ok(7) }).await, Ok(7));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_does_not_stop_the_fetch_for_others() {
        let flights = Arc::new(Flights::default());
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let first = {
            let flights = flights.clone();
            spawn(async move {
                flights
                    .join(1, || async {
                        let _ = released.await;
                        Ok(1)
                    })
                    .await
            })
        };
        while lock(&flights.flights).is_empty() {
            tokio::task::yield_now().await;
        }
        let second = flights.join(1, || async { Ok(2) });
        first.abort();
        release.send(()).unwrap();
        assert_eq!(second.await, Ok(1));
    }
}
