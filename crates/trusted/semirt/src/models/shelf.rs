//! Loaded models and the memory that they share.
//!
//! Room is made by dropping the model that is worth least: GreedyDual-Size with frequency (GDSF; L. Cherkasova, "Improving WWW
//! Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy", HPL-98-69, 1998). A model's worth is
//! `age + uses * time to load / size`, where `age` is the worth of what was dropped last: a model that was used much but not
//! for long ages, one that is quick to load again goes before one that is not, a large one before a small one. A model in use is
//! never dropped. What a model has to spare, which are buffers of runs that are over, goes before any model does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sesemi_process::{Wiped, wipe};
use sesemi_protocol::{ModelRef, Refusal, RefusalCode};

use super::budget::{Budget, Reservation};
use crate::sync::lock;

/// Most values at a time: each takes memory of our own, and all are looked at to find the one that is worth least.
const MOST: usize = 512;
/// Uses that count, so that a model of yesterday does not stay for ever.
const MOST_USES: f64 = 64.0;

/// What can be dropped without dropping the value.
pub trait Spare {
    /// What it is.
    type Left;

    /// Bytes of it.
    fn spare(&self) -> u64;

    /// Takes it out, to be dropped where that may take its time.
    fn take_spare(&self) -> Self::Left;

    /// Drops the value but for its largest piece of memory, if that can be used again as it is. It is not wiped.
    fn into_memory(self) -> Option<Wiped>
    where
        Self: Sized,
    {
        None
    }
}

/// Values by model, within a budget of bytes.
#[derive(Debug)]
pub struct Shelf<V> {
    budget: Arc<Budget>,
    /// Worth of what was dropped last, as the bits of an `f64`.
    age: Arc<AtomicU64>,
    evictions: AtomicU64,
    placed: Mutex<HashMap<ModelRef, Arc<Held<V>>>>,
    reserving: Mutex<()>,
}

/// A value, and the memory that is reserved for it for as long as anybody has it.
#[derive(Debug)]
pub struct Held<V> {
    value: V,
    reserved: Reservation,
    /// Seconds that it took to load.
    cost: f64,
    age: Arc<AtomicU64>,
    usage: Mutex<Usage>,
}

#[derive(Debug, Clone, Copy)]
struct Usage {
    uses: f64,
    /// `age` when it was last used, and what its uses are worth.
    worth: f64,
}

impl<V> core::ops::Deref for Held<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> Held<V> {
    /// Counts a use, one that came to a good end.
    pub fn count_use(&self) {
        let megabytes = self.reserved.bytes().max(1) as f64 / 1e6;
        let age = f64::from_bits(self.age.load(Ordering::Relaxed));
        let mut usage = lock(&self.usage);
        usage.uses = (usage.uses + 1.0).min(MOST_USES);
        usage.worth = age + usage.uses * self.cost / megabytes;
    }

    fn worth(&self) -> f64 {
        lock(&self.usage).worth
    }
}

impl<V: Spare> Held<V> {
    /// Drops it, but for memory of at least `length` bytes.
    fn leave(self, length: usize) -> Option<(Wiped, Reservation)> {
        let mut memory = self.value.into_memory()?;
        if memory.capacity() < length {
            return None;
        }
        // What is cut off goes back to the kernel or the allocator, which do not wipe it before somebody else has it.
        let rest = memory.get_mut(length..).unwrap_or_default();
        wipe(rest);
        memory.truncate(length);
        memory.shrink_to(length);
        Some((memory, self.reserved))
    }
}

