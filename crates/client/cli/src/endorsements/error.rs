//! Why no endorsements were written, and what to do about it.

use std::path::PathBuf;

use sesemi::VerifyError;

/// Why no endorsements were written.
#[derive(Debug, thiserror::Error)]
pub enum EndorsementsError {
    /// No address of a service.
    #[error("'{0}' is not the address of a service: write http://HOST:PORT or https://HOST")]
    Address(String),
    /// Nobody said for which platform.
    #[error("say which platform: --tee sgx|tdx and --fmspc HEX, or --evidence with a quote of it")]
    WhichPlatform,
    /// The evidence does not tell what is needed of it.
    #[error("{path} does not tell which platform it is of: {why}")]
    Evidence {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There are no certificates of authorities on this machine.
    #[error(
        "this machine has no certificates of authorities to check https with: install them (ca-certificates), or name a PEM file in SSL_CERT_FILE{0}"
    )]
    NoAuthorities(String),
    /// TLS cannot be set up.
    #[error("cannot set TLS up")]
    Tls(#[source] rustls::Error),
    /// The service did not answer.
    #[error(
        "cannot get {url}: look at the address; for https this machine must trust the certificate (SSL_CERT_FILE), and the service must speak TLS 1.3"
    )]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The service was too slow.
    #[error("{url} was not answered within {seconds} s: try again, or wait longer with --timeout")]
    TimedOut {
        /// What was asked for.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The service sends too much.
    #[error("the answer to {url} is longer than {limit} bytes: this is not what was asked for")]
    TooLong {
        /// What was asked for.
        url: String,
        /// The most that is read.
        limit: usize,
    },
    /// The service refuses.
    #[error("{url} was answered with {status}{said}{hint}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the service says of it; empty, or `: sentence`.
        said: String,
        /// What to do; empty, or `; sentence`.
        hint: &'static str,
    },
    /// The service sends elsewhere.
    #[error(
        "{url} sends to '{to}', and no such hint is followed: give that address if it is the right one"
    )]
    Elsewhere {
        /// What was asked for.
        url: String,
        /// Where it is said to be.
        to: String,
    },
    /// The answer is something else.
    #[error("the answer to {url} is not {expected}: {why}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What is in the file is newer.
    #[error(
        "{path} has {what} {have} already and this is {got}: the service is behind, ask another or try again later"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// What is numbered.
        what: &'static str,
        /// The number in the file.
        have: u64,
        /// The number that was fetched.
        got: u64,
    },
    /// What was put together is nothing that a verifier would read.
    #[error(
        "with this, {path} would be nothing that verifiers read: write to a new file; they take a folder of them too"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
    /// The file holds something else.
    #[error("{path} holds no endorsements: write to another file, or without --add")]
    Existing {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
    /// The endorsements have no JSON; never in practice.
    #[error("the endorsements cannot be written as JSON")]
    Json(#[source] serde_json::Error),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
