//! Restoring a backup to a new state folder. Nothing of it is used before all of it was read and found whole.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Database;
use ring::digest::{Context, SHA256};

use super::backup::{
    BackupError, DATABASE, END, Kind, MAGIC, MAX_FILES, MAX_RECORD, SNAPSHOTS, Summary, UNLOCK,
    file_error, is_unlock_name,
};
use super::entry::MAX_STORED;
use super::storage::{FileStorage, Storage, Unsynced, sync_folder};
use super::{FORMAT, database, snapshot};

/// Bytes of entries that are written at once.
const BATCH: usize = 4 * 1024 * 1024;
/// Longest name of a file, in bytes.
const MAX_NAME: usize = 128;

/// Makes the new state folder `folder` of the backup `input`. It must not exist, or be empty.
///
/// The folder is built beside its place, in `FOLDER.restoring`, and moved there once it is whole and on disk.
///
/// # Errors
/// [`BackupError`]; there is then no new folder.
pub fn read(input: impl Read, folder: &Path) -> Result<Summary, BackupError> {
    match fs::read_dir(folder).map(|mut items| items.next().is_some()) {
        Ok(true) => return Err(BackupError::NotEmpty(folder.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(file_error(folder)(error));
        }
        _ => {}
    }
    let unnamed = || file_error(folder)(io::ErrorKind::InvalidInput.into());
    let mut name = folder.file_name().ok_or_else(unnamed)?.to_owned();
    name.push(".restoring");
    let building = folder.with_file_name(name);
    // Not removed if it is there: whose it is cannot be known.
    fs::create_dir(&building).map_err(file_error(&building))?;
    let result = build(input, &building).and_then(|summary| {
        fs::rename(&building, folder).map_err(file_error(folder))?;
        sync_folder(folder.parent()).map_err(file_error(folder))?;
        Ok(summary)
    });
    if result.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&building);
    }
    result
}

fn build(input: impl Read, folder: &Path) -> Result<Summary, BackupError> {
    let mut records = Records::new(input)?;
    for sub in [UNLOCK, SNAPSHOTS] {
        let path = folder.join(sub);
        fs::create_dir(&path).map_err(file_error(&path))?;
    }
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(folder.join(DATABASE)));
    let mut building = Building {
        folder,
        database: database::open(&*storage, &Unsynced::default())?,
        file: None,
        files: 0,
        entries: 0,
        batch: Vec::new(),
        pending: 0,
    };
    while let Some((kind, content)) = records.next()? {
        building.take(kind, content)?;
    }
    let summary = building.finish()?;
    if summary.entries != records.entries {
        return Err(BackupError::Damaged("the number of entries is wrong"));
    }
    for path in [folder.join(UNLOCK), folder.join(SNAPSHOTS), folder.into()] {
        sync_folder(Some(&path)).map_err(file_error(&path))?;
    }
    Ok(summary)
}

/// A state folder that is being built.
struct Building<'a> {
    folder: &'a Path,
    database: Database,
    file: Option<(PathBuf, File)>,
    files: usize,
    entries: u64,
    batch: Vec<Vec<u8>>,
    /// Bytes in the batch.
    pending: usize,
}

