//! What the operating system can do for a trusted process, besides the TEE that it runs in.
//!
//! - [`secret_memory`]: keys in memory that the kernel itself cannot reach, so that no core dump, debugger, swap file or read of
//!   another process's memory brings them to light.
//! - `sandbox` (feature of the same name): rights given up before the first request is read. A process that is taken over
//!   through its input finds no program to start, no file to read and no process to look into.
//!
//! - [`stack`]: what a computation with a key leaves on the stack, overwritten.
//! - [`wiped`]: wiping of much memory at once;
//! - [`wiping`]: an allocator for trusted programs that leaves no copies of keys behind in free memory.
//!
//! A TEE protects against the host; this protects against bugs of our own, and it is all that there is outside a TEE, where
//! clients keep their keys. But for the calls of one engine it is the one place of the trusted code with `unsafe`: the calls in `sys`, the allocator, and one
//! line of [`secret_memory`].

#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

#[cfg(target_os = "linux")]
mod large_blocks;
#[cfg(all(feature = "sandbox", target_os = "linux"))]
pub mod sandbox;
pub mod secret_memory;
pub mod stack;
#[cfg(target_os = "linux")]
mod sys;
pub mod wiped;
#[cfg(target_os = "linux")]
pub mod wiping;
