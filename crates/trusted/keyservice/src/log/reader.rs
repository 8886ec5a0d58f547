//! Reading the log at random, from any thread, while it is written.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, ReadTransaction, ReadableDatabase as _};
use sesemi_attest::sealing::Sealer;
use sesemi_protocol::Digest;

use super::milestones::{Recent, Start};
use super::{LogError, Opened, Point, database, entry};

/// What the writer and the readers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Held for the whole of an append, also while it mends the database.
    pub(super) appending: Mutex<()>,
    /// The log's end as far as it is acknowledged, and how it came there. By itself, so that it can be asked while a failing disk
    /// keeps the database closed. Whoever needs both takes this first: the database has all that was acknowledged before.
    known: RwLock<Start>,
    recent: RwLock<Recent>,
    published: RwLock<Published>,
}

/// What readers see of the disk.
#[derive(Debug)]
pub(super) struct Published {
    /// `None` while a failed one cannot even be read.
    pub(super) database: Option<Database>,
    /// Opens and seals the entries.
    pub(super) sealer: Arc<Sealer>,
}

impl Shared {
    pub(super) fn new(database: Database, known: Start, recent: Recent, sealer: Sealer) -> Self {
        let published = Published {
            database: Some(database),
            sealer: Arc::new(sealer),
        };
        Self {
            appending: Mutex::new(()),
            known: RwLock::new(known),
            recent: RwLock::new(recent),
            published: RwLock::new(published),
        }
    }

    pub(super) fn known(&self) -> RwLockReadGuard<'_, Start> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges entries.
    pub(super) fn acknowledge(&self, points: &[Point]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        points.iter().for_each(|point| known.push(*point));
        drop(known);
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        points.iter().for_each(|point| recent.push(*point));
    }

    /// The chain at one of the last entries.
    fn recent(&self, sequence: u64) -> Option<Digest> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        recent.chain_at(sequence)
    }

    pub(super) fn look(&self) -> RwLockReadGuard<'_, Published> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self) -> RwLockWriteGuard<'_, Published> {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this log has been where somebody else saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// The point is one of this log's.
    Same,
    /// This log does not go as far: the service was rolled back, or the point is made up.
    Behind,
    /// This log had another entry there.
    Forked,
}

/// Reads the log. Cheap to clone, for any thread; goes on while the log is written, and when it can no longer be.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) shared: Arc<Shared>,
}

/// The log as it is at one moment.
pub(super) struct View {
    pub(super) read: ReadTransaction,
    pub(super) known: Start,
    pub(super) sealer: Arc<Sealer>,
}

impl Reader {
    /// The log's end, as far as it is acknowledged.
    #[must_use]
    pub fn point(&self) -> Point {
        self.shared.known().point()
    }

    /// Reads entry `sequence`, at the cost of verifying up to 32 entries around it.
    ///
    /// # Errors
    /// [`LogError::NoEntry`] if there is none of this number, [`LogError`] if it cannot be read or is not the one that this log had
    /// there.
    pub fn read(&self, sequence: u64) -> Result<Opened, LogError> {
        let entries = self.retrying(|| {
            let (view, from, to) = self.around(sequence)?;
            verified(&view, from, to)
        })?;
        entries
            .into_iter()
            .find(|entry| entry.sequence == sequence)
            .ok_or(LogError::NoEntry {
                sequence,
                last: self.point().sequence,
            })
    }

    /// Says whether `point` is one of this log's.
    ///
    /// # Errors
    /// [`LogError`] if the log cannot be read there.
    pub fn agrees(&self, point: Point) -> Result<Agreement, LogError> {
        match self.recalls(point) {
            Some(agreement) => Ok(agreement),
            None => Ok(compared(
                self.read(point.sequence)?.chain_after,
                point.chain,
            )),
        }
    }

    /// The same from memory, for a point that is beyond the log's end, or of which the chain is known without the disk: the
    /// start, every 32nd entry and the last ones. Never waits for the disk. `None` for any other point.
    #[must_use]
    pub fn recalls(&self, point: Point) -> Option<Agreement> {
        let known = self.shared.known();
        if point.sequence > known.point().sequence {
            return Some(Agreement::Behind);
        }
        let chain = known.chain_at(point.sequence);
        drop(known);
        let chain = chain.or_else(|| self.shared.recent(point.sequence))?;
        Some(compared(chain, point.chain))
    }

