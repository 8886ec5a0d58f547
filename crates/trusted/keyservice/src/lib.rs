//! KeyService: the attested service that holds model keys and request keys and hands them only to enclaves whose code
//! the model's owner and the user both approved (the paper's KeyService).
//!
//! - [`state`]: what was registered and granted, and which commands are allowed; pure;
//! - [`decision`]: the one function that decides a release; [`answers`]: what principals may know; pure;
//! - [`log`]: the sealed, hash-chained log that makes everything durable before it is acknowledged;
//! - [`unlock`]: the ways to the key that seals it: the TEE's sealing key, and shares of custodians;
//! - [`service`]: calls in, replies out; owns state and log;
//! - [`start`], [`takeover`], [`locked`]: how a service comes up: opened, taken over from a predecessor, recovered;
//! - [`server`]: attested channels, with a bound for everything; [`limits`]: how often each caller may ask;
//!   [`quota`]: how much it may hold at once;
//! - [`admin`]: health, metrics and backups for the operator; [`metrics`]: what may be counted;
//! - [`config`]: the command line.

#![forbid(unsafe_code)]
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

pub mod admin;
pub mod answers;
pub mod config;
pub mod decision;
pub mod limits;
pub mod locked;
pub mod log;
pub mod metrics;
pub mod quota;
pub mod server;
pub mod service;
mod spans;
pub mod start;
pub mod state;
pub mod takeover;
pub mod unlock;
