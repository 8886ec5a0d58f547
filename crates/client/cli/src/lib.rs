//! The `sesemi` command as a library, so that tests can use its parts: the local [`stack`], the [`demo`], and the
//! [`commands`] of owners and users.

#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "not trusted code; overflow panics in tests and counts milliseconds"
)]

pub mod args;
pub mod commands;
pub mod connection;
pub mod demo;
pub mod error;
pub mod manifest;
pub mod stack;
pub mod up;
