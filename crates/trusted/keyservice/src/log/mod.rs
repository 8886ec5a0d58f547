//! The log: everything that KeyService decided or recorded, sealed, chained by hash, and on disk before it is acknowledged.
//!
//! What an entry means is not known here: it is a public part and perhaps a secret one. Entry *n* is sealed to its place,
//! its number and the digest of the chain before it, so that entries cannot be swapped, dropped from the middle or mixed
//! from two histories; opening the log replays it and stops at the first that does not fit. Cutting off the end cannot be
//! seen from the log alone: a [`snapshot`] that goes further shows it, and so do the [`Point`]s that clients hold.
//!
//! - [`Log`] appends, many entries in one durable write, and mends the database after a write that failed;
//! - [`Reader`] reads at random from any thread, and tells whether a [`Point`] is one of this log's;
//! - [`snapshot`] keeps the state that a log amounts to, so that a start replays only what came after;
//! - [`backup`] copies a running log, and [`restore`] makes a state folder of the copy; neither needs a key.

pub mod backup;
mod database;
mod entry;
mod error;
mod milestones;
mod overlay;
mod reader;
pub mod restore;
pub mod snapshot;
mod storage;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _};
use sesemi_attest::sealing::Sealer;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{Entropy, SecretKey};

pub use entry::{Draft, MAX_PUBLIC, MAX_SECRET, Opened};
pub use error::{LogError, Next};
pub use milestones::Start;
pub use reader::{Agreement, Reader};
pub use storage::{Access, FileStorage, Storage};

use milestones::Recent;
use reader::{Shared, follow};
use storage::Unsynced;

/// Format of the database, of snapshots and of backups.
pub const FORMAT: u32 = 2;
/// Entries between two reports of progress.
pub const PROGRESS: u64 = 100_000;
/// How long the log waits after a failed write before it tries the disk again: opening a large database takes a while.
const PAUSE: Duration = Duration::from_secs(1);

/// The open log: the one writer.
#[derive(Debug)]
pub struct Log {
    storage: Arc<dyn Storage>,
    unsynced: Unsynced,
    reader: Reader,
    failure: Option<Failure>,
}

/// What a write failed with.
#[derive(Debug)]
struct Failure {
    cause: String,
    /// When the disk may be tried again.
    retry: Instant,
    /// Whether the database was opened again for writing, without what failed.
    mended: bool,
}

impl Log {
    /// Opens the log, or makes an empty one: verifies it from `from` on and hands each entry after it to `replay`.
    ///
    /// `key` is the state key; `from` says where a snapshot ends, [`Start::ORIGIN`] is before the first entry. Of entries before it
    /// only the number is checked; [`Reader::verify_all`] reads them. `progress` is called every [`PROGRESS`] entries with the
    /// number of the last one that was replayed and of the last one there is.
    ///
    /// # Errors
    /// [`LogError`], or whatever `replay` refuses.
    pub fn open<E: From<LogError>>(
        storage: Arc<dyn Storage>,
        key: &SecretKey,
        from: Start,
        mut progress: impl FnMut(u64, u64),
        mut replay: impl FnMut(Opened) -> Result<(), E>,
    ) -> Result<Self, E> {
        let sealer = Sealer::new(key, "keyservice/log").map_err(LogError::Seal)?;
        let unsynced = Unsynced::default();
        let database = database::open(&*storage, &unsynced)?;
        let (mut known, mut recent) = (from, Recent::default());
        let read = database.begin_read().map_err(LogError::from)?;
        let last = database::last(&read)?;
        check_contains(&read, &sealer, known.point(), last)?;
        let first = known.point().sequence.saturating_add(1);
        database::walk(&read, first, last, |sequence, value| {
            let entry = follow(&sealer, known.point(), sequence, value)?;
            known.push(entry.point());
            recent.push(entry.point());
            if sequence.is_multiple_of(PROGRESS) {
                progress(sequence, last);
            }
            replay(entry)
        })?;
        drop(read);
        Ok(Self {
            storage,
            unsynced,
            reader: Reader {
                shared: Arc::new(Shared::new(database, known, recent, sealer)),
            },
            failure: None,
        })
    }

    /// The log's end, as far as it is acknowledged.
    #[must_use]
    pub fn point(&self) -> Point {
        self.reader.point()
    }

    /// The log's end and how it came there: what a snapshot of the state at this moment is stored with.
    #[must_use]
    pub fn start(&self) -> Start {
        self.reader.shared.known().clone()
    }

