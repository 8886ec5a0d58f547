//! SeMIRT: the enclave runtime inside every serverless instance (the paper's SeMIRT).
//!
//! One enclave serves many requests of many users at once and shares one copy of a model between them. A request is *cold*
//! if it is the first of its instance, *warm* if a key, the model or an execution buffer was missing, *hot* if all were
//! there.
//!
//! - [`runtime`]: the way of a request, from ciphertext to ciphertext;
//! - [`occupancy`]: whose requests may be open in this enclave at the same time;
//! - [`slots`]: threads that engines compute on, a fair queue in front of them, and what ends an engine that hangs;
//! - [`keys`]: leases from KeyService, renewed while they are in use, wiped when they end;
//! - [`models`]: decrypted models within a memory budget;
//! - [`single_flight`]: many requests for one thing cause one fetch, and a failure leaves nothing behind;
//! - [`engine`]: what runs a model;
//! - [`http`]: the serverless platform's contract and the raw endpoint;
//! - [`serve`]: the binary around it, whatever its engine;
//! - [`config`], [`metrics`].

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

pub mod config;
pub mod engine;
pub mod http;
pub mod keys;
pub mod metrics;
pub mod models;
pub mod occupancy;
pub mod runtime;
pub mod serve;
pub mod single_flight;
pub mod slots;
mod sync;
#[cfg(test)]
mod testing;
