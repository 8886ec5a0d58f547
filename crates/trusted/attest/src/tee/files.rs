//! The few operations on a TEE's device files, behind one trait, so that tests can play a kernel that misbehaves. Whatever
//! is read is bounded before it is kept.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Longest content of a file that holds a name or a number, in bytes.
const MAX_TEXT: usize = 64;

/// What a TEE's device files are used with.
pub trait Files: Send + Sync {
    /// Makes a directory; in configfs the kernel fills it with files.
    ///
    /// # Errors
    /// The operating system's.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory, which in configfs takes its files with it.
    ///
    /// # Errors
    /// The operating system's.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Opens a file that exists for reading, from its beginning.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>>;

    /// Writes `bytes` to a file that exists, all in one system call.
    ///
    /// # Errors
    /// The operating system's; [`ErrorKind::WriteZero`] if not all was taken.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// The real files.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().create(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        Ok(Box::new(File::open(path)?))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        loop {
            // Not `write_all`: such a file takes each system call for a whole value.
            match file.write(bytes) {
                Ok(taken) if taken == bytes.len() => return Ok(()),
                Ok(_) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The content of a file, or `None` if it is longer than `limit` bytes.
pub(super) fn read(files: &dyn Files, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let more = u64::try_from(limit.saturating_add(1)).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    files.open(path)?.take(more).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The content of a file that holds a name or a number, or `None` if it holds something else.
pub(super) fn read_text(files: &dyn Files, path: &Path) -> io::Result<Option<String>> {
    Ok(read(files, path, MAX_TEXT)?
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(|text| text.trim().to_owned()))
}

/// A key of exactly `N` bytes, or `None` if the file has another length. The key is in no buffer that is not wiped.
pub(super) fn read_key<const N: usize>(
    files: &dyn Files,
    path: &Path,
) -> io::Result<Option<Zeroizing<[u8; N]>>> {
    let mut key = Zeroizing::new([0; N]);
    let mut file = files.open(path)?;
    match file.read_exact(&mut *key) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut more = Zeroizing::new([0; 1]);
    match file.read_exact(&mut *more) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Some(key)),
        Err(error) => Err(error),
        Ok(()) => Ok(None),
    }
}