impl Building<'_> {
    fn take(&mut self, kind: Kind, content: &[u8]) -> Result<(), BackupError> {
        match kind {
            Kind::File => {
                self.close_file()?;
                let path = self.folder.join(name(content)?);
                self.files = self.files.saturating_add(1);
                if self.files > MAX_FILES {
                    return Err(BackupError::Damaged("it has too many files"));
                }
                let file = File::create_new(&path).map_err(file_error(&path))?;
                self.file = Some((path, file));
                Ok(())
            }
            Kind::Content => {
                let (path, file) = self
                    .file
                    .as_mut()
                    .ok_or(BackupError::Damaged("content belongs to no file"))?;
                file.write_all(content).map_err(file_error(path))
            }
            Kind::Entry if content.len() > MAX_STORED => {
                Err(BackupError::Damaged("an entry is too long"))
            }
            Kind::Entry => {
                self.close_file()?;
                self.pending = self.pending.saturating_add(content.len());
                self.batch.push(content.to_vec());
                if self.pending >= BATCH {
                    self.write_batch()?;
                }
                Ok(())
            }
            Kind::End => Ok(()),
        }
    }

    fn write_batch(&mut self) -> Result<(), BackupError> {
        let first = self.entries.saturating_add(1);
        self.entries = self.entries.saturating_add(self.batch.len() as u64);
        self.pending = 0;
        Ok(database::append(
            &self.database,
            first,
            self.batch.drain(..),
        )?)
    }

    fn close_file(&mut self) -> Result<(), BackupError> {
        match self.file.take() {
            Some((path, file)) => file.sync_all().map_err(file_error(&path)),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Summary, BackupError> {
        self.close_file()?;
        self.write_batch()?;
        self.database.close().map_err(super::LogError::from)?;
        Ok(Summary {
            entries: self.entries,
            files: self.files,
        })
    }
}

/// Checks a file's name: only names that a backup has lead anywhere.
fn name(content: &[u8]) -> Result<&str, BackupError> {
    let known = |name: &&str| match name.split_once('/') {
        Some((UNLOCK, file)) => is_unlock_name(file),
        Some((SNAPSHOTS, file)) => snapshot::is_name(file),
        _ => false,
    };
    core::str::from_utf8(content)
        .ok()
        .filter(|name| name.len() <= MAX_NAME)
        .filter(known)
        .ok_or(BackupError::Damaged("a file has an unknown name"))
}

/// Reads records, and checks at the end that all of them were read as written.
struct Records<R> {
    input: R,
    digest: Context,
    content: Vec<u8>,
    /// Number of entries, as the last record says.
    entries: u64,
}

impl<R: Read> Records<R> {
    fn new(mut input: R) -> Result<Self, BackupError> {
        let mut head = [0; MAGIC.len() + 4];
        fill(&mut input, &mut head)?;
        let mut digest = Context::new(&SHA256);
        digest.update(&head);
        if head.strip_prefix(MAGIC) != Some(&FORMAT.to_be_bytes()) {
            return Err(BackupError::NotABackup);
        }
        Ok(Self {
            input,
            digest,
            content: Vec::with_capacity(MAX_RECORD),
            entries: 0,
        })
    }

    /// The next record; `None` after the last one, once it is sure that nothing is missing or damaged.
    fn next(&mut self) -> Result<Option<(Kind, &[u8])>, BackupError> {
        let mut head = [0; 5];
        fill(&mut self.input, &mut head)?;
        let [kind, length @ ..] = head;
        let kind = [Kind::File, Kind::Content, Kind::Entry, Kind::End]
            .into_iter()
            .find(|known| *known as u8 == kind)
            .ok_or(BackupError::Damaged("a record of unknown kind"))?;
        let length = usize::try_from(u32::from_be_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_RECORD && (kind != Kind::End || *length == END))
            .ok_or(BackupError::Damaged("a record has an impossible length"))?;
        self.content.resize(length, 0);
        fill(&mut self.input, &mut self.content)?;
        if kind == Kind::End {
            self.check_end()?;
            return Ok(None);
        }
        self.digest.update(&head);
        self.digest.update(&self.content);
        Ok(Some((kind, &self.content)))
    }

    fn check_end(&mut self) -> Result<(), BackupError> {
        let (entries, digest) = self
            .content
            .split_first_chunk::<8>()
            .ok_or(BackupError::CutShort)?;
        if digest != self.digest.clone().finish().as_ref() {
            return Err(BackupError::Damaged("its checksum is wrong"));
        }
        self.entries = u64::from_be_bytes(*entries);
        let mut more = [0; 1];
        match self.input.read(&mut more).map_err(BackupError::Stream)? {
            0 => Ok(()),
            _ => Err(BackupError::Damaged("there is more after its end")),
        }
    }
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), BackupError> {
    input.read_exact(buffer).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            BackupError::CutShort
        } else {
            BackupError::Stream(error)
        }
    })
}
