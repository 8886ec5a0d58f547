//! The log's tables in redb: `entries`, number to stored value, and `meta`, which says the format.
//!
//! Commits are redb's plain ones: one `fsync` each. Its *quick repair* would make reopening after a crash immediate, but needs two
//! `fsync`s and more pages a commit; without it reopening walks the file, which is short next to replaying it. The walk
//! is done at every opening, also after a clean end, because redb may panic on a file that was damaged and that it
//! did not walk.

use std::io;
use std::ops::Bound;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase as _,
    ReadableTable, ReadableTableMetadata as _, StorageBackend, StorageError, TableDefinition,
    TableHandle as _,
};

use super::error::Next;
use super::overlay::Overlay;
use super::storage::{Access, Storage, Tracked, Unsynced};
use super::{FORMAT, LogError};

pub(super) const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
/// Length of redb's magic number, in bytes.
const MAGIC: u64 = 9;
/// Length of redb's first page, in bytes.
const FIRST_PAGE: u64 = 4096;
/// Longest file that can be one that was never finished, in bytes: redb begins with about one MiB.
const MAX_UNFINISHED: u64 = 4 * 1024 * 1024;
/// Memory for pages, in bytes. The log is written at its end and read there: more would be of no use.
const CACHE: usize = 64 * 1024 * 1024;

/// Opens the database for reading and writing, repairs it if need be, and formats it if it is fresh.
pub(super) fn open(storage: &dyn Storage, unsynced: &Unsynced) -> Result<Database, LogError> {
    let create = || {
        let backend = storage.open(Access::Write).map_err(LogError::Storage)?;
        let tracked = Tracked::new(backend, unsynced.clone());
        Ok::<_, LogError>(builder().create_with_backend(tracked))
    };
    let database = match create()? {
        Err(error) if is_no_database(&error) => {
            if !discard_unfinished(storage).map_err(LogError::Storage)? {
                return Err(error.into());
            }
            tracing::warn!("the log's file was never made to its end; it is made anew");
            create()??
        }
        created => created?,
    };
    let known = stored_format(&database)?;
    match known.as_deref() {
        Some(format) if format == FORMAT.to_be_bytes() => {}
        Some(format) => return Err(unknown(format)),
        None => write_format(&database)?,
    }
    Ok(database)
}

/// Whether there is a file, and redb does not take it for one of its own.
fn is_no_database(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData)
}

/// Empties a file that a crash left while it was being made: redb writes its magic number last, and nothing but the first page
/// before. A file that holds anything else is left as it is.
fn discard_unfinished(storage: &dyn Storage) -> io::Result<bool> {
    let backend = storage.open(Access::Write)?;
    // Somebody else may be making it just now.
    let whole = (Bound::Unbounded, Bound::Unbounded);
    if matches!(backend.try_lock_range(whole.0, whole.1), Ok(false)) {
        return Ok(false);
    }
    let length = backend.len()?;
    let magic = MAGIC.min(length);
    let unfinished = length <= MAX_UNFINISHED
        && is_zero(&*backend, 0, magic)?
        && is_zero(&*backend, FIRST_PAGE.min(length), length)?;
    if unfinished {
        backend.set_len(0)?;
        backend.sync_data()?;
    }
    backend.close()?;
    Ok(unfinished)
}

/// Whether there are only zeros from `start` to `end`.
fn is_zero(backend: &dyn StorageBackend, start: u64, end: u64) -> io::Result<bool> {
    let length = usize::try_from(end.saturating_sub(start)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    backend.read(start, &mut bytes)?;
    Ok(bytes.iter().all(|byte| *byte == 0))
}

/// Opens the database as the disk has it, without writing to the disk.
pub(super) fn open_unwritten(storage: &dyn Storage) -> Result<Database, LogError> {
    let overlay = storage
        .open(Access::Read)
        .and_then(Overlay::new)
        .map_err(LogError::Storage)?;
    Ok(builder().create_with_backend(overlay)?)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}

/// The stored format; `None` for a database without any table.
fn stored_format(database: &Database) -> Result<Option<Vec<u8>>, LogError> {
    let read = database.begin_read()?;
    let mut tables = read.list_tables()?.peekable();
    if tables.peek().is_none() {
        return Ok(None);
    }
    if !tables.any(|table| table.name() == META.name()) {
        return Err(unknown(&[]));
    }
    let table = read.open_table(META)?;
    let format = table.get(FORMAT_KEY)?;
    Ok(Some(
        format
            .map(|format| format.value().to_vec())
            .unwrap_or_default(),
    ))
}

fn unknown(format: &[u8]) -> LogError {
    let found = match <[u8; 4]>::try_from(format) {
        Ok(bytes) => u32::from_be_bytes(bytes).to_string(),
        Err(_) => "1 or none".to_owned(),
    };
    LogError::Format { found }
}

fn write_format(database: &Database) -> Result<(), LogError> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.open_table(ENTRIES)?;
    write
        .open_table(META)?
        .insert(FORMAT_KEY, FORMAT.to_be_bytes().as_slice())?;
    Ok(write.commit()?)
}

/// Appends values from number `first` on; returns once they are durable.
pub(super) fn append(
    database: &Database,
    first: u64,
    values: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<(), LogError> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    {
        let mut table = write.open_table(ENTRIES)?;
        let mut sequence = first;
        for value in values {
            table.insert(sequence, value.as_ref())?;
            sequence = sequence.saturating_add(1);
        }
    }
    Ok(write.commit()?)
}

/// Removes, durably, every entry after number `last`.
pub(super) fn trim(database: &Database, last: u64) -> Result<(), LogError> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write
        .open_table(ENTRIES)?
        .retain_in(last.saturating_add(1).., |_, _| false)?;
    Ok(write.commit()?)
}

/// Number of the last entry. The first is 1, and there are as many as the last one's number.
pub(super) fn last(read: &ReadTransaction) -> Result<u64, LogError> {
    let table = read.open_table(ENTRIES)?;
    let first = table.first()?.map_or(1, |(key, _)| key.value());
    if first != 1 {
        return Err(LogError::Gap {
            expected: 1,
            found: Next::Entry(first),
        });
    }
    let last = table.last()?.map_or(0, |(key, _)| key.value());
    if table.len()? == last {
        return Ok(last);
    }
    Err(first_gap(&table)?)
}

/// Finds where entries are missing.
fn first_gap(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<LogError, LogError> {
    let mut expected = 1;
    for item in table.iter()? {
        let found = item?.0.value();
        if found != expected {
            return Ok(LogError::Gap {
                expected,
                found: Next::Entry(found),
            });
        }
        expected = expected.saturating_add(1);
    }
    Ok(LogError::Gap {
        expected,
        found: Next::End,
    })
}

/// Hands the stored values of entries `first` to `last` to `each`, with their numbers, without a gap.
pub(super) fn walk<E: From<LogError>>(
    read: &ReadTransaction,
    first: u64,
    last: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if first > last {
        return Ok(());
    }
    let table = read.open_table(ENTRIES).map_err(LogError::from)?;
    let mut expected = first;
    for item in table.range(first..=last).map_err(LogError::from)? {
        let (key, value) = item.map_err(LogError::from)?;
        let found = key.value();
        if found != expected {
            let found = Next::Entry(found);
            return Err(LogError::Gap { expected, found }.into());
        }
        each(found, value.value())?;
        expected = expected.saturating_add(1);
    }
    if expected <= last {
        let found = Next::End;
        return Err(LogError::Gap { expected, found }.into());
    }
    Ok(())
}
