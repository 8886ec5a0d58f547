//! The files in which a kernel describes its machine, below a root that tests replace.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Most that is read of one file, in bytes. The flags of the first processor stand within.
const MAX_FILE: u64 = 64 * 1024;

/// A machine as its files show it.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

/// The first processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// As it calls itself.
    pub name: String,
    flags: Vec<String>,
}

impl Machine {
    /// The one that this program runs on.
    #[must_use]
    pub fn this() -> Self {
        Self::at("/")
    }

    /// One whose files are below this folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether it has this file or folder; the path is without its leading slash.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The beginning of a file, without white space around it.
    ///
    /// # Errors
    /// [`io::Error`] if it cannot be read.
    pub fn text(&self, path: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.root.join(path))?
            .take(MAX_FILE)
            .read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// Whether a module's parameter is on; `None` if the module is not there.
    #[must_use]
    pub fn parameter(&self, path: &str) -> Option<bool> {
        let value = self.text(path).ok()?;
        Some(matches!(value.as_str(), "Y" | "y" | "1"))
    }

    /// The folders directly below a path, in order; none if it cannot be read.
    #[must_use]
    pub fn folders(&self, path: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join(path));
        let mut found: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| Path::new(path).join(entry.file_name()))
            .collect();
        found.sort();
        found
    }

    /// The processor.
    ///
    /// # Errors
    /// [`io::Error`] if the kernel does not show it.
    pub fn processor(&self) -> io::Result<Processor> {
        let text = self.text("proc/cpuinfo")?;
        let field = |name: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
            pairs
                .find(|(key, _)| key.trim() == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let flags = field("flags").unwrap_or_default();
        Ok(Processor {
            name: field("model name").unwrap_or_else(|| "unknown".into()),
            flags: flags.split(' ').map(str::to_owned).collect(),
        })
    }
}

impl Processor {
    /// Whether the kernel shows this feature.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|it| it == flag)
    }
}
