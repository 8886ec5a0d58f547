//! What can go wrong with a model, said once.

use std::io;
use std::path::PathBuf;

use crate::file::MAX_MODEL_BYTES;

/// Why a model was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bytes are no protobuf message, or none of ONNX.
    #[error("this is no ONNX model, or it is truncated")]
    Malformed(#[source] prost::DecodeError),
    /// The bytes end inside a field, or a number in them has no end.
    #[error("this is no ONNX model, or it is truncated: a field of {message} is broken")]
    BrokenField {
        /// The ONNX message it is in.
        message: &'static str,
    },
    /// The model has a field that this version does not know and would lose.
    #[error(
        "field {number} of {message} is not in ONNX 1.23 and would be lost; write the model for an older IR version, \
         or update this program"
    )]
    UnknownField {
        /// The ONNX message it is in.
        message: &'static str,
        /// Its field number.
        number: u64,
    },
    /// Messages are nested deeper than any model needs.
    #[error("graphs or types are nested in each other more than {limit} deep; flatten the model")]
    TooDeep {
        /// How deep is accepted.
        limit: usize,
    },
    /// A protobuf message has less than 2 GiB.
    #[error(
        "the model has {size} bytes, and an ONNX file at most {MAX_MODEL_BYTES}; save its tensors as external data"
    )]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
}
