//! Loaded models and the memory that they share.
//!
//! Room is made by dropping the model that is worth least: GreedyDual-Size with frequency (GDSF; L. Cherkasova, "Improving WWW
//! Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HPL-98-69, 1998). A model's worth is
//! `age + uses * time to load / size`, where `age` is the worth of what was dropped last: a model that was used much but not
//! for long ages, one that is quick to load again goes before one that is not, a large one before a small one. A model in use is
//! never dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sesemi_protocol::{ModelRef, Refusal, RefusalCode};

/// Values by model, within a budget of bytes.
#[derive(Debug)]
pub struct Shelf<V> {
    budget: u64,
    content: Mutex<Content<V>>,
}

#[derive(Debug)]
struct Content<V> {
    used: u64,
    /// Worth of what was dropped last.
    age: f64,
    placed: HashMap<ModelRef, Placed<V>>,
}

/// A value, and the memory that is reserved for it for as long as anybody has it.
#[derive(Debug)]
pub struct Held<V> {
    value: V,
    reserved: Reservation<V>,
}

impl<V> core::ops::Deref for Held<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

#[derive(Debug)]
struct Placed<V> {
    held: Arc<Held<V>>,
    /// Seconds that it took to load.
    cost: f64,
    uses: f64,
    /// `age` when it was last used, and what its uses are worth.
    worth: f64,
}

/// Bytes of the budget; given back on drop.
#[derive(Debug)]
pub struct Reservation<V> {
    shelf: Arc<Shelf<V>>,
    bytes: u64,
}

impl<V> Shelf<V> {
    /// An empty shelf.
    #[must_use]
    pub fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self {
            budget,
            content: Mutex::new(Content {
                used: 0,
                age: 0.0,
                placed: HashMap::new(),
            }),
        })
    }

    /// The budget, in bytes.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().placed.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value, if it is here; that counts as a use.
    #[must_use]
    pub fn take(&self, model: &ModelRef) -> Option<Arc<Held<V>>> {
        let mut content = self.lock();
        let age = content.age;
        let placed = content.placed.get_mut(model)?;
        placed.uses += 1.0;
        placed.revalue(age);
        Some(placed.held.clone())
    }

    /// All values.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held<V>>> {
        let content = self.lock();
        let all = content.placed.values();
        all.map(|placed| placed.held.clone()).collect()
    }

    /// Takes `bytes` of the budget, dropping values that are not in use.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if there will never be so much, [`RefusalCode::Busy`] if there is not while other
    /// models are in use; nothing is dropped then.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation<V>, Refusal> {
        if bytes > self.budget {
            return Err(Refusal::new(
                RefusalCode::ModelUnavailable,
                "the model is larger than this instance's memory budget",
            ));
        }
        loop {
            let dropped = {
                let mut content = self.lock();
                let needed = content.used.saturating_add(bytes);
                if needed <= self.budget {
                    content.used = needed;
                    let shelf = self.clone();
                    return Ok(Reservation { shelf, bytes });
                }
                content.drop_one(bytes, self.budget)
            };
            // Outside the lock: dropping gives the reservation back, and memory takes its time.
            drop(dropped.ok_or(RefusalCode::Busy)?);
        }
    }

    /// Puts a value here that took `cost` to load. One of the same name is replaced.
    pub fn place(
        &self,
        model: ModelRef,
        value: V,
        reserved: Reservation<V>,
        cost: Duration,
    ) -> Arc<Held<V>> {
        let held = Arc::new(Held { value, reserved });
        let mut content = self.lock();
        let mut placed = Placed {
            held: held.clone(),
            cost: cost.as_secs_f64(),
            uses: 1.0,
            worth: 0.0,
        };
        placed.revalue(content.age);
        let replaced = content.placed.insert(model, placed);
        drop(content);
        drop(replaced);
        held
    }

    /// No code that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Content<V>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Placed<V> {
    fn revalue(&mut self, age: f64) {
        let megabytes = self.held.reserved.bytes.max(1) as f64 / 1e6;
        self.worth = age + self.uses * self.cost / megabytes;
    }

    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.held) == 1
    }
}

impl<V> Content<V> {
    /// Takes out the idle value that is worth least; none if a load of `bytes` would not fit even without all idle ones.
    fn drop_one(&mut self, bytes: u64, budget: u64) -> Option<Placed<V>> {
        let idle = self.placed.values().filter(|placed| placed.is_idle());
        let idle: u64 = idle.fold(0, |sum, placed| {
            sum.saturating_add(placed.held.reserved.bytes)
        });
        if self.used.saturating_sub(idle).saturating_add(bytes) > budget {
            return None;
        }
        let least = self
            .placed
            .iter()
            .filter(|(_, placed)| placed.is_idle())
            .min_by(|(_, a), (_, b)| a.worth.total_cmp(&b.worth));
        let name = least.map(|(name, _)| name.clone())?;
        let dropped = self.placed.remove(&name)?;
        self.age = self.age.max(dropped.worth);
        Some(dropped)
    }
}

