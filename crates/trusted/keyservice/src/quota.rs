//! How much each caller may hold at once: a count for each key, given back when what is held is dropped.
//!
//! Only keys that hold something are in the table, so it is never longer than all that is held together, which whoever uses
//! it bounds. Beside the count each key can have something that all it holds share, made with the first and gone with the last.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts by key. Taking and giving back never waits.
pub struct Quota<K: Ord + Clone, S = ()> {
    most: usize,
    table: Arc<Mutex<Table<K, S>>>,
}

/// By key: how many it holds, and what they share.
type Table<K, S> = BTreeMap<K, (usize, Arc<S>)>;

impl<K: Ord + Clone, S> Quota<K, S> {
    /// Lets each key hold up to `most` at once.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            table: Arc::default(),
        }
    }

    /// Takes one for `key`; `None` if it holds as many as it may. `shared` makes what all that it holds share, if it holds none
    /// yet.
    #[must_use]
    pub fn take(&self, key: &K, shared: impl FnOnce() -> S) -> Option<Held<K, S>> {
        let mut table = lock(&self.table);
        let held = table.get(key).map_or(0, |(count, _)| *count);
        if held >= self.most {
            return None;
        }
        let entry = table
            .entry(key.clone())
            .or_insert_with(|| (0, Arc::new(shared())));
        entry.0 = entry.0.saturating_add(1);
        Some(Held {
            key: key.clone(),
            shared: entry.1.clone(),
            table: self.table.clone(),
        })
    }

    /// How many keys hold something.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.table).len()
    }

    /// Whether nobody holds anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord + Clone, S> fmt::Debug for Quota<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who holds what is nobody's business.
        f.debug_struct("Quota")
            .field("most", &self.most)
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}

/// One of what a key may hold; dropping it gives it back.
pub struct Held<K: Ord + Clone, S = ()> {
    key: K,
    shared: Arc<S>,
    table: Arc<Mutex<Table<K, S>>>,
}

impl<K: Ord + Clone, S> Held<K, S> {
    /// What all that this key holds share.
    #[must_use]
    pub fn shared(&self) -> &Arc<S> {
        &self.shared
    }
}

impl<K: Ord + Clone, S> Drop for Held<K, S> {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if let Some((count, _)) = table.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.remove(&self.key);
            }
        }
    }
}

impl<K: Ord + Clone, S> fmt::Debug for Held<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held(..)")
    }
}

/// The table is whole after every line, so a panic elsewhere leaves nothing half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_key_holds_as_many_as_it_may_and_takes_nothing_from_others() {
        let quota: Quota<u8> = Quota::new(3);
        let held: Vec<_> = (0..3).map(|_| quota.take(&1, || ()).unwrap()).collect();
        assert!(quota.take(&1, || ()).is_none());
        let other = quota.take(&2, || ());
        assert!(other.is_some());
        drop(held);
        assert!(quota.take(&1, || ()).is_some());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_whoever_holds_nothing_is_forgotten() {
        let quota: Quota<u8> = Quota::new(1);
        for key in 0..100 {
            let held = quota.take(&key, || ());
            assert!(held.is_some());
            assert!(quota.take(&key, || ()).is_none());
            assert_eq!(quota.len(), 1);
        }
        assert!(quota.is_empty());
    }

    #[test]
    fn what_a_key_holds_shares_one_thing_until_the_last_is_given_back() {
        let quota: Quota<u8, AtomicU32> = Quota::new(3);
        let first = quota.take(&1, || AtomicU32::new(0)).unwrap();
        first.shared().store(5, Ordering::SeqCst);
        let second = quota.take(&1, || AtomicU32::new(0)).unwrap();
        drop(first);
        assert_eq!(second.shared().load(Ordering::SeqCst), 5);
        drop(second);
        let anew = quota.take(&1, || AtomicU32::new(0)).unwrap();
        assert_eq!(anew.shared().load(Ordering::SeqCst), 0);
    }

    #[test]
    fn many_threads_together_never_hold_more_than_one_key_may() {
        let quota: Quota<u8> = Quota::new(4);
        let held = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(one) = quota.take(&1, || ()) {
                            assert!(held.fetch_add(1, Ordering::SeqCst) < 4);
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(one);
                        }
                    }
                });
            }
        });
        assert!(quota.is_empty());
    }

    #[test]
    fn what_is_printed_names_no_key() {
        let quota: Quota<u32> = Quota::new(4);
        let held = quota.take(&123_456, || ());
        let printed = format!("{quota:?} {held:?}");
        assert!(printed.contains("keys: 1") && !printed.contains("123456"));
    }
}
