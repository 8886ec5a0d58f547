//! ONNX models as Rust values, for tools on the machine of whoever owns a model.
//!
//! A tool that reads a model, changes it and writes it must not lose what it does not look at. So [`messages`] has every
//! message and every field of the format (IR version 14, ONNX 1.23), presence included, and [`read()`] refuses a model that
//! has a field which is not among them instead of dropping it.
//!
//! The messages are written by hand with `prost`'s derive, so that a build needs no protobuf compiler. That none is
//! missing is a test: `tests/every-field.onnx` was written by ONNX's own Python library from its own descriptors.
//!
//! Nothing in `crates/trusted` may depend on this crate.

#![forbid(unsafe_code)]

mod error;
mod fields;
mod file;
mod make;
pub mod messages;

pub use error::OnnxError;
pub use file::{MAX_MODEL_BYTES, read, read_file, write};
