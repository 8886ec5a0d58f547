//! A package on its way into memory: several ranges in flight, each segment decrypted in its final place by one of several
//! threads.
//!
//! Only the segments of one form are fetched, apart from what came before the form was known. Whoever waits for ciphertext is a
//! task, and whoever works with it a thread that waits for nothing: however slow a store is, no thread is kept. Nothing is handed
//! out before all segments of the form are authentic; whatever fails on the way, all of it is dropped.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use object_store::ObjectStore;
use sesemi_process::{Wiped, wipe};
use sesemi_protocol::package::{FormPlace, OpenPackage, PackageError};
use sesemi_protocol::release::Lease;
use sesemi_protocol::{Digest, ModelRef, SecretKey};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::arena::{Arena, Given, drop_elsewhere};
use super::budget::Reservation;
use super::cache::{Cache, Keeper};
use super::pieces::{IN_TRANSIT, Pieces};
use super::source::{Cut, Head, Source};

/// Of a form's memory as much as this part of its weights may stay behind them, wiped: 1/64.
const KEPT_SHIFT: u32 = 6;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store does not have it, or does not answer.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
    /// What it has is not the package that the lease is for.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The store has a form, but sends something else than was asked for.
    #[error("the object store sent {found} bytes instead of {expected}")]
    Length {
        /// Bytes that came, as far as they were taken.
        found: u64,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// A file of the store, or of the cache, cannot be read.
    #[error("the package's file: {0}")]
    File(#[from] std::io::Error),
    /// A thread ended without a result.
    #[error("decryption ended without a result")]
    Ended,
}

/// The package that a lease is for.
pub struct Wanted {
    /// Its model and version.
    pub model: ModelRef,
    /// Its key.
    pub key: SecretKey,
    /// Digest of its manifest.
    pub manifest: Digest,
}

impl Wanted {
    /// What a lease says.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            model: lease.model.clone(),
            key: lease.model_key.clone(),
            manifest: lease.manifest,
        }
    }
}

/// Tells threads to leave once nobody waits for them any more.
#[derive(Default)]
pub(super) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    pub(super) fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A package of which the first bytes are here, and perhaps more.
pub(super) struct Begun {
    pub(super) source: Source,
    pub(super) head: Head,
    pub(super) cut: Cut,
    /// Ciphertext that came before there was a key.
    pub(super) early: Option<Early>,
    /// Where what comes is kept for other instances.
    pub(super) keeper: Option<Arc<Keeper>>,
    /// Whether it is from the cache.
    pub(super) cached: bool,
    /// What the head, and what is made of it, takes.
    pub(super) reserved: Reservation,
    /// What it has taken ahead of its key; given back once there is one.
    pub(super) ahead: Option<OwnedSemaphorePermit>,
}

/// Ciphertext that came early.
pub(super) struct Early {
    pub(super) arena: Arena,
    pub(super) pieces: Option<Pieces>,
}

impl Begun {
    /// Reads the head of a package.
    pub(super) fn new(
        (source, head): (Source, Head),
        reserved: Reservation,
    ) -> Result<Self, FetchError> {
        let cut = Cut::of(&head)?;
        Ok(Self {
            source,
            head,
            cut,
            early: None,
            keeper: None,
            cached: false,
            reserved,
            ahead: None,
        })
    }

    /// Opens a package in the cache or in the store.
    pub(super) async fn find(
        origin: &Origin,
        model: &ModelRef,
        reserved: Reservation,
    ) -> Result<Self, FetchError> {
        let Origin {
            store,
            cache,
            past_cache,
            engine,
        } = origin;
        if let Some(cache) = cache
            && !past_cache
            && let Some(opened) = cache.find(model, engine).await
            && Cut::of(&opened.1).is_ok()
        {
            let begun = Self::new(opened, reserved)?;
            return Ok(Self {
                cached: true,
                ..begun
            });
        }
        let mut begun = Self::new(Source::open(store.clone(), model).await?, reserved)?;
        if let (Some(cache), Source::Ranges(..)) = (cache, &begun.source) {
            begun.keeper = cache.keep(model, engine, &begun.head).await;
        }
        Ok(begun)
    }

