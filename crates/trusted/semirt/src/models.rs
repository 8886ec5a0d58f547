//! Decrypted models, one copy each, within a memory budget.
//!
//! Memory is reserved before a package is fetched. Room is made by dropping the model that was used longest ago and that
//! nothing is running on; a model in use is never dropped. A load that fails gives its reservation back and leaves nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sesemi_protocol::package::{Manifest, PackageReader, object_path};
use sesemi_protocol::release::Lease;
use sesemi_protocol::{ModelRef, Refusal, RefusalCode};

use crate::engine::{Engine, Execution, LoadedModel};
use crate::single_flight::SingleFlight;

/// Longest that fetching, decrypting and loading a model may take: a store that stalls must not hold it for ever.
const LOAD: Duration = Duration::from_secs(300);

/// A model that is ready to run.
pub struct Model {
    /// What its owner says about it.
    pub manifest: Manifest,
    loaded: Box<dyn LoadedModel>,
    /// Executions that no run uses just now; at most one for each slot.
    idle: Mutex<Vec<Box<dyn Execution>>>,
    reservation: Reservation,
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

    /// Gives an execution back after a run that went well. There are never more than slots, because each run has one.
    pub fn give_back(&self, execution: Box<dyn Execution>) {
        lock(&self.idle).push(execution);
    }
}

/// The models that this enclave holds.
pub struct Models {
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf>,
    flights: SingleFlight<ModelRef, Arc<Model>, Refusal>,
}

impl core::fmt::Debug for Models {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Models(..)")
    }
}

/// Loaded models and the budget they share.
struct Shelf {
    budget: u64,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    used: u64,
    clock: u64,
    models: HashMap<ModelRef, Placed>,
}

struct Placed {
    model: Arc<Model>,
    last_used: u64,
}

impl Models {
    /// No models yet; packages come from `store`, at most `budget` bytes of them are held.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, engine: Arc<dyn Engine>, budget: u64) -> Self {
        Self {
            store,
            engine,
            shelf: Arc::new(Shelf {
                budget,
                content: Mutex::default(),
            }),
            flights: SingleFlight::default(),
        }
    }

    /// The model, if it is held.
    #[must_use]
    pub fn held(&self, model: &ModelRef) -> Option<Arc<Model>> {
        let mut content = lock(&self.shelf.content);
        content.clock = content.clock.wrapping_add(1);
        let now = content.clock;
        let placed = content.models.get_mut(model)?;
        placed.last_used = now;
        Some(placed.model.clone())
    }

    /// Bytes of the budget that are in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        lock(&self.shelf.content).used
    }

    /// Fetches, decrypts and loads the model version that a lease is for.
    ///
    /// # Errors
    /// [`RefusalCode::ModelUnavailable`] if it cannot be fetched, opened or loaded; [`RefusalCode::Busy`] if there is no
    /// room while other models are in use.
    pub async fn fetch(&self, lease: &Lease) -> Result<Arc<Model>, Refusal> {
        let model = &lease.model;
        let load = Load {
            store: self.store.clone(),
            engine: self.engine.clone(),
            shelf: self.shelf.clone(),
            model: model.clone(),
            reader: PackageReader::new(
                lease.model_key.clone(),
                model.clone(),
                lease.manifest,
                self.shelf.budget,
            ),
        };
        let load = async move {
            tokio::time::timeout(LOAD, load.run())
                .await
                .unwrap_or_else(|_| Err(RefusalCode::ModelUnavailable.into()))
        };
        self.flights.join(model.clone(), || load).await
    }
}

/// One load under way.
struct Load {
    store: Arc<dyn ObjectStore>,
    engine: Arc<dyn Engine>,
    shelf: Arc<Shelf>,
    model: ModelRef,
    reader: PackageReader,
}

