//! Decrypted models, one copy each, within a memory budget.
//!
//! Memory is reserved before it is taken: for a package's head before it is fetched, for a form from what its manifest says that it
//! needs, for the buffers of runs. It is corrected once the model is loaded. A load that fails gives its reservation back and
//! leaves nothing. Two loads at once are all that memory bandwidth is good for; the others wait.

mod ahead;
mod arena;
pub mod budget;
pub mod cache;
pub mod fetch;
mod load;
mod needs;
mod pieces;
pub mod shelf;
mod source;
mod tidy;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use sesemi_process::{Wiped, give_back_what_is_free};
use sesemi_protocol::package::Manifest;
use sesemi_protocol::release::Lease;
use sesemi_protocol::{ModelRef, Refusal, RefusalCode};
use tokio::sync::Semaphore;

pub use ahead::Prefetch;

use crate::engine::{Engine, Execution, LoadedModel};
use crate::single_flight::{Keep, SingleFlight};
use crate::slots::Watchdog;
use crate::sync::lock;
use ahead::Ahead;
use budget::{Budget, Reservation};
use cache::Cache;
use fetch::{Origin, Wanted};
use load::{LONGEST, Load};
use shelf::{Held, Shelf, Spare};
use tidy::Tidying;

/// Loads at once.
const AT_ONCE: usize = 2;

/// How long a run is taken to be before there was one: it only decides who of two users comes first.
const FIRST_RUN: Duration = Duration::from_millis(10);

/// A model that is ready to run.
pub struct Model {
    /// What its owner says about it.
    pub manifest: Arc<Manifest>,
    loaded: Box<dyn LoadedModel>,
    /// Bytes of the buffers that a run needs.
    run: u64,
    /// About how long a run takes, in microseconds; 0 before the first.
    run_us: AtomicU64,
    /// Whether its outputs turned out to have no row for each of several requests.
    mixes: AtomicBool,
    shelf: Weak<Shelf<Model>>,
    /// Buffers that no run uses just now; at most one for each slot.
    idle: Mutex<Vec<Buffers>>,
}

/// What one run at a time needs, and the memory that is reserved for it.
pub struct Buffers {
    execution: Box<dyn Execution>,
    reserved: Reservation,
}

impl core::ops::Deref for Buffers {
    type Target = Box<dyn Execution>;

    fn deref(&self) -> &Self::Target {
        &self.execution
    }
}

impl core::ops::DerefMut for Buffers {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.execution
    }
}

impl core::fmt::Debug for Model {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}

impl Spare for Model {
    type Left = Vec<Buffers>;

    fn spare(&self) -> u64 {
        let idle = lock(&self.idle);
        idle.iter().map(|buffers| buffers.reserved.bytes()).sum()
    }

    fn take_spare(&self) -> Vec<Buffers> {
        core::mem::take(&mut *lock(&self.idle))
    }

    fn into_memory(self) -> Option<Wiped> {
        // They run the model.
        drop(self.idle);
        self.loaded.into_memory()
    }
}

impl Model {
    /// An execution that was used before, if one is idle.
    #[must_use]
    pub fn idle_execution(&self) -> Option<Buffers> {
        lock(&self.idle).pop()
    }

    /// A new execution. Models that are not in use may be dropped for it, which takes its time: not on a thread of the network.
    ///
    /// # Errors
    /// [`RefusalCode::Busy`] if there is no memory for it while others are in use, [`RefusalCode::EngineFailed`].
    pub fn new_execution(&self) -> Result<Buffers, Refusal> {
        let shelf = self.shelf.upgrade().ok_or(RefusalCode::Internal)?;
        self.execution_within(shelf.reserve(self.run)?)
    }

    fn execution_within(&self, reserved: Reservation) -> Result<Buffers, Refusal> {
        let execution = self
            .loaded
            .execution()
            .map_err(|e| Refusal::new(RefusalCode::EngineFailed, e))?;
        Ok(Buffers {
            execution,
            reserved,
        })
    }

