//! Decrypted models, one copy each, within a memory budget.
//!
//! Memory is reserved before a form is fetched, for what its manifest says that it needs, and the reservation is corrected once
//! the model is loaded. A load that fails gives its reservation back and leaves nothing.

pub mod fetch;
pub mod shelf;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use object_store::ObjectStore;
use sesemi_protocol::package::{Form, FormPlace, Manifest};
use sesemi_protocol::release::Lease;
use sesemi_protocol::{ModelRef, Refusal, RefusalCode};

use crate::engine::{Engine, Execution, LoadedModel};
use crate::single_flight::SingleFlight;
use fetch::Wanted;
use shelf::{Held, Reservation, Shelf};

/// Longest that fetching, decrypting and loading a model may take: a store that stalls must not hold it for ever.
const LOAD: Duration = Duration::from_secs(300);

/// How long a run is taken to be before there was one: it only decides who of two users comes first.
const FIRST_RUN: Duration = Duration::from_millis(10);

/// A model that is ready to run.
pub struct Model {
    /// What its owner says about it.
    pub manifest: Manifest,
    loaded: Box<dyn LoadedModel>,
    /// Executions that no run uses just now; at most one for each slot.
    idle: Mutex<Vec<Box<dyn Execution>>>,
    /// About how long a run takes, in microseconds; 0 before the first.
    run_us: AtomicU64,
}

impl core::fmt::Debug for Model {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}

impl Model {
    /// An execution that was used before, if one is idle.
    #[must_use]
    pub fn idle_execution(&self) -> Option<Box<dyn Execution>> {
        lock(&self.idle).pop()
    }

    /// A new execution.
    ///
    /// # Errors
    /// [`RefusalCode::EngineFailed`].
    pub fn new_execution(&self) -> Result<Box<dyn Execution>, Refusal> {
        self.loaded
            .execution()
            .map_err(|e| Refusal::new(RefusalCode::EngineFailed, e))
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

    /// Drops the executions that no run uses.
    pub fn drop_executions(&self) {
        let idle = core::mem::take(&mut *lock(&self.idle));
        // Outside the lock: memory takes its time.
        drop(idle);
    }

    /// Gives an execution back after a run that went well. There are never more than slots, because each run has one.
    pub fn give_back(&self, execution: Box<dyn Execution>) {
        lock(&self.idle).push(execution);
    }
}

/// The models that this enclave holds.
pub struct Models {
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf<Model>>,
    flights: SingleFlight<ModelRef, Arc<Held<Model>>, Refusal>,
}

impl core::fmt::Debug for Models {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Models(..)")
    }
}

impl Models {
    /// No models yet; packages come from `store`, at most `budget` bytes of them are held.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, engine: Arc<dyn Engine>, budget: u64) -> Self {
        Self {
            store,
            engine,
            shelf: Shelf::new(budget),
            flights: SingleFlight::default(),
        }
    }

    /// The model, if it is held.
    #[must_use]
    pub fn held(&self, model: &ModelRef) -> Option<Arc<Held<Model>>> {
        self.shelf.take(model)
    }

    /// Drops the buffers of executions that no run uses.
    pub fn drop_executions(&self) {
        for model in self.shelf.all() {
            model.drop_executions();
        }
    }

    /// Bytes of the budget that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shelf.used()
    }

    /// Fetches, decrypts and loads the model version that a lease is for.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if it cannot be fetched, opened or loaded; [`RefusalCode::Busy`] if there is no
    /// room while other models are in use.
    pub async fn fetch(&self, lease: &Lease) -> Result<Arc<Held<Model>>, Refusal> {
        let load = Load {
            store: self.store.clone(),
            engine: self.engine.clone(),
            shelf: self.shelf.clone(),
            wanted: Wanted::of(lease),
        };
        let load = async move {
            tokio::time::timeout(LOAD, load.run())
                .await
                .unwrap_or_else(|_| Err(RefusalCode::ModelUnavailable.into()))
        };
        self.flights.join(lease.model.clone(), || load).await
    }
}

/// One load under way.
struct Load {
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf<Model>>,
    wanted: Wanted,
}

impl Load {
    async fn run(self) -> Result<Arc<Held<Model>>, Refusal> {
        let started = Instant::now();
        let found = fetch::find(self.store.clone(), &self.wanted).await;
        let found = found.map_err(|e| self.failed(&e))?;
        let manifest = found.package().manifest().clone();
        let (form, place) = self.choose(&manifest, |form| found.package().place(form))?;
        let reserved = Shelf::reserve(&self.shelf, needed(&form, &place))?;
        let decrypted = found.form(place).await.map_err(|e| self.failed(&e))?;
        let (model, reserved) = self.load(manifest, form, decrypted, reserved).await?;
        let name = self.wanted.model;
        Ok(self.shelf.place(name, model, reserved, started.elapsed()))
    }

    /// The first form that the engine takes.
    fn choose(
        &self,
        manifest: &Manifest,
        place: impl Fn(usize) -> Option<FormPlace>,
    ) -> Result<(Form, FormPlace), Refusal> {
        let mut forms = manifest.forms.iter().enumerate();
        forms
            .find(|(_, form)| self.engine.takes(form))
            .and_then(|(index, form)| Some((form.clone(), place(index)?)))
            .ok_or_else(|| {
                tracing::warn!(model = %self.wanted.model, engine = self.engine.name(), "no form of it runs here");
                unavailable()
            })
    }

    /// Parsing and laying out a model takes as long as it takes: not on the network's threads.
    async fn load(
        &self,
        manifest: Manifest,
        form: Form,
        decrypted: fetch::Decrypted,
        mut reserved: Reservation<Model>,
    ) -> Result<(Model, Reservation<Model>), Refusal> {
        let engine = self.engine.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let loaded = engine
                .load(&manifest, &form, decrypted.into_parts())
                .map_err(|_| unavailable())?;
            if let Some(bytes) = loaded.memory() {
                reserved.correct(bytes);
            }
            let model = Model {
                manifest,
                loaded,
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
    fn failed(&self, error: &fetch::FetchError) -> Refusal {
        tracing::warn!(model = %self.wanted.model, %error, "model not fetched");
        match error {
            fetch::FetchError::Store(_) => RefusalCode::ModelUnavailable.into(),
            _ => unavailable(),
        }
    }
}

/// What a form needs: what was measured when it was made, and its own length at the least.
fn needed(form: &Form, place: &FormPlace) -> u64 {
    let length = place.plaintext.end.saturating_sub(place.plaintext.start);
    form.memory.loaded.max(length)
}

/// The detail of a decrypted model's trouble (names of its tensors, say) is not for the host, who reads refusals that
/// travel in the clear and every log line.
fn unavailable() -> Refusal {
    Refusal::new(
        RefusalCode::ModelUnavailable,
        "it is not what its owner registered, or this engine cannot load it",
    )
}

/// No code that can panic runs under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
