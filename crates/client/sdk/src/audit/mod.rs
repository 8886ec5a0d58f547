//! KeyService's log as a file that is verified without the service: what an auditor keeps, and hands to others.
//!
//! The file has one JSON object on each line: first which service and whose view it is, then the entries (shown, or only their
//! digest), then the end as the service signed it. What a line says for people (`at`, `what`) follows from `shown`, which the chain covers; it
//! may be left out, and where it stands it must say the same: a person reads it and believes that it was verified.

mod describe;
mod file;
mod verify;

use sesemi_protocol::audit::AuditItem;
use sesemi_protocol::id::IdError;
use sesemi_protocol::receipt::{Point, SignedError};
use sesemi_protocol::{PrincipalId, ServiceId};

pub use describe::{Described, describe};
pub use file::AuditWriter;
pub use verify::{Expected, Verified, verify};

/// What the first line of an audit file says of its format.
const FORMAT: &str = "sesemi-audit-v1";
/// Longest line of an audit file, in bytes: an entry in hexadecimal digits, and its description.
const MAX_LINE: u64 = 512 * 1024;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The point after it: its number, and the chain.
    pub point: Point,
    /// What may be seen of it.
    pub item: AuditItem,
}

/// Why an audit file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be read or written.
    #[error("the audit file cannot be read or written")]
    Io(#[from] std::io::Error),
    /// A line has another form.
    #[error("line {line} is not that of an audit file: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// It does not end with a signed head, so nothing in it is proven.
    #[error(
        "the file does not end with the end of the log that the service signed: it is cut short"
    )]
    NoHead,
    /// A line is missing, twice or out of order.
    #[error("line {line} holds entry {found}, where entry {expected} follows")]
    Order {
        /// Its number, from 1.
        line: u64,
        /// Which entry must come.
        expected: u64,
        /// Which came.
        found: u64,
    },
    /// What a line says for people is not what the chain covers.
    #[error(
        "line {line} says something else for people than the log does: it was changed, or another version of sesemi wrote it"
    )]
    Reworded {
        /// Its number, from 1.
        line: u64,
    },
    /// The service's key and its id do not belong together.
    #[error("the service's public key is not that of the service {0}")]
    Key(ServiceId),
    /// It is the log of another service.
    #[error("this is the log of KeyService {found}, not of {expected}")]
    OtherService {
        /// What was expected.
        expected: ServiceId,
        /// What the file says.
        found: ServiceId,
    },
    /// The end is not signed by the service, or a receipt or command is not authentic.
    #[error("{what} is not authentic")]
    Signed {
        /// Which message.
        what: String,
        /// Why.
        source: SignedError,
    },
    /// The entries do not lead to the signed end.
    #[error(
        "the entries lead to {found} at entry {sequence}, but the service signed {signed}: an entry was changed, left out or added"
    )]
    Chain {
        /// The end.
        sequence: u64,
        /// Chain of the entries.
        found: String,
        /// Chain that the service signed.
        signed: String,
    },
    /// A point that somebody saw is not on the chain.
    #[error(
        "{who} saw another log at entry {sequence}: the service was rolled back or forked, or has shown two pasts"
    )]
    Forked {
        /// Who or what remembers the point.
        who: String,
        /// Which entry.
        sequence: u64,
    },
    /// A point that somebody saw is after the end.
    #[error(
        "{who} saw entry {sequence}, but the log ends at {end}: the file is older than that, or the service was rolled back"
    )]
    Behind {
        /// Who or what remembers the point.
        who: String,
        /// Which entry.
        sequence: u64,
        /// Where the log ends.
        end: u64,
    },
    /// A shown entry says something that cannot be.
    #[error("entry {sequence} contradicts the file: {why}")]
    Entry {
        /// Which entry.
        sequence: u64,
        /// What it says.
        why: &'static str,
    },
    /// An id is not one.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Whose view of which service's log a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// The service's Ed25519 public key.
    pub service_key: [u8; 32],
    /// Whose view.
    pub of: PrincipalId,
    /// The point before its first entry.
    pub from: Point,
}