    /// Whether several requests may be rows of one run, as far as is known.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        self.manifest.batch.is_some() && !self.mixes.load(Ordering::Relaxed)
    }

    /// Notes that they may not be, whatever its owner says.
    pub fn has_no_rows(&self) {
        self.mixes.store(true, Ordering::Relaxed);
    }

    /// About how long a run takes: what runs took lately, and a guess before the first.
    #[must_use]
    pub fn expected(&self) -> Duration {
        match self.run_us.load(Ordering::Relaxed) {
            0 => FIRST_RUN,
            run_us => Duration::from_micros(run_us),
        }
    }

    /// Notes how long a run took.
    pub fn took(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let smoothed = match self.run_us.load(Ordering::Relaxed) {
            0 => took,
            // Of two runs that end at once one may be lost, which is of no consequence.
            before => before
                .saturating_mul(7)
                .saturating_add(took)
                .checked_div(8)
                .unwrap_or(took),
        };
        self.run_us.store(smoothed.max(1), Ordering::Relaxed);
    }
}

impl Held<Model> {
    /// Gives an execution back after a run that went well, which counts as a use of the model. There are never more than
    /// slots, because each run has one.
    pub fn give_back(&self, execution: Buffers) {
        self.count_use();
        lock(&self.idle).push(execution);
    }
}

/// What the wait for a model was for; the parts add up to all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadTimes {
    /// Until the last byte of ciphertext came.
    pub fetch: Duration,
    /// From then on until all of it was decrypted.
    pub decrypt: Duration,
    /// From then on until the engine had loaded it.
    pub load: Duration,
}

impl LoadTimes {
    /// The part of them that somebody met who waited for the last `waited`.
    #[must_use]
    pub fn within(self, waited: Duration) -> Self {
        let load = self.load.min(waited);
        let left = waited.saturating_sub(load);
        let decrypt = self.decrypt.min(left);
        Self {
            fetch: left.saturating_sub(decrypt),
            decrypt,
            load,
        }
    }
}

type Loaded = (Arc<Held<Model>>, LoadTimes);

/// The models that this enclave holds.
pub struct Models {
    origin: Origin,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf<Model>>,
    ahead: Arc<Ahead>,
    loads: Arc<Semaphore>,
    flights: SingleFlight<ModelRef, Loaded, Refusal>,
    watchdog: Arc<Watchdog>,
    tidying: Arc<Tidying>,
}

impl core::fmt::Debug for Models {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Models(..)")
    }
}

