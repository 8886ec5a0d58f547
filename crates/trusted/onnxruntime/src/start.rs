//! The engine's start, on a thread of its own: attestation and the model's ciphertext need not wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ort::environment::Environment;

use crate::library::{Library, LibraryError};
use crate::raw::Memory;

/// Longest that a load waits for the start, which takes a fiftieth of a second.
const DEADLINE: Duration = Duration::from_secs(30);

/// What sessions need of a library that has started.
#[derive(Debug, Clone)]
pub(crate) struct Started {
    pub(crate) environment: Environment,
    pub(crate) memory: Arc<Memory>,
}

/// A start that is under way or over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    outcome: Mutex<Option<Result<Started, Arc<LibraryError>>>>,
    over: Condvar,
}

impl Start {
    /// Starts the library on a new thread.
    pub(crate) fn begin(library: Library, threads: usize) -> Result<Self, LibraryError> {
        let start = Self::default();
        let mine = start.clone();
        std::thread::Builder::new()
            .name("engine-start".to_owned())
            .spawn(move || mine.run(|| started(library, threads)))
            .map_err(|error| LibraryError::Start(error.to_string()))?;
        Ok(start)
    }

    /// Starts and tells the outcome, also of a start that panics: loads would wait for it in vain.
    fn run(&self, start: impl FnOnce() -> Result<Started, LibraryError>) {
        let outcome = catch_unwind(AssertUnwindSafe(start));
        let panicked = || LibraryError::Start("the start panicked".into());
        self.finish(outcome.unwrap_or_else(|_| Err(panicked())));
    }

    fn finish(&self, outcome: Result<Started, LibraryError>) {
        if let Err(error) = &outcome {
            tracing::error!(%error, "no model can be loaded");
        }
        *self.lock() = Some(outcome.map_err(Arc::new));
        self.0.over.notify_all();
    }

    /// Waits for the end of the start.
    pub(crate) fn wait(&self) -> Result<Started, Arc<LibraryError>> {
        let late = || Arc::new(LibraryError::Start("it takes too long".into()));
        let started = Instant::now();
        let mut outcome = self.lock();
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            let left = DEADLINE.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(late());
            }
            let waited = self.0.over.wait_timeout(outcome, left);
            outcome = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No code that can panic runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Option<Result<Started, Arc<LibraryError>>>> {
        self.0
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn started(library: Library, threads: usize) -> Result<Started, LibraryError> {
    let environment = library.start(threads)?;
    let memory = Memory::ordinary().map_err(|e| LibraryError::Start(e.to_string()))?;
    Ok(Started {
        environment,
        memory: Arc::new(memory),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

    use super::{LibraryError, Start};

    #[test]
    fn a_start_that_panics_is_told_to_every_load() {
        let start = Start::default();
        start.run(|| panic!("as ONNX Runtime's wrapper does"));
        for _ in 0..2 {
            let why = start.wait().expect_err("there is no engine");
            assert!(matches!(&*why, LibraryError::Start(said) if said.contains("panicked")));
        }
    }
}
