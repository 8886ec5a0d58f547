//! What a computation with a key leaves behind on the stack.
//!
//! Cryptographic libraries keep the block at hand (for a short input: all of it) in a local variable. It stays on the stack after
//! they return, below everything that is in use, until something else happens to lie there.

use core::hint::black_box;

/// Bytes that are overwritten: more than the frames of a hash, an HMAC or a key derivation take.
const DEPTH: usize = 8 * 1024;

/// Does `work`, and then overwrites the stack that it used.
pub fn wiped_after<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    overwrite();
    result
}

/// A frame of its own, so that what `work` uses lies below the caller's and not within it.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite() {
    let mut area = [0u8; DEPTH];
    // The compiler must not conclude that nobody reads what was written.
    black_box(&mut area);
}
