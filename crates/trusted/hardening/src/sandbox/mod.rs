//! Rights that a trusted process gives up before it reads the first request.
//!
//! [`harden`] is called once, after the settings are read and before any thread is started: Landlock holds for the thread
//! that asks for it and for those that it starts, so whatever came before would stay outside. Sockets are bound
//! afterwards; that is among the calls that are left. Nothing here can be undone by the process.
//!
//! A measure that this kernel does not offer is reported, and the service starts without it: what it protects against is a
//! second mistake. A measure that is offered and cannot be had is an error: then something is not as we think.
//!
//! The network is not restricted. Landlock can restrict TCP by port, but a service that may be told to listen on any free
//! port, and connects to an address from its settings, would need rules that say "all".

mod files;
mod probe;
mod process;
mod syscalls;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use probe::probe;

/// What the process may still open, everything below included. Nothing else of the file system can be opened, and nothing
/// at all can be executed.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// May be read and listed.
    pub read: Vec<PathBuf>,
    /// May also be written, made and removed.
    pub write: Vec<PathBuf>,
}

/// One measure of the operating system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Its name, for people and logs.
    pub name: &'static str,
    /// Whether it holds.
    pub state: State,
    /// What it does or says here; if something is amiss, what to do.
    pub detail: String,
}

/// What became of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It holds for this process from now on.
    Enforced,
    /// It is there to be used.
    Offered,
    /// This kernel does not have it.
    NotOffered,
    /// It is there, and weaker than it should be.
    Weak,
    /// A library OS inside the TEE stands between this process and the kernel: it is its matter.
    LeftToLibraryOs,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforced => "enforced",
            Self::Offered => "offered",
            Self::NotOffered => "not offered",
            Self::Weak => "weak",
            Self::LeftToLibraryOs => "left to the library OS",
        })
    }
}

impl Measure {
    fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
        }
    }
}

/// What [`harden`] did, measure by measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All measures, in the order in which they were taken.
    pub measures: Vec<Measure>,
}

impl Report {
    /// The measures in this state.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(move |it| it.state == state)
    }
}

/// Why the process could not be hardened.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// Threads are running that would stay outside.
    #[error("{0} threads are running; rights must be given up before the second one is started")]
    Threads(usize),
    /// It cannot be found out how many threads there are.
    #[error("cannot count this process's threads; mount /proc")]
    Proc(#[source] io::Error),
    /// A path that must stay usable cannot be opened.
    #[error("cannot open {path}, which this service needs: {reason}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The kernel offers a measure and refused to take it.
    #[error("cannot enforce {measure}: {reason}")]
    Refused {
        /// Which measure.
        measure: &'static str,
        /// The kernel's or the library's words.
        reason: String,
    },
}

fn refused(measure: &'static str) -> impl Fn(rustix::io::Errno) -> HardenError {
    move |error| HardenError::Refused {
        measure,
        reason: error.to_string(),
    }
}

/// Gives up every right that a trusted service does not need, for good.
///
/// # Errors
/// [`HardenError`]; some measures may hold then, so the process should end.
pub fn harden(paths: &Paths) -> Result<Report, HardenError> {
    if in_library_os() {
        let skip = |name| Measure::new(name, State::LeftToLibraryOs, "Gramine's manifest decides");
        let measures = vec![skip(process::NAME), skip(files::NAME), skip(syscalls::NAME)];
        return Ok(Report { measures });
    }
    match threads().map_err(HardenError::Proc)? {
        1 => {}
        more => return Err(HardenError::Threads(more)),
    }
    let mut measures = process::harden()?;
    measures.push(files::restrict(paths)?);
    // Last, because it takes away the calls that the others are made of.
    measures.push(syscalls::restrict()?);
    Ok(Report { measures })
}

/// Gramine puts its attestation device there; no other kernel has a folder of this name.
fn in_library_os() -> bool {
    Path::new("/dev/attestation").is_dir()
}

fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