impl Load {
    async fn run(mut self) -> Result<Arc<Model>, Refusal> {
        let path = ObjectPath::from(object_path(&self.model));
        let fetched = self.store.get(&path).await.map_err(|e| self.failed(&e))?;
        // The store states the size, and may lie: what it says is reserved, and no more than that is ever taken in.
        let reservation = Shelf::reserve(&self.shelf, fetched.meta.size)?;
        let reader = self.reader.limited_to(fetched.meta.size);
        self.reader = reader;
        let mut stream = fetched.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| self.failed(&e))?;
            self.reader.push(&piece).map_err(|e| self.failed(&e))?;
        }
        let (reader, engine) = (self.reader, self.engine);
        // Parsing and laying out a model takes as long as it takes: not on the network's threads.
        let loaded = tokio::task::spawn_blocking(move || {
            let package = reader.finish().map_err(|e| unavailable(&e))?;
            let manifest = package.manifest.clone();
            let loaded = engine
                .load(&manifest, package.into_model())
                .map_err(|e| unavailable(&e))?;
            // The reservation came along: if nobody waits any more, it ends with this work and not before.
            Ok::<_, Refusal>((manifest, loaded, reservation))
        });
        let (manifest, loaded, reservation) = loaded
            .await
            .map_err(|_| Refusal::from(RefusalCode::Internal))?
            .inspect_err(
                |refusal| tracing::warn!(model = %self.model, %refusal, "model not loaded"),
            )?;
        let model = Arc::new(Model {
            manifest,
            loaded,
            idle: Mutex::default(),
            reservation,
        });
        self.shelf.place(self.model, model.clone());
        Ok(model)
    }

    fn failed(&self, error: &dyn core::fmt::Display) -> Refusal {
        tracing::warn!(model = %self.model, %error, "model not fetched");
        RefusalCode::ModelUnavailable.into()
    }
}

/// The detail of a decrypted model's trouble (names of its tensors, say) is not for the host, who reads refusals that
/// travel in the clear and every log line.
fn unavailable(_: &dyn core::fmt::Display) -> Refusal {
    Refusal::new(
        RefusalCode::ModelUnavailable,
        "it is not what its owner registered, or this engine cannot load it",
    )
}

/// Bytes of the budget; given back on drop.
struct Reservation {
    shelf: Arc<Shelf>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut content = lock(&self.shelf.content);
        content.used = content.used.saturating_sub(self.bytes);
    }
}

impl Shelf {
    fn reserve(shelf: &Arc<Self>, bytes: u64) -> Result<Reservation, Refusal> {
        if bytes > shelf.budget {
            return Err(Refusal::new(
                RefusalCode::ModelUnavailable,
                "the model is larger than this instance's memory budget",
            ));
        }
        loop {
            let evicted = {
                let mut content = lock(&shelf.content);
                let needed = content.used.saturating_add(bytes);
                if needed <= shelf.budget {
                    content.used = needed;
                    return Ok(Reservation {
                        shelf: shelf.clone(),
                        bytes,
                    });
                }
                content
                    .evict(bytes, shelf.budget)
                    .ok_or(RefusalCode::Busy)?
            };
            // Outside the lock, because dropping a model gives its reservation back.
            drop(evicted);
        }
    }

    fn place(&self, name: ModelRef, model: Arc<Model>) {
        let mut content = lock(&self.content);
        content.clock = content.clock.wrapping_add(1);
        let last_used = content.clock;
        let replaced = content.models.insert(name, Placed { model, last_used });
        drop(content);
        drop(replaced);
    }
}

impl Content {
    /// Takes out the model that was used longest ago and that nobody else holds. Nothing is taken out for a load of `bytes`
    /// that would not fit even then.
    fn evict(&mut self, bytes: u64, budget: u64) -> Option<Placed> {
        let idle = self
            .models
            .values()
            .filter(|placed| Arc::strong_count(&placed.model) == 1)
            .fold(0u64, |sum, placed| {
                sum.saturating_add(placed.model.reservation.bytes)
            });
        if self.used.saturating_sub(idle).saturating_add(bytes) > budget {
            return None;
        }
        let name = self
            .models
            .iter()
            .filter(|(_, placed)| Arc::strong_count(&placed.model) == 1)
            .min_by_key(|(_, placed)| placed.last_used)
            .map(|(name, _)| name.clone())?;
        self.models.remove(&name)
    }
}

/// No code that can panic runs under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
