//! KeyService's rules against a naive model of them, their snapshots and replays, and who may see what.
//!
//! Histories come from seeds. A failure prints its seed and the shortest history found that still fails;
//! `SESEMI_HISTORIES` sets how many there are, `SESEMI_SEED` where they begin.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod answers;
mod batches;
mod governance;
mod histories;
mod isolation;
mod limits;
mod naive;
mod random;
mod snapshots;
mod visibility;
mod world;
