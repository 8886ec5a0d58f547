//! How well FnPacker packs: the placement of the gateway itself, in a discrete-event simulation and against a real stack, under
//! the same traffic.
//!
//! - [`traffic`]: who asks for what, when;
//! - [`simulation`]: the packer of the gateway and the scheduler of the embedded platform, both as they are, around a model of
//!   instances whose costs were measured;
//! - [`outcome`]: latencies and memory, as figures.
#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects)]

pub mod outcome;
pub mod simulation;
pub mod traffic;
