//! Why the log cannot be used, and what to do about it.

use sesemi_attest::sealing::SealError;
use sesemi_protocol::cbor::CborError;

use super::Point;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has the database open.
    #[error(
        "the state folder is in use by another KeyService; stop that one, or choose another folder"
    )]
    InUse,
    /// The database file cannot be opened.
    #[error("the state database cannot be opened: {0}; check the folder and its permissions")]
    Storage(std::io::Error),
    /// The database cannot be read or written.
    #[error("the state database failed: {0}; check the disk, then restart")]
    Database(Box<redb::Error>),
    /// The database is of another version, or of another program.
    #[error(
        "the state database has format {found}, this KeyService writes format {}; start the KeyService that wrote it, or choose another folder",
        super::FORMAT
    )]
    Format {
        /// The format that was found, in words.
        found: String,
    },
    /// An entry is missing.
    #[error(
        "the log has a gap: entry {expected} is missing, {found} comes next; run `sesemi keyservice restore` from a backup, or put back the database file that belongs here"
    )]
    Gap {
        /// The number that should come.
        expected: u64,
        /// What comes instead.
        found: Next,
    },
    /// An entry does not unseal.
    #[error(
        "log entry {sequence}: {source}; run `sesemi keyservice restore` from a backup, or check that the state key belongs to this folder"
    )]
    NotAuthentic {
        /// Its number.
        sequence: u64,
        /// What went wrong.
        source: SealError,
    },
    /// An entry is authentic, but continues another history than the entries before it.
    #[error(
        "log entry {sequence} belongs to another history than the entries before it: two copies of the state were mixed; run `sesemi keyservice restore` from a backup"
    )]
    OtherHistory {
        /// Its number.
        sequence: u64,
    },
    /// An entry is authentic, but not of a form that this version knows.
    #[error("log entry {sequence} cannot be read: {source}; it was written by another version")]
    Entry {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        source: CborError,
    },
    /// The log ends before the snapshot that was made of it.
    #[error(
        "the log is older than the snapshot: it ends with entry {log}, the snapshot was made at entry {snapshot}; an older database file was put back: put back the newest one, or run `sesemi keyservice restore` from a backup"
    )]
    OlderThanSnapshot {
        /// Last entry of the log.
        log: u64,
        /// Last entry in the snapshot.
        snapshot: u64,
    },
    /// The log went another way than the snapshot that was made of it.
    #[error(
        "the log is not the one that the snapshot at entry {0} was made of: the database file of another history was put back; put back the right one, or run `sesemi keyservice restore` from a backup"
    )]
    ForkedFromSnapshot(u64),
    /// What says where a snapshot ends is not consistent in itself.
    #[error("the snapshot's list of earlier states does not fit its place in the log")]
    Start,
    /// There is no such entry.
    #[error("there is no log entry {sequence}: the log ends with entry {last}")]
    NoEntry {
        /// The number asked for.
        sequence: u64,
        /// The last entry.
        last: u64,
    },
    /// Something is too long to be recorded.
    #[error("a log entry of {length} bytes is above the limit of {limit}; ask for less at once")]
    TooLarge {
        /// Length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An entry could not be sealed.
    #[error("a log entry could not be sealed: {0}")]
    Seal(SealError),
    /// The log cannot be written at present. Nothing of this batch was recorded, nor ever will be.
    #[error(
        "the log cannot be written: {cause}; nothing was changed: make room or repair the disk, then try again"
    )]
    Unwritable {
        /// Why.
        cause: String,
    },
    /// Writing failed, and what the disk has of the batch could not be removed yet: if the service ends before it could,
    /// the batch may be found at the next start. Nothing of it counts as acknowledged.
    #[error(
        "writing the log failed, and it is not known whether the change was kept: {cause}; repair the disk, then ask for the state before trying again"
    )]
    Uncertain {
        /// Why.
        cause: String,
    },
    /// The disk lost entries that it had confirmed, or another database is in its place.
    #[error(
        "the disk no longer has entry {} as it was acknowledged; run `sesemi keyservice restore` from a backup",
        .0.sequence
    )]
    Lost(Point),
    /// The database is closed after a failed write and cannot be opened again yet.
    #[error("the log cannot be read until the disk works again; repair the disk")]
    Unreadable,
}

/// What comes where an entry is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The entry of this number.
    Entry(u64),
    /// Nothing more.
    End,
}

impl core::fmt::Display for Next {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Entry(number) => write!(f, "entry {number}"),
            Self::End => f.write_str("nothing"),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for LogError {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Database(Box::new(other)),
        }
    }
}