    /// Hands entries `first` to `last` to `each`, in order, each verified as by [`Reader::read`] but cheaper, from one consistent view.
    ///
    /// # Errors
    /// [`LogError`], or whatever `each` refuses.
    pub fn scan<E: From<LogError>>(
        &self,
        first: u64,
        last: u64,
        mut each: impl FnMut(Opened) -> Result<(), E>,
    ) -> Result<(), E> {
        let View {
            read,
            known,
            sealer,
        } = self.view()?;
        let entries = Entries { read, sealer };
        let mut next = first;
        while next <= last {
            let (from, to) = known.around(next)?;
            for entry in verified(&entries, from, to)? {
                if (next..=last).contains(&entry.sequence) {
                    each(entry)?;
                }
            }
            next = to.sequence.saturating_add(1);
        }
        Ok(())
    }

    /// Verifies the whole chain, from the first entry to the last; calls `progress` now and then with how many are done and how many
    /// there are.
    ///
    /// # Errors
    /// [`LogError`] for the first entry that is missing, damaged or not this log's.
    pub fn verify_all(&self, mut progress: impl FnMut(u64, u64)) -> Result<Point, LogError> {
        let end = self.point();
        self.scan(1, end.sequence, |entry| {
            if entry.sequence.is_multiple_of(super::PROGRESS) {
                progress(entry.sequence, end.sequence);
            }
            Ok::<(), LogError>(())
        })?;
        Ok(end)
    }

    /// One consistent view of everything.
    pub(super) fn view(&self) -> Result<View, LogError> {
        self.retrying(|| {
            let known = self.shared.known().clone();
            let published = self.shared.look();
            let database = published.database.as_ref().ok_or(LogError::Unreadable)?;
            Ok(View {
                read: database.begin_read()?,
                known,
                sealer: published.sealer.clone(),
            })
        })
    }

    /// What reads the entries between the two known points around an entry.
    fn around(&self, sequence: u64) -> Result<(Entries, Point, Point), LogError> {
        let (from, to) = self.shared.known().around(sequence)?;
        let published = self.shared.look();
        let database = published.database.as_ref().ok_or(LogError::Unreadable)?;
        let entries = Entries {
            read: database.begin_read()?,
            sealer: published.sealer.clone(),
        };
        Ok((entries, from, to))
    }

    /// A write that fails closes the database under its readers: they wait until the writer has opened it again, and
    /// read once more, while nothing is written that could fail and close it again.
    fn retrying<T>(&self, read: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
        match read() {
            Err(LogError::Database(_)) => {
                let _no_write_now = self
                    .shared
                    .appending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                read()
            }
            other => other,
        }
    }
}

fn compared(chain: Digest, seen: Digest) -> Agreement {
    if chain == seen {
        Agreement::Same
    } else {
        Agreement::Forked
    }
}

/// Entries as they are stored at one moment, and what opens them.
struct Entries {
    read: ReadTransaction,
    sealer: Arc<Sealer>,
}

/// The entries between two known points, if the chain leads from the one to the other.
fn verified(entries: &Entries, from: Point, to: Point) -> Result<Vec<Opened>, LogError> {
    let mut opened = Vec::new();
    let mut at = from;
    let first = from.sequence.saturating_add(1);
    database::walk(&entries.read, first, to.sequence, |sequence, value| {
        let entry = follow(&entries.sealer, at, sequence, value)?;
        at = entry.point();
        opened.push(entry);
        Ok::<(), LogError>(())
    })?;
    if at == to {
        Ok(opened)
    } else {
        Err(LogError::OtherHistory {
            sequence: to.sequence,
        })
    }
}

/// Opens the entry that comes after `before`.
pub(super) fn follow(
    sealer: &Sealer,
    before: Point,
    sequence: u64,
    value: &[u8],
) -> Result<Opened, LogError> {
    let entry = entry::open(sealer, sequence, value)?;
    if entry.chain_before == before.chain {
        Ok(entry)
    } else {
        Err(LogError::OtherHistory { sequence })
    }
}
