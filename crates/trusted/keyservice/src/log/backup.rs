//! Backups: a consistent copy of a running service's state folder, as one stream.
//!
//! Everything in it is ciphertext, or wrapped under keys that are elsewhere, so it may go to the host and anywhere else; no key is
//! needed to make or to restore one. The stream is a magic, then records `kind (1 byte) || length (4, big-endian) || content`;
//! the last one holds the number of entries and the SHA-256 of all before it, so that a cut or damaged copy is noticed
//! before it is needed. That protects against accidents; against forgery there are the seals within.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::snapshot::{self, Header, SnapshotError};
use super::{FORMAT, LogError, Reader, database};

/// How a backup begins; the format follows, 4 bytes, big-endian.
pub(super) const MAGIC: &[u8; 16] = b"SeSeMI backup\n\0\0";
/// Longest content of a record, in bytes.
pub(super) const MAX_RECORD: usize = 1024 * 1024;
/// Length of the last record's content: number of entries, SHA-256.
pub(super) const END: usize = 8 + 32;
/// Most files besides the database.
pub(super) const MAX_FILES: usize = 4096;
/// Folders of the state folder whose files belong to a backup.
pub(super) const UNLOCK: &str = "unlock";
pub(super) const SNAPSHOTS: &str = "snapshots";
/// The database's name in the state folder.
pub const DATABASE: &str = "state.redb";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A file begins: its path in the state folder.
    File = 1,
    /// More of the file.
    Content = 2,
    /// The next entry's stored value.
    Entry = 3,
    /// The end.
    End = 4,
}

/// Why a backup cannot be made or restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Snapshots cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A file of the state folder cannot be read or written.
    #[error("{path}: {source}; check the disk and the folder's permissions")]
    File {
        /// Which one.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The backup itself cannot be written or read.
    #[error("the backup cannot be written or read: {0}")]
    Stream(io::Error),
    /// It is no backup, or one of another version.
    #[error("this is not a backup of format {FORMAT}")]
    NotABackup,
    /// It ends too early.
    #[error("the backup is cut short; take another one")]
    CutShort,
    /// It was changed on the way.
    #[error("the backup is damaged: {0}; take another one")]
    Damaged(&'static str),
    /// There is something already.
    #[error("{0} exists and is not empty; a backup is restored to a new folder")]
    NotEmpty(PathBuf),
    /// There are more files than a state folder has.
    #[error("there are more than {MAX_FILES} files in {0}; remove what does not belong there")]
    TooManyFiles(PathBuf),
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Entries of the log.
    pub entries: u64,
    /// Files besides it.
    pub files: usize,
}

/// Writes a consistent copy of the log that `reader` reads and of its state folder to `out`. Appends may go on meanwhile; the
/// database file grows more than usual until this returns.
///
/// # Errors
/// [`BackupError`]; what was written is then of no use.
pub fn write(reader: &Reader, folder: &Path, out: impl Write) -> Result<Summary, BackupError> {
    // First the log's end, then the files: a snapshot that was made in between goes too far and is left out.
    let view = reader.view()?;
    let last = view.known.point().sequence;
    let mut out = Records::new(out)?;
    let mut files = unlock_files(folder)?;
    let count = files.len();
    for (name, path) in files.drain(..) {
        let mut file = File::open(&path).map_err(file_error(&path))?;
        out.file(&name, &path, &mut file)?;
    }
    let snapshot = match newest_snapshot(&folder.join(SNAPSHOTS), last)? {
        Some((name, path, head, mut file)) => {
            out.file(&name, &path, &mut head.as_slice().chain(&mut file))?;
            1
        }
        None => 0,
    };
    database::walk(&view.read, 1, last, |_, value| {
        out.record(Kind::Entry, value)
    })?;
    out.end(last)?;
    Ok(Summary {
        entries: last,
        files: count.saturating_add(snapshot),
    })
}

/// Names and paths of the files by which the state key is unlocked.
fn unlock_files(folder: &Path) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let folder = folder.join(UNLOCK);
    let mut found = Vec::new();
    let items = match std::fs::read_dir(&folder) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(file_error(&folder)(error)),
    };
    for item in items {
        let path = item.map_err(file_error(&folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        // Others are half-written ones, or not ours.
        if let Some(name) = name.filter(|name| is_unlock_name(name)) {
            found.push((format!("{UNLOCK}/{name}"), path));
        }
        if found.len() >= MAX_FILES {
            return Err(BackupError::TooManyFiles(folder));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a file in the folder `unlock` is one of a service's: `recovery`, or a digest and `.tee`.
pub(super) fn is_unlock_name(name: &str) -> bool {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    name == "recovery"
        || name
            .strip_suffix(".tee")
            .is_some_and(|digest| digest.len() == 64 && digest.bytes().all(hex))
}

type OpenSnapshot = (String, PathBuf, [u8; snapshot::HEADER], File);

/// The newest snapshot that does not go beyond entry `last`.
fn newest_snapshot(folder: &Path, last: u64) -> Result<Option<OpenSnapshot>, BackupError> {
    if !folder.is_dir() {
        return Ok(None);
    }
    for path in snapshot::files(folder)? {
        // It may be gone: a newer one took its place.
        let Ok(mut file) = File::open(&path) else {
            continue;
        };
        let mut head = [0; snapshot::HEADER];
        let name = path.file_name().and_then(|name| name.to_str());
        let fits = file.read_exact(&mut head).is_ok()
            && Header::parse(&head).is_some_and(|header| header.point.sequence <= last);
        if let Some(name) = name.filter(|_| fits) {
            let name = format!("{SNAPSHOTS}/{name}");
            return Ok(Some((name, path, head, file)));
        }
    }
    Ok(None)
}

pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File {
        path: path.clone(),
        source,
    }
}

/// Writes records, and knows the digest of all of them.
struct Records<W> {
    out: W,
    digest: Context,
}

impl<W: Write> Records<W> {
    fn new(out: W) -> Result<Self, BackupError> {
        let mut records = Self {
            out,
            digest: Context::new(&SHA256),
        };
        records.write(MAGIC)?;
        records.write(&FORMAT.to_be_bytes())?;
        Ok(records)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.out.write_all(bytes).map_err(BackupError::Stream)
    }

    fn record(&mut self, kind: Kind, content: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(content.len())
            .ok()
            .filter(|_| content.len() <= MAX_RECORD)
            .ok_or(BackupError::Damaged("a record is too long"))?;
        self.write(&[kind as u8])?;
        self.write(&length.to_be_bytes())?;
        self.write(content)
    }

    fn file(&mut self, name: &str, path: &Path, file: &mut dyn Read) -> Result<(), BackupError> {
        self.record(Kind::File, name.as_bytes())?;
        let mut piece = Vec::with_capacity(MAX_RECORD);
        loop {
            piece.clear();
            file.take(MAX_RECORD as u64)
                .read_to_end(&mut piece)
                .map_err(file_error(path))?;
            if piece.is_empty() {
                return Ok(());
            }
            self.record(Kind::Content, &piece)?;
        }
    }

    fn end(mut self, entries: u64) -> Result<(), BackupError> {
        let digest = self.digest.clone().finish();
        let content = [entries.to_be_bytes().as_slice(), digest.as_ref()].concat();
        self.record(Kind::End, &content)?;
        self.out.flush().map_err(BackupError::Stream)
    }
}