impl<V: Spare> Shelf<V> {
    /// An empty shelf.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self {
            budget,
            age: Arc::default(),
            evictions: AtomicU64::new(0),
            placed: Mutex::default(),
            reserving: Mutex::default(),
        }
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many values were dropped to make room.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// The value, if it is here.
    #[must_use]
    pub fn take(&self, model: &ModelRef) -> Option<Arc<Held<V>>> {
        self.lock().get(model).cloned()
    }

    /// Drops what all values have to spare.
    pub fn drop_spare(&self) {
        // Nobody else has any of them in the meantime, by whom a model would seem to be in use.
        let all: Vec<V::Left> = self.lock().values().map(|held| held.take_spare()).collect();
        drop(all);
    }

    /// Takes `bytes` of the budget, dropping what is spare and then values that are not in use. That may give much memory
    /// back, which takes its time: not on a thread of the network.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if there will never be so much, [`RefusalCode::Busy`] if there is not while other
    /// models are in use; nothing is dropped then.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Refusal> {
        Ok(self.reserve_with_memory(bytes, usize::MAX)?.1)
    }

    /// Like [`Shelf::reserve`]. If a value that was dropped left memory of at least `length` bytes, that comes along, cut to this
    /// length: who fills it again need not wait until the kernel has taken it back and given other memory, page by page.
    ///
    /// # Errors
    /// As [`Shelf::reserve`].
    pub fn reserve_with_memory(
        &self,
        bytes: u64,
        length: usize,
    ) -> Result<(Option<Wiped>, Reservation), Refusal> {
        if bytes > self.budget.limit() {
            return Err(Refusal::new(
                RefusalCode::ModelUnavailable,
                "the model is larger than this instance's memory budget",
            ));
        }
        // One at a time: what one has taken off the shelf and not yet dropped would be missing to the other.
        let _one = lock(&self.reserving);
        // Memory that is kept stays counted, by the reservation that it had.
        let mut kept: Option<(Wiped, Reservation)> = None;
        loop {
            let counted = kept.as_ref().map_or(0, |(_, reserved)| reserved.bytes());
            if let Some(mut reserved) = self.budget.try_take(bytes.saturating_sub(counted)) {
                let memory = kept.map(|(memory, of_memory)| {
                    reserved.join(of_memory);
                    reserved.correct(bytes);
                    memory
                });
                return Ok((memory, reserved));
            }
            match self.make_room(bytes, counted).ok_or(RefusalCode::Busy)? {
                Room::Spare(left) => drop(left),
                // Outside the lock: dropping gives the reservation back, and memory takes its time.
                Room::Evicted(held) if kept.is_some() => drop(held),
                Room::Evicted(held) => kept = Arc::into_inner(held).and_then(|it| it.leave(length)),
            }
        }
    }

    /// Puts a value here that took `cost` to load. One of the same name is replaced.
    pub fn place(
        &self,
        model: ModelRef,
        value: V,
        reserved: Reservation,
        cost: Duration,
    ) -> Arc<Held<V>> {
        let held = Arc::new(Held {
            value,
            reserved,
            cost: cost.as_secs_f64(),
            age: self.age.clone(),
            usage: Mutex::new(Usage {
                uses: 0.0,
                worth: 0.0,
            }),
        });
        // It is about to be used; and what is placed must be worth something to begin with.
        held.count_use();
        let mut placed = self.lock();
        let replaced = placed.insert(model, held.clone());
        let crowded = (placed.len() > MOST).then(|| self.evict(&mut placed));
        drop(placed);
        drop((replaced, crowded));
        held
    }

    /// What can be dropped next; none if a load of `bytes`, of which `counted` are taken already, would not fit even without all
    /// that can.
    fn make_room(&self, bytes: u64, counted: u64) -> Option<Room<V>> {
        let mut placed = self.lock();
        let spare = |held: &Arc<Held<V>>| held.spare();
        let droppable = placed.values().fold(0u64, |sum, held| {
            let whole = if is_idle(held) {
                held.reserved.bytes()
            } else {
                0
            };
            sum.saturating_add(whole).saturating_add(spare(held))
        });
        let least = self.budget.used().saturating_sub(droppable);
        let least = least.saturating_sub(counted);
        if least.saturating_add(bytes) > self.budget.limit() {
            return None;
        }
        let with_spare = placed.values().filter(|held| spare(held) > 0);
        let first = with_spare.min_by(|a, b| a.worth().total_cmp(&b.worth()));
        match first {
            Some(held) => Some(Room::Spare(held.take_spare())),
            None => self.evict(&mut placed).map(Room::Evicted),
        }
    }

    /// Takes out the idle value that is worth least.
    fn evict(&self, placed: &mut HashMap<ModelRef, Arc<Held<V>>>) -> Option<Arc<Held<V>>> {
        let idle = placed.iter().filter(|(_, held)| is_idle(held));
        let least = idle.min_by(|(_, a), (_, b)| a.worth().total_cmp(&b.worth()));
        let name = least.map(|(name, _)| name.clone())?;
        let held = placed.remove(&name)?;
        let age = f64::from_bits(self.age.load(Ordering::Relaxed));
        let age = age.max(held.worth());
        self.age.store(age.to_bits(), Ordering::Relaxed);
        self.evictions.fetch_add(1, Ordering::Relaxed);
        Some(held)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelRef, Arc<Held<V>>>> {
        lock(&self.placed)
    }
}