    /// Reads this log from any thread.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Why the log cannot be written at present.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.cause.as_str())
    }

    /// Appends `batch` in one durable write and returns, once it is on disk, the log's end after each of its entries.
    ///
    /// After a write that failed the log opens its database anew and removes what was not acknowledged. It then refuses for a second,
    /// and as long as the disk does not work. An empty batch only tries whether it works again.
    ///
    /// # Errors
    /// [`LogError::Unwritable`], [`LogError::TooLarge`] or [`LogError::Seal`]: nothing of the batch was or will be recorded.
    /// [`LogError::Uncertain`]: nothing of it is acknowledged, but if the service ends before the disk works again the next
    /// start may find it.
    pub fn append(
        &mut self,
        batch: &[Draft],
        entropy: &dyn Entropy,
        now: Instant,
    ) -> Result<Vec<Point>, LogError> {
        let shared = Arc::clone(&self.reader.shared);
        let _appending = shared
            .appending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.mend(now)?;
        let mut end = self.point();
        let sealer = shared.look().sealer.clone();
        let first = end.sequence.saturating_add(1);
        let mut values = Vec::with_capacity(batch.len());
        let mut points = Vec::with_capacity(batch.len());
        for draft in batch {
            let (value, point) = entry::seal(&sealer, end, draft, entropy)?;
            values.push(value);
            points.push(point);
            end = point;
        }
        if values.is_empty() {
            return Ok(points);
        }
        let written = match &shared.look().database {
            Some(database) => database::append(database, first, &values),
            None => Err(LogError::Unreadable),
        };
        if let Err(error) = written {
            return Err(self.fail(&error, now));
        }
        shared.acknowledge(&points);
        Ok(points)
    }

    /// Seals the whole log anew under `key`, and appends `draft`, in one durable write: what was sealed before opens nothing of it
    /// any more. For a young log: everything is in memory meanwhile.
    ///
    /// # Errors
    /// As [`Log::append`]. If it is [`LogError::Uncertain`], the next start has to try both keys.
    pub fn rekey(
        &mut self,
        key: &SecretKey,
        draft: &Draft,
        entropy: &dyn Entropy,
        now: Instant,
    ) -> Result<Point, LogError> {
        let shared = Arc::clone(&self.reader.shared);
        let sealer = Sealer::new(key, "keyservice/log").map_err(LogError::Seal)?;
        let end = self.point();
        let mut values = Vec::new();
        let mut at = Point::START;
        self.reader.scan(1, end.sequence, |entry| {
            let draft = Draft {
                public: entry.public,
                secret: entry.secret,
            };
            let (value, point) = entry::seal(&sealer, at, &draft, entropy)?;
            at = point;
            values.push(value);
            Ok::<(), LogError>(())
        })?;
        let (value, point) = entry::seal(&sealer, at, draft, entropy)?;
        values.push(value);
        let _appending = shared
            .appending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.mend(now)?;
        let written = match &shared.look().database {
            Some(database) => database::append(database, 1, &values),
            None => Err(LogError::Unreadable),
        };
        if let Err(error) = written {
            return Err(self.fail(&error, now));
        }
        // In this order: what is acknowledged can be opened.
        shared.change().sealer = Arc::new(sealer);
        shared.acknowledge(&[point]);
        Ok(point)
    }

    /// After a failed write: tries at once to undo what it may have left.
    fn fail(&mut self, error: &LogError, now: Instant) -> LogError {
        let mut cause = error.to_string();
        let mended = match self.reopen() {
            Ok(()) => true,
            Err(again) => {
                cause = format!("{cause}; opening it again failed too: {again}");
                false
            }
        };
        self.failure = Some(Failure {
            cause: cause.clone(),
            retry: now.checked_add(PAUSE).unwrap_or(now),
            mended,
        });
        if mended {
            LogError::Unwritable { cause }
        } else {
            LogError::Uncertain { cause }
        }
    }

    /// Ends a failed state if it is time and the disk allows it.
    fn mend(&mut self, now: Instant) -> Result<(), LogError> {
        let Some(failure) = &self.failure else {
            return Ok(());
        };
        let cause = failure.cause.clone();
        if now < failure.retry {
            return Err(LogError::Unwritable { cause });
        }
        if !failure.mended
            && let Err(again) = self.reopen()
        {
            let cause = format!("opening the database again failed: {again}");
            self.failure = Some(Failure {
                cause: cause.clone(),
                retry: now.checked_add(PAUSE).unwrap_or(now),
                mended: false,
            });
            return Err(LogError::Unwritable { cause });
        }
        self.failure = None;
        Ok(())
    }

    /// Opens the database anew and removes what was never acknowledged. If it cannot be written, readers get it as the disk has
    /// it. They wait meanwhile; the log's end they can still ask.
    fn reopen(&mut self) -> Result<(), LogError> {
        let mut published = self.reader.shared.change();
        // redb refuses everything after an I/O error: only a closed and opened database is of use again.
        drop(published.database.take());
        let end = self.reader.shared.known().point();
        let opened = database::open(&*self.storage, &self.unsynced)
            .and_then(|database| cut(&database, &published.sealer, end).map(|()| database));
        let (database, result) = match opened {
            Ok(database) => (Some(database), Ok(())),
            Err(error) => (database::open_unwritten(&*self.storage).ok(), Err(error)),
        };
        published.database = database;
        result
    }
}

/// Removes the entries after `end`, once it is sure that the log is the same up to there.
fn cut(database: &Database, sealer: &Sealer, end: Point) -> Result<(), LogError> {
    let read = database.begin_read()?;
    let last = database::last(&read)?;
    check_contains(&read, sealer, end, last).map_err(|error| match error {
        LogError::OlderThanSnapshot { .. } | LogError::ForkedFromSnapshot(_) => LogError::Lost(end),
        other => other,
    })?;
    drop(read);
    if last > end.sequence {
        database::trim(database, end.sequence)?;
    }
    Ok(())
}

/// Whether the log, whose last entry is `last`, has been at `point`, as far as its entry there tells.
fn check_contains(
    read: &redb::ReadTransaction,
    sealer: &Sealer,
    point: Point,
    last: u64,
) -> Result<(), LogError> {
    if last < point.sequence {
        return Err(LogError::OlderThanSnapshot {
            log: last,
            snapshot: point.sequence,
        });
    }
    // Entries are numbered from 1: for the point before them there is none to look at.
    let first = point.sequence.max(1);
    database::walk(read, first, point.sequence, |sequence, value| {
        if entry::open(sealer, sequence, value)?.point() == point {
            Ok(())
        } else {
            Err(LogError::ForkedFromSnapshot(point.sequence))
        }
    })
}