    /// Reads the manifest, once there is a key.
    pub(super) async fn open(self, wanted: &Wanted) -> Result<Found, FetchError> {
        let (key, model, manifest) = (wanted.key.clone(), wanted.model.clone(), wanted.manifest);
        let Self {
            source,
            head,
            cut,
            early,
            keeper,
            cached: _,
            reserved,
            ahead: _,
        } = self;
        let opening = spawn_blocking(move || {
            let Head { bytes, length } = head;
            let mut package = OpenPackage::new(&key, &model, &manifest, length, &bytes)?;
            Ok::<_, FetchError>((package.take_first(), package))
        });
        let (first, package) = opening.await.map_err(|_| FetchError::Ended)??;
        Ok(Found {
            source,
            cut,
            first,
            package: Arc::new(package),
            early,
            keeper,
            reserved,
            left: None,
        })
    }
}

/// A package whose manifest is known.
pub(super) struct Found {
    source: Source,
    cut: Cut,
    /// Plaintext of segment 0.
    first: Zeroizing<Vec<u8>>,
    package: Arc<OpenPackage>,
    early: Option<Early>,
    keeper: Option<Arc<Keeper>>,
    reserved: Reservation,
    /// Memory that a model left which had to go.
    left: Option<Wiped>,
}

/// Where packages come from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) cache: Option<Arc<Cache>>,
    /// What the cache has is of no use.
    pub(super) past_cache: bool,
    /// The name of the engine that they are for.
    pub(super) engine: &'static str,
}

impl Found {
    /// The package, as far as it is known.
    pub(super) fn package(&self) -> &OpenPackage {
        &self.package
    }

    /// Drops what came early, unless it is of this form, and what was reserved for the head beyond what is left of it; bytes
    /// that stay reserved.
    pub(super) async fn keep_of(&mut self, place: &FormPlace) -> u64 {
        self.reserved.correct(self.first.len() as u64);
        let of_form = self.early.take_if(|early| {
            let here = early.arena.plaintext();
            here.start != place.plaintext.start || here.end < place.plaintext.end
        });
        if let Some(early) = of_form {
            // Its memory is counted until it is free.
            early.arena.dismiss().await;
        }
        let early = self.early.as_ref();
        let early = early.map_or(0, |early| early.arena.reserved());
        early.saturating_add(self.reserved.bytes())
    }

    /// Bytes of ciphertext that are on their way through memory, besides the place of the form.
    pub(super) fn in_transit(&self, place: &FormPlace) -> u64 {
        match (&self.source, &self.early) {
            (Source::Ranges(..), None) => {
                let Range { start, end } = place.plaintext;
                IN_TRANSIT.min(end.saturating_sub(start))
            }
            // A file is read in place, and what came early has it already.
            _ => 0,
        }
    }

    /// Length of the memory that a form is going to be decrypted in; none if there is some already.
    pub(super) fn length_of(&self, place: &FormPlace) -> Option<usize> {
        let length = place.plaintext.end.saturating_sub(place.plaintext.start);
        let wanted = self.early.is_none();
        wanted.then(|| usize::try_from(length).ok()).flatten()
    }

    /// Has the form decrypted in this memory.
    pub(super) fn reuse(&mut self, left: Option<Wiped>) {
        self.left = left;
    }

    /// Fetches and decrypts a form; `reserved` is for its memory, together with what [`Self::keep_of`] says.
    pub(super) async fn form(
        self,
        place: FormPlace,
        mut reserved: Reservation,
    ) -> Result<(Decrypted, Instant), FetchError> {
        let stop = StopOnDrop::default();
        reserved.join(self.reserved);
        let (mut arena, pieces) = match self.early {
            Some(Early { mut arena, pieces }) => {
                arena.reserve(reserved);
                (arena, pieces)
            }
            None => {
                let (plaintext, cut) = (place.plaintext.clone(), self.cut);
                let arena = match self.left {
                    Some(left) => Arena::reusing(left, plaintext, cut, reserved)?,
                    None => Arena::new(plaintext, cut, reserved)?,
                };
                (arena, None)
            }
        };
        arena.put_first(&self.first);
        drop(self.first);
        let work = Work {
            package: self.package,
            wanted: place.plaintext.clone(),
            stop: stop.flag(),
        };
        let (arena, last) = match self.source {
            Source::File(file) => work.open_file(arena, file).await?,
            Source::Ranges(store, path) => {
                let segments = self.cut.layout.holding(&place.plaintext);
                let pieces = pieces.unwrap_or_else(|| {
                    let after_first = segments.start.max(1)..segments.end;
                    Pieces::new(store, path, self.cut, after_first, self.keeper.clone())
                });
                pieces.end_before(segments.end);
                work.open_pieces(arena, pieces).await?
            }
        };
        let keeper = self.keeper;
        let decrypted = spawn_blocking(move || {
            let decrypted = arena.into_form(place)?;
            if let Some(keeper) = keeper {
                keeper.finish();
            }
            Ok::<_, FetchError>(decrypted)
        })
        .await;
        Ok((decrypted.map_err(|_| FetchError::Ended)??, last))
    }
}

