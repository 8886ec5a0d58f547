//! Following a machine's file: what runs notices a fault that another process applied, or a state that was put back.
//!
//! `machine.json` is always replaced by renaming, so a changed file is another file. It costs one `stat` to ask.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;

use crate::{Machine, SimteeError};

/// The newest state of a machine, as far as its file says.
#[derive(Debug)]
pub(crate) struct Follower<M> {
    origin: M,
    newer: Option<Machine>,
    seen: Option<Stamp>,
}

/// What tells one file from the file that replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl<M: Deref<Target = Machine>> Follower<M> {
    /// Follows the file of this machine.
    pub(crate) fn of(origin: M) -> Self {
        Self {
            origin,
            newer: None,
            seen: None,
        }
    }

    /// The machine as its file has it now. If the file is gone, the machine as it was last seen: hardware does not vanish
    /// with a file.
    ///
    /// # Errors
    ///
    /// Those of [`Machine::load`], and [`SimteeError::OtherMachine`] if the file is that of another machine now.
    pub(crate) fn current(&mut self) -> Result<&Machine, SimteeError> {
        let path = self.origin.file();
        let found = match std::fs::metadata(&path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(self.last()),
            Err(error) => return Err(SimteeError::io("look at", path)(error)),
        };
        if self.seen != Some(found) {
            // The file may be replaced once more before it is read; then the stamp is too old and it is read again.
            let loaded = Machine::load(self.origin.directory())?;
            if loaded.trust_domain() != self.origin.trust_domain() {
                return Err(SimteeError::OtherMachine { path });
            }
            (self.newer, self.seen) = (Some(loaded), Some(found));
        }
        Ok(self.last())
    }

    fn last(&self) -> &Machine {
        self.newer.as_ref().unwrap_or(&self.origin)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