impl<V> Reservation<V> {
    /// Corrects it to what was really needed. More may be above the budget: what is in memory counts, and the next load makes
    /// room for it.
    pub fn correct(&mut self, bytes: u64) {
        let mut content = self.shelf.lock();
        content.used = content
            .used
            .saturating_sub(self.bytes)
            .saturating_add(bytes);
        drop(content);
        self.bytes = bytes;
    }
}

impl<V> Drop for Reservation<V> {
    fn drop(&mut self) {
        let mut content = self.shelf.lock();
        content.used = content.used.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use sesemi_protocol::{ModelName, ModelVersion, PrincipalId};

    use super::*;

    fn model(version: u32) -> ModelRef {
        ModelRef::new(
            PrincipalId([1; 32]),
            ModelName::new("m").unwrap(),
            ModelVersion::new(version).unwrap(),
        )
    }

    fn load(shelf: &Arc<Shelf<u32>>, version: u32, bytes: u64, cost: u64) -> Result<(), Refusal> {
        let reserved = shelf.reserve(bytes)?;
        let cost = Duration::from_millis(cost);
        shelf.place(model(version), version, reserved, cost);
        Ok(())
    }

    fn here(shelf: &Shelf<u32>, versions: core::ops::RangeInclusive<u32>) -> Vec<u32> {
        let content = shelf.lock();
        let here = versions.filter(|version| content.placed.contains_key(&model(*version)));
        here.collect()
    }

    #[test]
    fn what_is_quick_to_load_again_goes_first() {
        let shelf = Shelf::new(300);
        load(&shelf, 1, 100, 50).unwrap();
        load(&shelf, 2, 100, 5).unwrap();
        load(&shelf, 3, 100, 500).unwrap();
        load(&shelf, 4, 100, 50).unwrap();
        assert_eq!(here(&shelf, 1..=4), [1, 3, 4]);
        assert_eq!(shelf.used(), 300);
    }

    #[test]
    fn what_is_used_more_stays_longer_but_not_for_ever() {
        let shelf = Shelf::new(200);
        load(&shelf, 1, 100, 10).unwrap();
        load(&shelf, 2, 100, 10).unwrap();
        for _ in 0..5 {
            assert!(shelf.take(&model(1)).is_some());
        }
        for version in 3..=6 {
            load(&shelf, version, 100, 10).unwrap();
            assert_eq!(here(&shelf, 1..=9), [1, version]);
        }
        for version in 7..=30 {
            load(&shelf, version, 100, 10).unwrap();
        }
        assert!(shelf.take(&model(1)).is_none(), "it was not used for long");
    }

    #[test]
    fn of_two_that_cost_the_same_the_large_one_goes() {
        let shelf = Shelf::new(300);
        load(&shelf, 1, 200, 10).unwrap();
        load(&shelf, 2, 100, 10).unwrap();
        load(&shelf, 3, 50, 10).unwrap();
        assert_eq!(here(&shelf, 1..=3), [2, 3]);
    }

    #[test]
    fn what_is_in_use_is_never_dropped_and_nothing_is_dropped_for_nothing() {
        let shelf = Shelf::new(300);
        load(&shelf, 1, 200, 1).unwrap();
        load(&shelf, 2, 100, 1).unwrap();
        let used = shelf.take(&model(1)).unwrap();
        let refused = load(&shelf, 3, 200, 1).unwrap_err();
        assert_eq!(refused.code, RefusalCode::Busy);
        assert_eq!(here(&shelf, 1..=3), [1, 2]);
        load(&shelf, 3, 100, 1).unwrap();
        assert_eq!(here(&shelf, 1..=3), [1, 3]);
        drop(used);
        load(&shelf, 4, 200, 1).unwrap();
        assert_eq!(here(&shelf, 1..=4), [3, 4]);
    }

    #[test]
    fn a_reservation_that_is_given_up_leaves_nothing() {
        let shelf: Arc<Shelf<u32>> = Shelf::new(300);
        let mut reserved = shelf.reserve(100).unwrap();
        reserved.correct(250);
        assert_eq!(shelf.used(), 250);
        assert_eq!(shelf.reserve(100).unwrap_err().code, RefusalCode::Busy);
        drop(reserved);
        assert_eq!(shelf.used(), 0);
        let refused = shelf.reserve(301).unwrap_err();
        assert_eq!(refused.code, RefusalCode::ModelUnavailable);
    }
}
