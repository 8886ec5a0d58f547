//! Where the database's bytes are: a file, or in tests a disk that fails.
//!
//! [`Tracked`] is between redb and the disk. After a failed `fsync` the kernel may hold pages that it believes are on disk
//! and are not, and a later `fsync` would not write them again. So what was written since the last good one is remembered by its
//! place, and is read and written anew before a database that failed is opened again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// Opens the place where a database's bytes are.
pub trait Storage: core::fmt::Debug + Send + Sync {
    /// Opens it; an empty one is made if there is none and `access` allows it.
    ///
    /// # Errors
    /// What the operating system says.
    fn open(&self, access: Access) -> io::Result<Box<dyn StorageBackend>>;
}

/// What storage is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    Write,
    /// Reading only: the disk may be full or mounted read-only.
    Read,
}

/// A file, locked while it is open.
#[derive(Debug)]
pub struct FileStorage {
    path: PathBuf,
}

impl FileStorage {
    /// The file at `path`; its folder exists.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Storage for FileStorage {
    fn open(&self, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let file = match access {
            Access::Read => File::open(&self.path)?,
            Access::Write => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(&self.path)?;
                if file.metadata()?.len() == 0 {
                    // Perhaps it was made just now: its name must survive a crash as its content does.
                    sync_folder(self.path.parent())?;
                }
                file
            }
        };
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    match folder {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Which parts were written since the last good `fsync`: length by offset, in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsynced(Arc<Mutex<BTreeMap<u64, u64>>>);

impl Unsynced {
    fn add(&self, offset: u64, length: u64) {
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = ranges.entry(offset).or_default();
        *known = (*known).max(length);
    }

    fn take(&self) -> BTreeMap<u64, u64> {
        core::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_empty(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

/// Storage that knows what of it may not be on disk.
#[derive(Debug)]
pub(super) struct Tracked {
    inner: Box<dyn StorageBackend>,
    unsynced: Unsynced,
    /// An earlier opening left something behind that must be written again before anything is read.
    unsettled: AtomicBool,
}

impl Tracked {
    pub(super) fn new(inner: Box<dyn StorageBackend>, unsynced: Unsynced) -> Self {
        Self {
            inner,
            unsettled: AtomicBool::new(!unsynced.is_empty()),
            unsynced,
        }
    }

    /// Writes anew what an earlier opening wrote and could not make durable, so that what is read from here on is what
    /// the next good `fsync` puts on disk. redb reads only once it holds the lock, so nobody else writes here.
    fn settle(&self) -> io::Result<()> {
        if !self.unsettled.load(Ordering::Acquire) {
            return Ok(());
        }
        let end = self.inner.len()?;
        for (offset, length) in self.unsynced.take() {
            // Back on the list first: whatever fails below, it must not be forgotten.
            self.unsynced.add(offset, length);
            let length = length.min(end.saturating_sub(offset));
            let mut buffer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            self.inner.read(offset, &mut buffer)?;
            self.inner.write(offset, &buffer)?;
        }
        self.sync()?;
        self.unsettled.store(false, Ordering::Release);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        // What is written while this runs may or may not be covered: it stays on the list for the next one.
        let covered = self.unsynced.take();
        let result = self.inner.sync_data();
        if result.is_err() {
            for (offset, length) in covered {
                self.unsynced.add(offset, length);
            }
        }
        result
    }
}

impl StorageBackend for Tracked {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.settle()?;
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A write that fails is not remembered: redb refers to a page only after it was written.
        self.inner.write(offset, data)?;
        self.unsynced.add(offset, data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
