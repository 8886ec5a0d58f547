//! Decrypted models, one copy each, within a memory budget.
//!
//! Memory is reserved before it is taken: for a package's head before it is fetched, for a form from what its manifest says that it
//! needs, for the buffers of runs. It is corrected once the model is loaded. A load that fails gives its reservation back and
//! leaves nothing. Two loads at once are all that memory bandwidth is good for; the others wait.

mod ahead;
mod arena;
pub mod budget;
pub mod fetch;
mod needs;
pub mod shelf;
mod source;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use sesemi_protocol::package::{Form, FormPlace, Manifest, PackageError};
use sesemi_protocol::release::Lease;
use sesemi_protocol::{ModelRef, Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use ahead::Prefetch;

use crate::engine::{Engine, Execution, LoadedModel};
use crate::single_flight::SingleFlight;
use crate::slots::Watchdog;
use crate::sync::lock;
use ahead::Ahead;
use budget::{Budget, Reservation};
use fetch::{Begun, Decrypted, FetchError, Found, Wanted};
use needs::HEAD_MEMORY;
use shelf::{Held, Shelf, Spare};
use source::Source;

/// Longest that fetching, decrypting and loading a model may take: a store that stalls must not hold it for ever.
const LOAD: Duration = Duration::from_secs(300);
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
    fn spare(&self) -> u64 {
        let idle = lock(&self.idle);
        idle.iter().map(|buffers| buffers.reserved.bytes()).sum()
    }

    fn drop_spare(&self) {
        let idle = core::mem::take(&mut *lock(&self.idle));
        drop(idle);
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
        let reserved = shelf.reserve(self.run)?;
        let execution = self
            .loaded
            .execution()
            .map_err(|e| Refusal::new(RefusalCode::EngineFailed, e))?;
        Ok(Buffers {
            execution,
            reserved,
        })
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
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf<Model>>,
    ahead: Arc<Ahead>,
    loads: Arc<Semaphore>,
    flights: SingleFlight<ModelRef, Loaded, Refusal>,
    watchdog: Arc<Watchdog>,
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
        Self {
            store,
            engine,
            shelf: Arc::new(Shelf::new(Budget::new(budget))),
            ahead: Ahead::new(),
            loads: Arc::new(Semaphore::new(AT_ONCE)),
            flights: SingleFlight::default(),
            watchdog,
        }
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

    /// Drops all executions that no run uses, of all models: what was computed for one user is then nowhere when the next
    /// one comes.
    pub fn drop_executions(&self) {
        self.shelf.drop_spare();
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
        self.ahead.begin(model, &self.store, self.shelf.budget())
    }

    /// Fetches, decrypts and loads the model version that a lease is for.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub async fn fetch(&self, lease: &Lease) -> Result<Arc<Held<Model>>, Refusal> {
        Ok(self.load(lease).await?.0)
    }

    /// Fetches, decrypts and loads the model version that a lease is for, and says what took how long.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if it cannot be fetched, opened or loaded; [`RefusalCode::Busy`] if there is no
    /// room while other models are in use.
    pub async fn load(&self, lease: &Lease) -> Result<Loaded, Refusal> {
        let started = Instant::now();
        let load = Load {
            store: self.store.clone(),
            engine: self.engine.clone(),
            shelf: self.shelf.clone(),
            ahead: self.ahead.clone(),
            wanted: Wanted::of(lease),
            watchdog: self.watchdog.clone(),
        };
        let loads = self.loads.clone();
        let load = async move {
            let load = async {
                let turn = loads.acquire_owned().await;
                let _turn = turn.map_err(|_| RefusalCode::Internal)?;
                load.run(started).await
            };
            tokio::time::timeout(LOAD, load)
                .await
                .unwrap_or_else(|_| Err(RefusalCode::ModelUnavailable.into()))
        };
        let (model, times) = self.flights.join(lease.model.clone(), || load).await?;
        Ok((model, times.within(started.elapsed())))
    }
}

/// One load under way.
struct Load {
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf<Model>>,
    ahead: Arc<Ahead>,
    wanted: Wanted,
    watchdog: Arc<Watchdog>,
}

impl Load {
    async fn run(self, started: Instant) -> Result<Loaded, Refusal> {
        let mut found = self.find().await?;
        let (form, place) = self.choose(&found)?;
        let kept = found.keep_of(&place);
        let needed = needs::of(found.package().manifest(), &form, &place);
        self.check_run(&form, needed)?;
        let more = needed.saturating_sub(kept);
        let more = more.saturating_add(found.in_transit());
        let reserved = self.reserve(more).await?;
        let manifest = Arc::new(found.package().manifest().clone());
        let (decrypted, last) = found
            .form(place, reserved)
            .await
            .map_err(|e| self.failed(&e))?;
        let opened = Instant::now();
        let model = self.load(manifest, form, decrypted, needed).await?;
        let (model, reserved) = model;
        let times = LoadTimes {
            fetch: last.saturating_duration_since(started),
            decrypt: opened.saturating_duration_since(last.max(started)),
            load: opened.elapsed(),
        };
        let cost = started.elapsed();
        let name = self.wanted.model;
        let held = self.shelf.place(name, model, reserved, cost);
        Ok((held, times))
    }

