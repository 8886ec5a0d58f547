//! What can go wrong, said once: every variant names the thing it is about, keeps its cause and, where a person
//! can do something about it, says what.
//!
//! No message carries the content of `machine.json`, because that file holds private keys.

use std::path::PathBuf;

/// An error of the simulated TEE.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimteeError {
    /// There is no simulated machine in the state directory.
    #[error("{} does not exist; create a simulated machine with `simtee init --state DIR`", path.display())]
    StateMissing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The state directory already holds a simulated machine, which is never overwritten.
    #[error("{} already exists; load it, or choose another state directory", path.display())]
    StateExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A state file is larger than any that this program writes.
    #[error("{} has {size} bytes, more than the {limit} that a state file may have; is it the right file?", path.display())]
    StateTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The largest size accepted.
        limit: u64,
    },
    /// A state file ends before its JSON does.
    #[error(
        "{} is truncated at line {line}, column {column}; restore it from a backup, or remove the state directory \
         and run `simtee init` again (what was sealed by the old machine is then lost)",
        path.display()
    )]
    StateTruncated {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        line: usize,
        /// Where it ends.
        column: usize,
    },
    /// A state file is not what this program writes.
    #[error(
        "{} is malformed at line {line}, column {column}; restore it from a backup, or remove the state directory \
         and run `simtee init` again (what was sealed by the old machine is then lost)",
        path.display()
    )]
    StateMalformed {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        line: usize,
        /// Where it goes wrong.
        column: usize,
    },
    /// A state file was written by another version of this program.
    #[error("{} has format {found}, but this simtee reads format {expected}; use the simtee that wrote it, or \
         remove the state directory and run `simtee init` again (what was sealed by the old machine is then lost)", path.display())]
    StateFormat {
        /// The file.
        path: PathBuf,
        /// The format it says it has.
        found: u32,
        /// The format that is understood.
        expected: u32,
    },
    /// The file of a running machine was replaced by that of another machine.
    #[error("{} is the file of another machine now; restart what runs on the old one, or put its file back", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// A sealing key was asked for a security version that is newer than the enclave's own.
    #[error(
        "a sealing key of security version {asked} is for programs of that version or newer, but this one has version {own}"
    )]
    NewerVersion {
        /// The version that was asked for.
        asked: u16,
        /// The enclave's own version.
        own: u16,
    },
    /// The state could not be written as JSON.
    #[error("the simulated machine's state could not be encoded")]
    StateEncoding(#[source] serde_json::Error),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The clock shows a time that certificates cannot express.
    #[error("the clock shows a time that certificates cannot express; set it to the current date")]
    Clock,
    /// A simulated certificate or revocation list could not be made.
    #[error("the simulated provisioning service could not issue {what}")]
    Issuing {
        /// What was being issued.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// A private key in the state is not a P-256 key.
    #[error(
        "the simulated machine's {which} key is not a P-256 private key; remove the state directory and run `simtee init` again"
    )]
    Key {
        /// Which key.
        which: &'static str,
    },
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Randomness,
    /// A signature could not be made.
    #[error("the simulated {signer} could not sign")]
    Signing {
        /// Who was to sign.
        signer: &'static str,
    },
    /// The program is not one that can be measured.
    #[error(
        "{} cannot be a simulated enclave: {reason}; give a statically linked 64-bit ELF program (in Rust: \
         `-C target-feature=+crt-static` and an explicit `--target`)",
        path.display()
    )]
    NotAnEnclave {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A library cannot be given to a program.
    #[error("{} cannot be given to a program: {reason}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The program is larger than the launcher copies into memory.
    #[error("{} has more than {limit} bytes, too large for a simulated enclave", path.display())]
    ImageTooLarge {
        /// The program.
        path: PathBuf,
        /// The largest size accepted.
        limit: u64,
    },
    /// The measured program could not be started.
    #[error("cannot start {} as a simulated enclave", path.display())]
    Launch {
        /// The program.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A signal could not be sent to the enclave.
    #[error("cannot signal the simulated enclave")]
    Signal(#[source] std::io::Error),
}

impl SimteeError {
    /// For `map_err`: an I/O error with what was attempted, and on what.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
