//! Ranges of a package on their way from a store: several in flight, a few waiting, and no more than that in memory.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use tokio::task::JoinHandle;

use super::arena::Piece;
use super::cache::Keeper;
use super::fetch::FetchError;
use super::source::{self, Cut};

/// Segments that one request to the store is for: 2 MiB.
const SEGMENTS: u32 = 2;
/// Requests under way at once.
const IN_FLIGHT: usize = 4;
/// Answers that may wait while earlier ones are worked on.
const READY: usize = 4;
/// Bytes of ciphertext that are on their way at most: in flight, waiting, and being worked on.
pub(super) const IN_TRANSIT: u64 =
    (IN_FLIGHT as u64 + 2 * READY as u64) * SEGMENTS as u64 * 1_048_576;

/// Pieces of a package on their way from a store, in order of their requests.
pub(super) struct Pieces {
    coming: BoxStream<'static, Result<Piece, FetchError>>,
    /// The segment before which requests end.
    end: Arc<AtomicU32>,
    ready: Vec<Piece>,
    ended: bool,
    /// When the last one came.
    pub(super) last: Instant,
    /// Where they are kept for other instances.
    keeper: Option<Arc<Keeper>>,
}

impl Pieces {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        path: ObjectPath,
        cut: Cut,
        segments: Range<u32>,
        keeper: Option<Arc<Keeper>>,
    ) -> Self {
        let end = Arc::new(AtomicU32::new(segments.end));
        let until = end.clone();
        let groups = segments.step_by(SEGMENTS as usize).map_while(move |first| {
            let end = until.load(Ordering::Relaxed);
            (first < end).then(|| first..first.saturating_add(SEGMENTS).min(end))
        });
        let coming = stream::iter(groups)
            .map(move |segments| {
                let (store, path) = (store.clone(), path.clone());
                async move {
                    let start = cut.sealed(segments.start).start;
                    let end = cut.sealed(segments.end.saturating_sub(1)).end;
                    let bytes = source::range(&*store, &path, start..end).await?;
                    Ok(Piece {
                        segments,
                        start,
                        bytes,
                    })
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .boxed();
        Self {
            coming,
            end,
            ready: Vec::new(),
            ended: false,
            last: Instant::now(),
            keeper,
        }
    }

    /// Where pieces are to be kept for other instances, if anywhere.
    pub(super) fn keeper(&self) -> Option<Arc<Keeper>> {
        self.keeper.clone()
    }

    /// Asks for nothing from this segment on that was not asked for yet.
    pub(super) fn end_before(&self, segment: u32) {
        self.end.fetch_min(segment, Ordering::Relaxed);
    }

    fn took(&mut self, piece: Option<Result<Piece, FetchError>>) -> Result<(), FetchError> {
        match piece {
            Some(piece) => {
                self.ready.push(piece?);
                self.last = Instant::now();
            }
            None => self.ended = true,
        }
        Ok(())
    }

    /// The pieces that came, at least one; none if there are no more.
    pub(super) async fn next(&mut self) -> Result<Vec<Piece>, FetchError> {
        while self.ready.is_empty() && !self.ended {
            let piece = self.coming.next().await;
            self.took(piece)?;
        }
        while self.ready.len() < READY
            && !self.ended
            && let Some(piece) = self.coming.next().now_or_never()
        {
            self.took(piece)?;
        }
        Ok(core::mem::take(&mut self.ready))
    }

    /// Waits for work, while pieces keep coming.
    pub(super) async fn during<T>(&mut self, mut work: JoinHandle<T>) -> Result<T, FetchError> {
        loop {
            let room = !self.ended && self.ready.len() < READY;
            tokio::select! {
                done = &mut work => return done.map_err(|_| FetchError::Ended),
                piece = self.coming.next(), if room => self.took(piece)?,
            }
        }
    }
}
