//! The test vectors in `spec/vectors`, which other languages read too, hold for this implementation.
//!
//! Each file is read, each positive case is made again from the inputs that stand in it and compared byte for byte, then
//! opened or verified; each negative case must be refused, and for the reason that the file gives. With
//! `SESEMI_WRITE_VECTORS=1` in the environment the files are first written anew from the recipes in these modules.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "vectors/actions.rs"]
mod actions;
#[path = "vectors/answers.rs"]
mod answers;
#[path = "vectors/audit.rs"]
mod audit;
#[path = "vectors/audit_story.rs"]
mod audit_story;
#[path = "vectors/commands.rs"]
mod commands;
#[path = "vectors/envelope.rs"]
mod envelope;
#[path = "vectors/envelope_refused.rs"]
mod envelope_refused;
#[path = "vectors/ids.rs"]
mod ids;
#[path = "vectors/messages.rs"]
mod messages;
#[path = "vectors/package.rs"]
mod package;
#[path = "vectors/package_refused.rs"]
mod package_refused;
#[path = "vectors/queries.rs"]
mod queries;
#[path = "vectors/signed.rs"]
mod signed;
#[path = "vectors/signed_refused.rs"]
mod signed_refused;
#[path = "vectors/support.rs"]
mod support;
#[path = "vectors/values.rs"]
mod values;
#[path = "vectors/wire.rs"]
mod wire;
