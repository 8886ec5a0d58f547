//! Several at once, each on a thread of its own.

use std::time::{Duration, Instant};

use crate::error::BenchError;

/// Has all do their work at the same time, and says how long it took until the last was done.
pub(super) fn at_once<W, F>(workers: Vec<W>, work: F) -> Result<(Duration, Vec<W>), BenchError>
where
    W: Send,
    F: Fn(&mut W) -> Result<(), BenchError> + Sync,
{
    let started = Instant::now();
    let workers = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let work = &work;
                scope.spawn(move || work(&mut worker).map(|()| worker))
            })
            .collect();
        let ended = || Err(BenchError::Unexpected("a caller ended early"));
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| ended())
        };
        threads.into_iter().map(join).collect::<Result<Vec<W>, _>>()
    })?;
    Ok((started.elapsed(), workers))
}
