//! What every HTTP server of the host side needs, whatever it answers: connections that are bounded in number, in the time for
//! a head, in its size and in how long a client may leave an answer untaken; and bodies that are counted while they are read.
//!
//! FnPacker's gateway and the embedded platform's REST interface both stand on it, so that a hostile client meets the same
//! bounds at either door.

mod connections;
mod stall;

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::Response;
use hyper::body::{Body as _, Incoming};

pub use connections::Connections;

/// Every answer is complete in memory, with a content length.
pub type Answer = Response<Full<Bytes>>;

/// What clients of a server may take of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Connections served at once; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Largest request head, in bytes; at least 8192.
    pub max_head_bytes: usize,
    /// Time for a request's head, and for the next request on a kept connection.
    pub head_timeout: Duration,
    /// A client that takes nothing of its answer for so long is cut off.
    pub stall_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// Why there is no whole body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has more bytes than are taken.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It broke off or is malformed; with the cause.
    #[error("the body broke off: {0}")]
    Broken(String),
}

/// Reads a body of at most `limit` bytes. One that is announced as larger is not read at all.
///
/// # Errors
/// [`BodyError`].
pub async fn read(body: Incoming, limit: usize) -> Result<Bytes, BodyError> {
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge(limit)),
        Err(error) => Err(BodyError::Broken(innermost(error.as_ref()))),
    }
}

/// The innermost cause says what happened ("connection refused"), the outer ones only where.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
