//! Ciphertext that is fetched while the key is still on its way.
//!
//! A request that names a version says which package will be needed, before anybody knows whether the request is genuine. So
//! what is done for it costs nobody else anything: memory is taken only as far as it is free, no model is dropped for it, a
//! load that needs the memory ends it, and there are two at once at most. It ends when the request does.
//!
//! Which form will be used is in the manifest, which cannot be read yet. What is fetched is put where it would belong if it were
//! the first one, the one that the owner prefers; if it is another, it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use sesemi_protocol::ModelRef;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use super::arena::Arena;
use super::budget::{Budget, Reservation};
use super::fetch::{Begun, Early, FetchError, Origin};
use super::load::LONGEST;
use super::needs::HEAD_MEMORY;
use super::pieces::{IN_TRANSIT, Pieces};
use super::source::Source;
use crate::sync::lock;

/// How many there are at once.
const AT_ONCE: usize = 2;
/// Where the first form starts in the plaintext, if the manifest is not longer than a page.
const FIRST_FORM: u64 = 4096;
/// Less than this is not worth the trouble.
const LEAST: u64 = 1 << 20;
/// How long a load waits for memory that was taken ahead to come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a fetch going until the key is there. Dropped, it ends the fetch, unless a load took it over.
#[derive(Debug)]
pub struct Prefetch(#[expect(dead_code, reason = "it is there to be dropped")] Arc<Guard>);

#[derive(Debug)]
struct Guard {
    id: u64,
    model: ModelRef,
    ahead: Weak<Ahead>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(ahead) = self.ahead.upgrade() {
            let mut running = lock(&ahead.running);
            if running
                .get(&self.model)
                .is_some_and(|run| run.id == self.id)
            {
                // Dropping it ends it.
                running.remove(&self.model);
            }
        }
    }
}

/// All fetches that are ahead of their keys.
pub(super) struct Ahead {
    slots: Arc<Semaphore>,
    next: AtomicU64,
    running: Mutex<HashMap<ModelRef, Running>>,
}

struct Running {
    id: u64,
    guard: Weak<Guard>,
    stop: Arc<Halt>,
    task: Option<JoinHandle<Result<Begun, FetchError>>>,
}

/// Tells a fetch to stop where it is.
#[derive(Debug, Default)]
struct Halt {
    flag: Arc<AtomicBool>,
    told: Notify,
    /// Nobody wants what is there.
    abandoned: Notify,
}

impl Halt {
    fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.task.is_some() {
            // What the task returns is dropped with it.
            self.stop.abandoned.notify_one();
        }
        self.stop.set();
    }
}

impl core::fmt::Debug for Ahead {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Ahead(..)")
    }
}

impl Ahead {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            next: AtomicU64::new(0),
            running: Mutex::default(),
        })
    }

    /// Begins to fetch a package, or joins those who wait for it.
    pub(super) fn begin(
        self: &Arc<Self>,
        model: &ModelRef,
        origin: &Origin,
        budget: &Arc<Budget>,
    ) -> Option<Prefetch> {
        let mut running = lock(&self.running);
        if let Some(run) = running.get(model) {
            return run.guard.upgrade().map(Prefetch);
        }
        let slot = self.slots.clone().try_acquire_owned().ok()?;
        let reserved = budget.try_take(HEAD_MEMORY)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let guard = Arc::new(Guard {
            id,
            model: model.clone(),
            ahead: Arc::downgrade(self),
        });
        let stop = Arc::new(Halt::default());
        let fetch = Fetch {
            model: model.clone(),
            origin: origin.clone(),
            budget: budget.clone(),
            stop: stop.clone(),
        };
        let run = Running {
            id,
            guard: Arc::downgrade(&guard),
            stop,
            task: Some(tokio::spawn(fetch.run(slot, reserved))),
        };
        running.insert(model.clone(), run);
        Some(Prefetch(guard))
    }

    /// What was fetched of a package, if anything: it goes on from there.
    pub(super) async fn take(&self, model: &ModelRef) -> Option<Begun> {
        let mut run = lock(&self.running).remove(model)?;
        let task = run.task.take()?;
        run.stop.set();
        // Whatever went wrong: the load meets it again, and says so.
        let mut begun = task.await.ok()?.ok()?;
        begun.ahead = None;
        if let Some(early) = &mut begun.early {
            early.arena.keep(None);
        }
        Some(begun)
    }

    /// Ends them all, and waits until their memory is free again. None begins as long as what is returned is kept: until then the
    /// memory has been taken by whoever it was freed for.
    pub(super) async fn end_all(&self) -> Option<OwnedSemaphorePermit> {
        let ended: Vec<Running> = lock(&self.running).drain().map(|(_, run)| run).collect();
        drop(ended);
        let all = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
        let all = self.slots.clone().acquire_many_owned(all);
        tokio::time::timeout(PATIENCE, all).await.ok()?.ok()
    }
}

