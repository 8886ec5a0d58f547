//! The shared library, loaded once for the process, and the environment that its sessions share.
//!
//! Where it is found is fixed in here, because whoever chooses the library chooses the code that sees models and requests. See
//! [`place`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::{Environment, EnvironmentBuilder, GlobalThreadPoolOptions};
use ort::logging::LogLevel;

/// Why ONNX Runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// There is no such library, or it is none, or too old.
    #[error("cannot load ONNX Runtime: {0}; install it with `sesemi engines install`")]
    Load(String),
    /// The library refused to start.
    #[error("ONNX Runtime does not start: {0}")]
    Start(String),
    /// It was started before.
    #[error("ONNX Runtime is started already, and can be only once in a process")]
    Twice,
}

/// The library, mapped into this process but not started: no thread of it runs.
#[derive(Debug)]
pub struct Library(());

/// The process has one, for good: the library cannot be unloaded, nor its environment made a second time.
static STARTED: Mutex<bool> = Mutex::new(false);

impl Library {
    /// Maps the library. This needs the right to make memory executable, so it has to come before that is given up.
    ///
    /// # Errors
    /// [`LibraryError::Load`].
    pub fn load(path: &Path) -> Result<Self, LibraryError> {
        let loaded = ort::init_from(path).map_err(|error| LibraryError::Load(error.to_string()))?;
        drop(loaded);
        Ok(Self(()))
    }

    /// Starts it with this many threads, which all sessions share; with the caller's own, that is: for 1 it starts none.
    ///
    /// # Errors
    /// [`LibraryError::Start`] or [`LibraryError::Twice`].
    pub(crate) fn start(self, threads: usize) -> Result<Environment, LibraryError> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *started, true) {
            return Err(LibraryError::Twice);
        }
        let failed = |error: ort::Error| LibraryError::Start(error.to_string());
        let pool = GlobalThreadPoolOptions::default()
            .with_intra_threads(threads)
            // Between operators, one thread each: requests run at the same time already.
            .and_then(|pool| pool.with_inter_threads(1))
            // Instances share a machine: a thread that waits should not burn it.
            .and_then(|pool| pool.with_spin_control(false))
            .map_err(failed)?;
        let environment = quiet(ort::init())
            .with_global_thread_pool(pool)
            .build()
            .map_err(failed)?;
        environment.set_log_level(LogLevel::Fatal);
        Ok(environment)
    }
}

/// It tells nobody anything: its messages name tensors and shapes, and the host reads our output.
fn quiet(environment: EnvironmentBuilder) -> EnvironmentBuilder {
    environment
        .with_name("sesemi")
        .with_telemetry(false)
        .with_logger(std::sync::Arc::new(|_, _, _, _, _| {}))
}

/// Where the library of a real TEE is: in its file system, which is measured. (Gramine: a trusted file. TDX, SEV-SNP: the disk.)
const INSTALLED: &str = "/usr/lib/sesemi/libonnxruntime.so";

/// The descriptor that a simulated TEE hands its first library over at: the first after the standard ones. See `spec/simtee.md`.
const HANDED_OVER: &str = "/proc/self/fd/3";

/// Where the library is, in whatever TEE this is. No flag, no variable and no file of the host has a say in it.
///
/// A process whose standard input is a socket was started by the simulator, which measured the library that it handed over; what a
/// host that only claims to be the simulator hands over is of no use to it, because no evidence will name that code.
#[must_use]
pub fn place() -> PathBuf {
    let simulated = std::fs::metadata("/proc/self/fd/0")
        .is_ok_and(|input| std::os::unix::fs::FileTypeExt::is_socket(&input.file_type()));
    PathBuf::from(if simulated { HANDED_OVER } else { INSTALLED })
}
