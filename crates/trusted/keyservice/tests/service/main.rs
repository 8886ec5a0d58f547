//! The running service, from signed bytes to what is on disk: acknowledged is durable, repeated has no second effect, rolled
//! back or forked is noticed, revoked ends with the lease, custodians recover it and appoint its successor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod commands;
mod custodians;
mod gate;
mod hanging_disk;
mod isolation;
mod keys_stay;
mod questions;
mod queue;
mod revocation;
mod rollback;
mod world;
