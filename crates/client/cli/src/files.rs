//! Files of others, read with a bound: a command may be pointed at anything.

use std::io::Read as _;
use std::path::Path;

/// The first `limit` bytes of a file. Give one more than it may have, so that what is too long shows as that and is not read
/// whole.
///
/// # Errors
/// [`std::io::Error`].
pub(crate) fn read_at_most(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    let opened = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    opened.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