/// What makes room.
enum Room<V: Spare> {
    Spare(V::Left),
    Evicted(Arc<Held<V>>),
}

/// Whether only the shelf has it; asked under the shelf's lock, where alone it could be taken.
fn is_idle<V>(held: &Arc<Held<V>>) -> bool {
    Arc::strong_count(held) == 1
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

    /// A value that has nothing, or so many bytes, to spare.
    struct Plain(Mutex<Option<Reservation>>);

    impl Spare for Plain {
        type Left = Option<Reservation>;

        fn spare(&self) -> u64 {
            lock(&self.0).as_ref().map_or(0, Reservation::bytes)
        }

        fn take_spare(&self) -> Option<Reservation> {
            lock(&self.0).take()
        }
    }

    fn shelf(budget: u64) -> Shelf<Plain> {
        Shelf::new(Budget::new(budget))
    }

    fn load(shelf: &Shelf<Plain>, version: u32, bytes: u64, cost: u64) -> Result<(), Refusal> {
        let reserved = shelf.reserve(bytes)?;
        let cost = Duration::from_millis(cost);
        shelf.place(model(version), Plain(Mutex::new(None)), reserved, cost);
        Ok(())
    }

    fn here(shelf: &Shelf<Plain>, versions: core::ops::RangeInclusive<u32>) -> Vec<u32> {
        let placed = shelf.lock();
        let here = versions.filter(|version| placed.contains_key(&model(*version)));
        here.collect()
    }

    #[test]
    fn what_is_quick_to_load_again_goes_first() {
        let shelf = shelf(300);
        load(&shelf, 1, 100, 50).unwrap();
        load(&shelf, 2, 100, 5).unwrap();
        load(&shelf, 3, 100, 500).unwrap();
        load(&shelf, 4, 100, 50).unwrap();
        assert_eq!(here(&shelf, 1..=4), [1, 3, 4]);
        assert_eq!(shelf.budget().used(), 300);
    }

    #[test]
    fn what_is_used_more_stays_longer_but_not_for_ever() {
        let shelf = shelf(200);
        load(&shelf, 1, 100, 10).unwrap();
        load(&shelf, 2, 100, 10).unwrap();
        for _ in 0..5 {
            shelf.take(&model(1)).unwrap().count_use();
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
        let shelf = shelf(300);
        load(&shelf, 1, 200, 10).unwrap();
        load(&shelf, 2, 100, 10).unwrap();
        load(&shelf, 3, 50, 10).unwrap();
        assert_eq!(here(&shelf, 1..=3), [2, 3]);
    }

    /// A value with nothing but memory.
    struct Memory(Vec<u8>);

    impl Spare for Memory {
        type Left = ();

        fn spare(&self) -> u64 {
            0
        }

        fn take_spare(&self) {}

        fn into_memory(self) -> Option<Wiped> {
            Some(Wiped(self.0))
        }
    }

    fn shelf_of_two(first: usize, second: usize) -> Shelf<Memory> {
        let shelf = Shelf::new(Budget::new((first + second) as u64));
        for (version, length) in [(1, first), (2, second)] {
            let reserved = shelf.reserve(length as u64).unwrap();
            let value = Memory(vec![version as u8; length]);
            shelf.place(model(version), value, reserved, Duration::from_millis(10));
        }
        shelf
    }

    #[test]
    fn memory_that_a_model_leaves_comes_along_if_it_is_long_enough_and_stays_counted() {
        let shelf = shelf_of_two(1000, 1000);
        let (memory, reserved) = shelf.reserve_with_memory(900, 800).unwrap();
        let memory = memory.unwrap();
        assert_eq!((memory.len(), memory.capacity()), (800, 800));
        assert_eq!((reserved.bytes(), shelf.budget().used()), (900, 1900));
        drop(reserved);
        // More than one must go: the first long enough is kept, and all of the memory is within what was asked for.
        let shelf = shelf_of_two(1000, 1000);
        let (memory, reserved) = shelf.reserve_with_memory(1500, 1000).unwrap();
        assert_eq!(memory.unwrap().len(), 1000);
        assert_eq!((reserved.bytes(), shelf.budget().used()), (1500, 1500));
        assert_eq!((shelf.count(), shelf.evictions()), (0, 2));
    }

    #[test]
    fn memory_that_is_too_short_is_given_back() {
        let shelf = shelf_of_two(1000, 1000);
        let (memory, reserved) = shelf.reserve_with_memory(1000, 1001).unwrap();
        assert!(memory.is_none());
        assert_eq!((reserved.bytes(), shelf.budget().used()), (1000, 2000));
        assert_eq!(shelf.evictions(), 1);
    }

    #[test]
    fn what_is_in_use_is_never_dropped_and_nothing_is_dropped_for_nothing() {
        let shelf = shelf(300);
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
    fn what_is_spare_goes_before_any_model_and_also_that_of_one_in_use() {
        let shelf = shelf(300);
        load(&shelf, 1, 100, 10).unwrap();
        load(&shelf, 2, 100, 500).unwrap();
        let used = shelf.take(&model(2)).unwrap();
        *lock(&used.0) = Some(shelf.reserve(100).unwrap());
        load(&shelf, 3, 100, 10).unwrap();
        assert_eq!(here(&shelf, 1..=3), [1, 2, 3]);
        assert_eq!((used.spare(), shelf.evictions()), (0, 0));
        load(&shelf, 4, 100, 10).unwrap();
        assert_eq!((shelf.count(), shelf.evictions()), (3, 1));
    }

    #[test]
    fn uses_without_end_do_not_keep_a_model_for_ever() {
        let shelf = shelf(200);
        load(&shelf, 1, 100, 10).unwrap();
        let used = shelf.take(&model(1)).unwrap();
        (0..1_000_000).for_each(|_| used.count_use());
        drop(used);
        for version in 2..100 {
            load(&shelf, version, 100, 10).unwrap();
        }
        assert!(shelf.take(&model(1)).is_none());
    }

    #[test]
    fn there_are_never_more_values_than_are_looked_at() {
        let shelf = shelf(u64::MAX);
        for version in 1..=600 {
            load(&shelf, version, 1, 10).unwrap();
        }
        assert_eq!(shelf.count(), MOST);
    }

    #[test]
    fn nobody_is_refused_for_what_another_is_about_to_give_back() {
        let shelf = shelf(300);
        std::thread::scope(|scope| {
            for first in [1, 1001] {
                let shelf = &shelf;
                scope.spawn(move || {
                    for version in first..first + 1000 {
                        load(shelf, version, 100, 10).unwrap();
                    }
                });
            }
            for _ in 0..1000 {
                shelf.drop_spare();
            }
        });
        assert!(shelf.budget().used() <= 300);
    }

    #[test]
    fn more_than_the_budget_is_never_there() {
        let refused = shelf(300).reserve(301).unwrap_err();
        assert_eq!(refused.code, RefusalCode::ModelUnavailable);
    }
}
