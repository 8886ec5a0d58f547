//! What the requests of one SeMIRT share, with the locks, threads and tasks of a model checker in place of the real ones.
//!
//! These are SeMIRT's own source files. They take everything that may block or be interrupted from `crate::sync`, which is
//! [another one](sync) here: [Shuttle](https://docs.rs/shuttle) decides at each of these points who goes on, and tries many orders
//! ("A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs", S. Burckhardt and others, ASPLOS 2010). A test
//! that fails prints the order, which can be played again.

#![forbid(unsafe_code)]
// The files bring tests of their own, which run where they are at home.
#![cfg(not(test))]
// The files are not written for this crate.
#![allow(dead_code, missing_docs, rustdoc::all)]

#[path = "../../trusted/semirt/src/keys/mod.rs"]
pub mod keys;
#[path = "../../trusted/semirt/src/occupancy.rs"]
pub mod occupancy;
#[path = "../../trusted/semirt/src/single_flight.rs"]
pub mod single_flight;
#[path = "../../trusted/semirt/src/slots/mod.rs"]
pub mod slots;
pub mod sync;
