//! The file: whole lines, and no more of them than the operator has room for.
//!
//! Whoever may send requests decides how many spans there are, so the file's length is bounded. It is asked for before each line,
//! and not counted along: whoever turns the file over (`copytruncate`) shortens it behind this process's back, and so gives the room
//! back.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use crate::export::TracesError;

/// What lines are appended to.
pub trait Sink: Write {
    /// How long it is now, in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> std::io::Result<u64>;
}

impl Sink for File {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Whole lines. What a failed write left of one is ended before the next, so that it costs no other line.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    whole: bool,
    max_bytes: u64,
}

impl Lines<File> {
    /// Opens a file, or makes one, and looks whether it ends with a whole line.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self, TracesError> {
        let failed = |source| TracesError::Open {
            path: path.to_owned(),
            source,
        };
        // A pipe would be waited for until somebody reads it.
        if path.exists() && !path.is_file() {
            return Err(TracesError::NoFile(path.to_owned()));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        let mut last = [b'\n'];
        if file.length().map_err(failed)? > 0 {
            file.seek(SeekFrom::End(-1)).map_err(failed)?;
            file.read_exact(&mut last).map_err(failed)?;
        }
        Ok(Self::new(file, last == *b"\n", max_bytes))
    }
}

impl<W: Sink> Lines<W> {
    /// Lines after what `out` has, which ends with a whole one or does not, up to a length of `max_bytes`.
    pub fn new(out: W, whole: bool, max_bytes: u64) -> Self {
        Self {
            out,
            whole,
            max_bytes,
        }
    }

    /// Appends a line, or fails with [`ErrorKind::FileTooLarge`] if there is no room for it.
    pub(crate) fn put(&mut self, line: &str) -> std::io::Result<()> {
        let end_of_last = if self.whole { "" } else { "\n" };
        let more = line.len().saturating_add(end_of_last.len());
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if self.out.length()?.saturating_add(more) > self.max_bytes {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.out.write_all(end_of_last.as_bytes())?;
        self.whole = false;
        // More than one call if the system takes a part of it only. That is why a file belongs to one process.
        self.out.write_all(line.as_bytes())?;
        self.out.flush()?;
        self.whole = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
