//! The `sesemi` command as a library, so that tests can use its parts: the local [`stack`], the [`demo`], the
//! [`commands`] of owners and users, code identities offline ([`measure`]), what TEE makers publish ([`endorsements`]), and what this
//! machine offers ([`doctor`]).

#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "not trusted code; overflow panics in tests and counts milliseconds"
)]

pub mod args;
pub mod commands;
pub mod compile;
pub mod connection;
pub mod demo;
pub mod doctor;
pub mod endorsements;
pub mod engines;
pub mod error;
mod files;
pub mod inspect;
pub mod manifest;
pub mod measure;
pub mod seen;
pub mod stack;
mod table;
pub mod tensors;
pub mod times;
pub mod up;