/// The decryption of a form.
#[derive(Clone)]
struct Work {
    package: Arc<OpenPackage>,
    wanted: Range<u64>,
    stop: Arc<AtomicBool>,
}

impl Work {
    async fn open_file(
        self,
        mut arena: Arena,
        file: Arc<File>,
    ) -> Result<(Arena, Instant), FetchError> {
        let opening = spawn_blocking(move || {
            let given = Given::File(&file);
            let last = arena.open(&self.package, &self.wanted, &given, &self.stop)?;
            // If nothing was left to be read, it had all come before.
            Ok::<_, FetchError>((arena, last))
        });
        let before = Instant::now();
        let (arena, last) = opening.await.map_err(|_| FetchError::Ended)??;
        Ok((arena, last.unwrap_or(before)))
    }

    async fn open_pieces(
        self,
        mut arena: Arena,
        mut pieces: Pieces,
    ) -> Result<(Arena, Instant), FetchError> {
        // What came early first, or getting memory while the first pieces are on their way.
        let mut came = Vec::new();
        loop {
            let (work, first) = (self.clone(), came.is_empty());
            let keeper = pieces.keeper();
            let opening = spawn_blocking(move || {
                if let Some(keeper) = keeper {
                    keeper.write(&came);
                }
                let given = Given::Pieces(&came);
                arena.open(&work.package, &work.wanted, &given, &work.stop)?;
                if first {
                    arena.touch(&work.stop);
                }
                Ok::<_, FetchError>(arena)
            });
            arena = pieces.during(opening).await??;
            came = pieces.next().await?;
            if came.is_empty() {
                return Ok((arena, pieces.last));
            }
        }
    }
}

/// A form in memory.
pub struct Decrypted {
    memory: Vec<u8>,
    place: FormPlace,
    reserved: Option<Reservation>,
}

impl Decrypted {
    pub(super) fn new(memory: Vec<u8>, place: FormPlace, reserved: Option<Reservation>) -> Self {
        Self {
            memory,
            place,
            reserved,
        }
    }

    /// Checks that there is nothing between the parts.
    pub(super) fn check(&mut self) -> Result<(), FetchError> {
        Ok(self.place.check_gaps(&self.memory)?)
    }

    /// The parts, and what is reserved for them. The first stays where it was decrypted; the others are copied, and are wiped
    /// where they were.
    #[must_use]
    pub fn into_parts(mut self) -> (Vec<Vec<u8>>, Option<Reservation>) {
        let mut parts = vec![Vec::new()];
        for part in self.place.parts.iter().skip(1) {
            let part = self.memory.get(part.clone()).unwrap_or_default();
            parts.push(part.to_vec());
        }
        let first = self.place.parts.first().map_or(0, |part| part.end);
        if let Some(rest) = self.memory.get_mut(first..) {
            wipe(rest);
        }
        let mut memory = core::mem::take(&mut self.memory);
        memory.truncate(first);
        // A little is kept: the next version of the model then fits in here again.
        if memory.capacity().saturating_sub(first) > first >> KEPT_SHIFT {
            memory.shrink_to_fit();
        }
        if let Some(place) = parts.first_mut() {
            *place = memory;
        }
        (parts, self.reserved.take())
    }
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            wipe(&mut self.memory);
            drop_elsewhere((core::mem::take(&mut self.memory), self.reserved.take()));
        }
    }
}

#[cfg(test)]
mod tests;
