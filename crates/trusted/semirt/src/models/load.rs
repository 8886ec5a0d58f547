//! One load: from a lease to a model that is ready to run.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sesemi_process::Wiped;
use sesemi_protocol::package::{Form, FormPlace, Manifest, PackageError};
use sesemi_protocol::{Refusal, RefusalCode};
use tokio::task::spawn_blocking;

use super::ahead::Ahead;
use super::budget::Reservation;
use super::fetch::{Begun, Decrypted, FetchError, Found, Origin, Wanted};
use super::needs::{self, HEAD_MEMORY};
use super::shelf::Shelf;
use super::{LoadTimes, Loaded, Model};
use crate::engine::Engine;
use crate::single_flight::Keep;
use crate::slots::Watchdog;

/// Longest that fetching and decrypting a model may take, and waiting for one's turn to: a store that stalls must not hold it for ever.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// One load under way.
pub(super) struct Load {
    pub(super) origin: Origin,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) shelf: Arc<Shelf<Model>>,
    pub(super) ahead: Arc<Ahead>,
    pub(super) wanted: Wanted,
    pub(super) watchdog: Arc<Watchdog>,
    /// When it must have been fetched and decrypted.
    pub(super) ends: tokio::time::Instant,
    pub(super) keep: Keep,
}

/// A form in plain, and what is known of it.
struct Fetched {
    manifest: Arc<Manifest>,
    form: Form,
    decrypted: Decrypted,
    /// Bytes that it takes once it is loaded, as far as its manifest says.
    needed: u64,
    /// When the last of the ciphertext came.
    last: Instant,
}

impl Load {
    /// What the cache has may be of no use: then once more, from the store.
    pub(super) async fn run_or_again(mut self, started: Instant) -> Result<Loaded, Refusal> {
        let mut cached = false;
        let loaded = self.run(started, &mut cached).await;
        let model = &self.wanted.model;
        match loaded {
            Err(refusal) if cached && refusal.code == RefusalCode::ModelUnavailable => {
                tracing::warn!(%model, "what the cache had of it was of no use");
                self.origin.past_cache = true;
                self.run(started, &mut cached).await
            }
            loaded => loaded,
        }
    }

    async fn run(&self, started: Instant, cached: &mut bool) -> Result<Loaded, Refusal> {
        let fetched = tokio::time::timeout_at(self.ends, self.fetch(cached)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(RefusalCode::ModelUnavailable.into()))?;
        let (opened, last) = (Instant::now(), fetched.last);
        // How long the engine may take is the watchdog's affair.
        let (model, reserved) = self.load(fetched).await?;
        let times = LoadTimes {
            fetch: last.saturating_duration_since(started),
            decrypt: opened.saturating_duration_since(last.max(started)),
            load: opened.elapsed(),
        };
        let cost = started.elapsed();
        let name = self.wanted.model.clone();
        let held = self.shelf.place(name, model, reserved, cost);
        Ok((held, times))
    }

    /// From the first byte to the last one that is decrypted.
    async fn fetch(&self, cached: &mut bool) -> Result<Fetched, Refusal> {
        let mut found = self.find(cached).await?;
        let (form, place) = self.choose(&found)?;
        let kept = found.keep_of(&place).await;
        let needed = needs::of(found.package().manifest(), &form, &place);
        self.check_run(&form, needed)?;
        let more = needed.saturating_sub(kept);
        let more = more.saturating_add(found.in_transit(&place));
        let (left, reserved) = self.reserve_for(more, found.length_of(&place)).await?;
        found.reuse(left);
        let manifest = Arc::new(found.package().manifest().clone());
        let (decrypted, last) = found
            .form(place, reserved)
            .await
            .map_err(|e| self.failed(&e))?;
        Ok(Fetched {
            manifest,
            form,
            decrypted,
            needed,
            last,
        })
    }

    /// The package, as far as it came before there was a key, or its head.
    async fn find(&self, cached: &mut bool) -> Result<Found, Refusal> {
        let begun = match self.ahead.take(&self.wanted.model).await {
            Some(begun) => Ok(begun),
            None => {
                let reserved = self.reserve(HEAD_MEMORY).await?;
                Begun::find(&self.origin, &self.wanted.model, reserved).await
            }
        };
        let found = match begun {
            Ok(begun) => {
                *cached = begun.cached;
                begun.open(&self.wanted).await
            }
            Err(error) => Err(error),
        };
        found.map_err(|e| self.failed(&e))
    }

    /// Takes memory: what is free, what was taken for requests that nobody knows yet, what models leave that are not in use.
    async fn reserve(&self, bytes: u64) -> Result<Reservation, Refusal> {
        Ok(self.reserve_for(bytes, None).await?.1)
    }

    /// The same, and memory of this length, if a model leaves some that had to go: in front of what counts it, which ends after it.
    async fn reserve_for(
        &self,
        bytes: u64,
        length: Option<usize>,
    ) -> Result<(Option<Wiped>, Reservation), Refusal> {
        if let Some(reserved) = self.shelf.budget().try_take(bytes) {
            return Ok((None, reserved));
        }
        let _none_ahead = self.ahead.end_all().await;
        let (shelf, length) = (self.shelf.clone(), length.unwrap_or(usize::MAX));
        let reserving = spawn_blocking(move || shelf.reserve_with_memory(bytes, length));
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
    async fn load(&self, fetched: Fetched) -> Result<(Model, Reservation), Refusal> {
        let Fetched {
            manifest,
            form,
            decrypted,
            needed,
            ..
        } = fetched;
        let engine = self.engine.clone();
        let shelf = Arc::downgrade(&self.shelf);
        let (watchdog, keep) = (self.watchdog.clone(), self.keep.clone());
        let loading = spawn_blocking(move || {
            // Until the engine is done, also if nobody waits for it any more.
            let _keep = keep;
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
                mixes: AtomicBool::new(false),
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