    /// The package, as far as it came before there was a key, or its head.
    async fn find(&self) -> Result<Found, Refusal> {
        let begun = match self.ahead.take(&self.wanted.model).await {
            Some(begun) => Ok(begun),
            None => {
                let reserved = self.reserve(HEAD_MEMORY).await?;
                match Source::open(self.store.clone(), &self.wanted.model).await {
                    Ok(opened) => Begun::new(opened, reserved),
                    Err(error) => Err(error),
                }
            }
        };
        let found = match begun {
            Ok(begun) => begun.open(&self.wanted).await,
            Err(error) => Err(error),
        };
        found.map_err(|e| self.failed(&e))
    }

    /// Takes memory: what is free, what was taken for requests that nobody knows yet, what models leave that are not in use.
    async fn reserve(&self, bytes: u64) -> Result<Reservation, Refusal> {
        if let Some(reserved) = self.shelf.budget().try_take(bytes) {
            return Ok(reserved);
        }
        let _ = self.ahead.end_all().await;
        let shelf = self.shelf.clone();
        let reserving = spawn_blocking(move || shelf.reserve(bytes));
        reserving.await.map_err(|_| RefusalCode::Internal)?
    }

    /// The first form that the engine takes.
    fn choose(&self, found: &Found) -> Result<(Form, FormPlace), Refusal> {
        let mut forms = found.package().manifest().forms.iter().enumerate();
        forms
            .find(|(_, form)| self.engine.takes(form))
            .and_then(|(index, form)| Some((form.clone(), found.package().place(index)?)))
            .ok_or_else(|| {
                tracing::warn!(model = %self.wanted.model, engine = self.engine.name(), "no form of it runs here");
                Refusal::new(
                    RefusalCode::ModelUnavailable,
                    "its package has no form that this engine and this processor run",
                )
            })
    }

    /// A model that could be loaded but never run is refused at once.
    fn check_run(&self, form: &Form, loaded: u64) -> Result<(), Refusal> {
        if loaded.saturating_add(needs::of_run(form)) <= self.shelf.budget().limit() {
            return Ok(());
        }
        Err(Refusal::new(
            RefusalCode::ModelUnavailable,
            "the model and one run of it are larger than this instance's memory budget",
        ))
    }

    /// Parsing and laying out a model takes as long as it takes: not on the network's threads.
    async fn load(
        &self,
        manifest: Arc<Manifest>,
        form: Form,
        decrypted: Decrypted,
        needed: u64,
    ) -> Result<(Model, Reservation), Refusal> {
        let engine = self.engine.clone();
        let shelf = Arc::downgrade(&self.shelf);
        let watchdog = self.watchdog.clone();
        let loading = spawn_blocking(move || {
            let _watched = watchdog.begin("load");
            let (parts, reserved) = decrypted.into_parts();
            let loaded = engine
                .load(&manifest, &form, parts)
                .map_err(|_| unavailable())?;
            let mut reserved = reserved.ok_or(RefusalCode::Internal)?;
            let own = needs::overhead(&manifest);
            let measured = loaded.memory().map(|bytes| bytes.saturating_add(own));
            reserved.correct(measured.unwrap_or(needed));
            let model = Model {
                manifest,
                loaded,
                run: needs::of_run(&form),
                shelf,
                idle: Mutex::default(),
                run_us: AtomicU64::new(0),
            };
            // The reservation came along: if nobody waits any more, it ends with this work and not before.
            Ok::<_, Refusal>((model, reserved))
        });
        let loaded = loading
            .await
            .map_err(|_| Refusal::from(RefusalCode::Internal))?;
        loaded.inspect_err(
            |refusal| tracing::warn!(model = %self.wanted.model, %refusal, "model not loaded"),
        )
    }

    /// What a package's trouble is, for the operator: nothing of its content is in it.
    fn failed(&self, error: &FetchError) -> Refusal {
        let model = &self.wanted.model;
        match error {
            FetchError::Package(PackageError::Content(_) | PackageError::Manifest(_)) => {
                tracing::warn!(%model, "model not fetched: its decrypted content is malformed");
            }
            error => tracing::warn!(%model, %error, "model not fetched"),
        }
        match error {
            FetchError::Store(_) | FetchError::File(_) => RefusalCode::ModelUnavailable.into(),
            _ => unavailable(),
        }
    }
}

/// The detail of a decrypted model's trouble (names of its tensors, say) is not for the host, who reads refusals that
/// travel in the clear and every log line.
fn unavailable() -> Refusal {
    Refusal::new(
        RefusalCode::ModelUnavailable,
        "it is not what its owner registered, or this engine cannot load it",
    )
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