/// One fetch.
struct Fetch {
    model: ModelRef,
    origin: Origin,
    budget: Arc<Budget>,
    stop: Arc<Halt>,
}

impl Fetch {
    async fn run(
        self,
        slot: OwnedSemaphorePermit,
        reserved: Reservation,
    ) -> Result<Begun, FetchError> {
        tokio::time::timeout(LONGEST, self.fetch(slot, reserved))
            .await
            .unwrap_or(Err(FetchError::Ended))
    }

    async fn fetch(
        &self,
        slot: OwnedSemaphorePermit,
        reserved: Reservation,
    ) -> Result<Begun, FetchError> {
        let opening = Begun::find(&self.origin, &self.model, reserved);
        let mut begun = tokio::select! {
            begun = opening => begun?,
            // Who takes it over needs the head, and goes on waiting for it.
            () = self.stop.abandoned.notified() => return Err(FetchError::Ended),
        };
        let end = begun.cut.layout.plaintext();
        let most = end.saturating_sub(FIRST_FORM);
        let transit = match begun.source {
            Source::File(_) => 0,
            Source::Ranges(..) => IN_TRANSIT.min(most),
        };
        let reserved = self.budget.take_up_to(most.saturating_add(transit));
        let room = reserved.bytes().saturating_sub(transit).min(most);
        if room < LEAST.min(most) || room == 0 || self.stop.is_set() {
            // The head alone counts as well.
            begun.ahead = Some(slot);
            return Ok(begun);
        }
        let plaintext = FIRST_FORM..FIRST_FORM.saturating_add(room);
        let mut arena = Arena::new(plaintext.clone(), begun.cut, reserved)?;
        arena.keep(Some(slot));
        begun.early = match &begun.source {
            Source::File(file) => {
                let (mut arena, file, stop) = (arena, file.clone(), self.stop.flag.clone());
                let filling = spawn_blocking(move || {
                    arena.fill_from(&file, &stop)?;
                    Ok::<_, FetchError>(arena)
                });
                let arena = filling.await.map_err(|_| FetchError::Ended)??;
                let pieces = None;
                Some(Early { arena, pieces })
            }
            Source::Ranges(store, path) => {
                let segments = begun.cut.layout.holding(&plaintext);
                let after_first = segments.start.max(1)..segments.end;
                let (store, path, keeper) = (store.clone(), path.clone(), begun.keeper.clone());
                let pieces = Pieces::new(store, path, begun.cut, after_first, keeper);
                Some(self.receive(arena, pieces).await?)
            }
        };
        Ok(begun)
    }

    /// Puts pieces in their places as they come, until told to stop. Those that are still on their way then stay so.
    async fn receive(&self, mut arena: Arena, mut pieces: Pieces) -> Result<Early, FetchError> {
        let mut came = Vec::new();
        loop {
            let (stop, first) = (self.stop.flag.clone(), came.is_empty());
            let keeper = pieces.keeper();
            let filling = spawn_blocking(move || {
                if first {
                    arena.touch(&stop);
                }
                arena.fill(&came);
                if let Some(keeper) = keeper {
                    keeper.write(&came);
                }
                arena
            });
            arena = pieces.during(filling).await?;
            if self.stop.is_set() {
                break;
            }
            tokio::select! {
                more = pieces.next() => came = more?,
                () = self.stop.told.notified() => break,
            }
            if came.is_empty() {
                break;
            }
        }
        Ok(Early {
            arena,
            pieces: Some(pieces),
        })
    }
}
