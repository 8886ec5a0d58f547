//! Storage that is read and never written: what the database writes while it is opened stays in memory.
//!
//! A database that failed must be repaired to be read, and repairing it writes. When the disk takes no writes (full, worn
//! out, mounted read-only by the kernel) the repair happens here, so that the log can be read on.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use redb::{BackendError, StorageBackend};

const PAGE: u64 = 4096;

#[derive(Debug)]
struct Written {
    length: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

/// Storage below, and what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    inner: Box<dyn StorageBackend>,
    /// Length of the storage below, in bytes.
    below: u64,
    written: Mutex<Written>,
}

impl Overlay {
    pub(super) fn new(inner: Box<dyn StorageBackend>) -> io::Result<Self> {
        let below = inner.len()?;
        Ok(Self {
            inner,
            below,
            written: Mutex::new(Written {
                length: below,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut Written) -> T) -> T {
        f(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A page as it is below, zero where there is nothing.
    fn page_below(&self, page: u64) -> io::Result<Vec<u8>> {
        let start = page.saturating_mul(PAGE);
        let there = self.below.saturating_sub(start).min(PAGE);
        let mut bytes = vec![0; usize::try_from(PAGE).map_err(io::Error::other)?];
        let there = usize::try_from(there).map_err(io::Error::other)?;
        if let Some(known) = bytes.get_mut(..there).filter(|known| !known.is_empty()) {
            self.inner.read(start, known)?;
        }
        Ok(bytes)
    }

    /// Calls `f` for each page that `offset` and `length` touch, with the page's number, the range within it and the range within the
    /// caller's buffer.
    fn pages(
        offset: u64,
        length: usize,
        mut f: impl FnMut(u64, core::ops::Range<usize>, core::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0usize;
        while done < length {
            let at = offset.saturating_add(done as u64);
            let within = usize::try_from(at.checked_rem(PAGE).unwrap_or_default())
                .map_err(io::Error::other)?;
            let room = usize::try_from(PAGE)
                .map_err(io::Error::other)?
                .saturating_sub(within);
            let take = room.min(length.saturating_sub(done));
            let end = done.saturating_add(take);
            f(
                at.checked_div(PAGE).unwrap_or_default(),
                within..within.saturating_add(take),
                done..end,
            )?;
            done = end;
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|written| written.length))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.with(|written| written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::pages(offset, out.len(), |page, within, place| {
            let bytes = match self.with(|written| written.pages.get(&page).cloned()) {
                Some(bytes) => bytes,
                None => self.page_below(page)?,
            };
            if let Some((to, from)) = out.get_mut(place).zip(bytes.get(within)) {
                to.copy_from_slice(from);
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|written| {
            if len < written.length {
                // What comes after a shortened end must read as zero if it grows again.
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            written.length = len;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Self::pages(offset, data.len(), |page, within, place| {
            let known = self.with(|written| written.pages.get(&page).cloned());
            let mut bytes = match known {
                Some(bytes) => bytes,
                None => self.page_below(page)?,
            };
            if let Some((to, from)) = bytes.get_mut(within).zip(data.get(place)) {
                to.copy_from_slice(from);
            }
            self.with(|written| written.pages.insert(page, bytes));
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    /// A shared lock is enough to keep writers out, and the only one that a file opened for reading can take.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
