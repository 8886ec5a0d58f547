//! What a person reads when a command fails: one sentence, the causes, an exit code.

use std::path::PathBuf;

use sesemi::IdentityFileError;
use sesemi::audit::AuditError;
use sesemi_process::settings::SettingsError;
use sesemi_process::trust::TrustError;

use crate::endorsements::EndorsementsError;
use crate::measure::MeasureError;
use crate::stack::StackError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Settings are missing or wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No verifier can be made.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The local stack did not start or stop.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A step of the work failed.
    #[error("{step}")]
    Step {
        /// What was being done.
        step: String,
        /// Why it failed.
        source: Box<sesemi::Error>,
    },
    /// The identity file cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityFileError),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no code identity to print.
    #[error(transparent)]
    Measure(#[from] MeasureError),
    /// An engine's library cannot be had.
    #[error(transparent)]
    Engine(#[from] sesemi_engines::InstallError),
    /// A compiled model's folder cannot be read or written.
    #[error(transparent)]
    Folder(#[from] sesemi_compile::FolderError),
    /// No endorsements were written.
    #[error(transparent)]
    Endorsements(#[from] EndorsementsError),
    /// An audit file cannot be written, or does not verify.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// An input is not what it should be.
    #[error("{0}")]
    Input(String),
    /// The demo saw something that must not be.
    #[error("the demo failed: {0}")]
    Demo(String),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// This process cannot do its work.
    #[error("cannot use {0}")]
    Process(&'static str, #[source] std::io::Error),
}

/// Names the step that an SDK error came from.
pub trait During<T> {
    /// Adds what was being done.
    ///
    /// # Errors
    /// The same error, as [`CliError::Step`].
    fn during(self, step: &str) -> Result<T, CliError>;
}

impl<T, E: Into<sesemi::Error>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> Result<T, CliError> {
        self.map_err(|source| CliError::Step {
            step: format!("could not {step}"),
            source: Box::new(source.into()),
        })
    }
}

/// Names the file that an I/O error is about.
///
/// # Errors
/// Made to be used with `map_err`.
pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.into();
    move |source| CliError::File { path, source }
}