impl Models {
    /// No models yet; packages come from `store`, at most `budget` bytes of them are held, and `watchdog` sees an engine that
    /// hangs when it loads one.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        engine: Arc<dyn Engine>,
        budget: u64,
        watchdog: Arc<Watchdog>,
    ) -> Self {
        let origin = Origin {
            store,
            cache: None,
            past_cache: false,
            engine: engine.name(),
        };
        Self {
            origin,
            engine,
            shelf: Arc::new(Shelf::new(Budget::new(budget))),
            ahead: Ahead::new(),
            loads: Arc::new(Semaphore::new(AT_ONCE)),
            flights: SingleFlight::default(),
            watchdog,
            tidying: Tidying::new(give_back_what_is_free),
        }
    }

    /// Keeps ciphertext that comes from a remote store. What comes from a local one is where it would be kept.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<Cache>) -> Self {
        self.origin.cache = Some(cache);
        self
    }

    /// Whether the engine leaves nothing of a run behind once its buffers are dropped.
    #[must_use]
    pub fn wipes(&self) -> bool {
        self.engine.wipes()
    }

    /// The model, if it is held.
    #[must_use]
    pub fn held(&self, model: &ModelRef) -> Option<Arc<Held<Model>>> {
        self.shelf.take(model)
    }

    /// Bytes of the budget that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shelf.budget().used()
    }

    /// The budget, in bytes.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.shelf.budget().limit()
    }

    /// How many models are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shelf.count()
    }

    /// How many models were dropped to make room for others, since the start.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.shelf.evictions()
    }

    /// A new execution of a model. `keep` is dropped when it has really been made, whether anybody waits for it or not.
    ///
    /// # Errors
    /// As [`Model::new_execution`].
    pub async fn new_execution(
        &self,
        model: &Arc<Held<Model>>,
        keep: Keep,
    ) -> Result<Buffers, Refusal> {
        let free = self.shelf.budget().try_take(model.run);
        // What was taken for requests that nobody knows yet goes before models do.
        let _none_ahead = match &free {
            Some(_) => None,
            None => self.ahead.end_all().await,
        };
        let (model, tidying) = (model.clone(), self.tidying.clone());
        if free.is_none() {
            // Others go for it.
            tidying.soon();
        }
        let making = tokio::task::spawn_blocking(move || {
            let made = match free {
                Some(reserved) => model.execution_within(reserved),
                None => model.new_execution(),
            };
            drop(keep);
            made
        });
        making.await.map_err(|_| RefusalCode::Internal)?
    }

    /// So many bytes of the budget, if they are free.
    #[must_use]
    pub fn room(&self, bytes: u64) -> Option<Reservation> {
        self.shelf.budget().try_take(bytes)
    }

    /// Drops all executions that no run uses, of all models: what was computed for one user is then nowhere when the next
    /// one comes.
    pub fn drop_executions(&self) {
        self.shelf.drop_spare();
        if !self.engine.wipes() {
            // What the engine freed, it did not wipe: the kernel does, whole pages of it.
            give_back_what_is_free();
        }
    }

    /// A request is over: what it left goes back to the kernel, if no other comes soon.
    pub fn rests(&self) {
        self.tidying.when_quiet();
    }

    /// Begins to fetch the package of a model that is neither held nor on its way, while its key is asked for. That is for
    /// requests of which nobody knows yet whether they are genuine, so it takes memory only where it is free. The fetch goes on
    /// as long as what is returned, or ends in [`Models::load`], which takes over what came. None if there is nothing to
    /// do, or too many do it.
    #[must_use]
    pub fn prefetch(&self, model: &ModelRef) -> Option<Prefetch> {
        if self.flights.is_under_way(model) || self.shelf.take(model).is_some() {
            return None;
        }
        self.ahead.begin(model, &self.origin, self.shelf.budget())
    }

    /// Fetches, decrypts and loads the model version that a lease is for.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub async fn fetch(&self, lease: &Lease) -> Result<Arc<Held<Model>>, Refusal> {
        Ok(self.load(lease, Arc::new(())).await?.0)
    }

    /// Fetches, decrypts and loads the model version that a lease is for, and says what took how long. `keep` is dropped when
    /// the load has really ended, whether anybody waits for it or not.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if it cannot be fetched, opened or loaded; [`RefusalCode::Busy`] if there is no
    /// room while other models are in use.
    pub async fn load(&self, lease: &Lease, keep: Keep) -> Result<Loaded, Refusal> {
        let started = Instant::now();
        let mut load = Load {
            origin: self.origin.clone(),
            engine: self.engine.clone(),
            shelf: self.shelf.clone(),
            ahead: self.ahead.clone(),
            wanted: Wanted::of(lease),
            watchdog: self.watchdog.clone(),
            ends: tokio::time::Instant::now()
                .checked_add(LONGEST)
                .ok_or(RefusalCode::Internal)?,
            keep,
        };
        let (loads, tidying) = (self.loads.clone(), self.tidying.clone());
        let load = async move {
            let load = async {
                let turn = tokio::time::timeout_at(load.ends, loads.acquire_owned()).await;
                let turn = turn.map_err(|_| RefusalCode::ModelUnavailable)?;
                let turn = turn.map_err(|_| RefusalCode::Internal)?;
                // Until the engine is done, also if nobody waits for it any more.
                load.keep = Arc::new((load.keep, turn));
                load.run_or_again(started).await
            };
            let loaded: Result<Loaded, Refusal> = load.await;
            // What the ranges passed through, and what models left that had to go.
            tidying.soon();
            loaded
        };
        let (model, times) = self.flights.join(lease.model.clone(), || load).await?;
        Ok((model, times.within(started.elapsed())))
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
