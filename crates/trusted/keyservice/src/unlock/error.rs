//! Why there is no way to the state key.

use std::path::PathBuf;

use sesemi_attest::sealing::SealError;
use sesemi_protocol::cbor::CborError;

use super::ShareError;

/// Longest file that is read, in bytes: far more than sixteen digests need.
pub(super) const MAX_FILE: usize = 4096;

/// Why the state key was not stored, or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// This code has no way to the state yet.
    #[error(
        "{0} is missing: this code has not opened this state before; start it with --predecessor, or hand in recovery shares with `sesemi keyservice recover`"
    )]
    NoTeeFile(PathBuf),
    /// The TEE's sealing key does not open the file.
    #[error(
        "{0} was sealed by other code or on another platform, or was changed; start with --predecessor, or hand in recovery shares with `sesemi keyservice recover`"
    )]
    OtherPlatform(PathBuf),
    /// There is nothing that shares could open.
    #[error(
        "{0} is missing: this service has no custodians, or the file was lost; restore the state folder from a backup"
    )]
    NoRecoveryFile(PathBuf),
    /// The shares are those of the file's digests, but do not open it.
    #[error(
        "{0} does not open with these shares: the file was changed; restore it from a backup of the state folder"
    )]
    NotOpenedByShares(PathBuf),
    /// The shares cannot be used.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// Not all the shares of one key, in their order.
    #[error("the recovery file is written from all shares of one key, in their order")]
    NotAllShares,
    /// The file is far too long.
    #[error("{0} is longer than {MAX_FILE} bytes; restore it from a backup of the state folder")]
    TooLong(PathBuf),
    /// The file is not of the form that this version knows.
    #[error("{path} cannot be read: {source}; restore it from a backup of the state folder")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CborError,
    },
    /// The file is another one than its name says.
    #[error(
        "{path} is not what its name says, but {found}; restore it from a backup of the state folder"
    )]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        found: String,
    },
    /// The file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Sealing failed.
    #[error("the state key could not be sealed: {0}")]
    Seal(SealError),
    /// The header has no encoding.
    #[error("the file's header could not be encoded: {0}")]
    Encode(CborError),
}
