//! KeyService: the attested service that holds model keys and request keys and hands them only to enclaves whose code
//! the model's owner and the user both approved (the paper's KeyService).
//!
//! - [`state`]: what was registered and granted, and which commands are allowed; pure;
//! - [`decision`]: the one function that decides a release; pure;
//! - [`log`]: the sealed, hash-chained log that makes a command durable before it is acknowledged;
//! - [`service`]: calls in, replies out; owns state and log;
//! - [`server`]: attested channels, with a bound for everything;
//! - [`admin`]: health and metrics for the operator;
//! - [`metrics`]: what may be counted;
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
pub mod config;
pub mod decision;
pub mod log;
pub mod metrics;
pub mod server;
pub mod service;
pub mod state;
