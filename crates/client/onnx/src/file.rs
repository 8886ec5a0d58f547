//! Between a model and its bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;

use crate::error::OnnxError;
use crate::fields;
use crate::messages::ModelProto;

/// The most bytes of a model: the limit of protobuf, which ONNX keeps.
pub const MAX_MODEL_BYTES: u64 = i32::MAX as u64;

/// Reads a model. Its tensors' bytes are not copied: they share `bytes`.
///
/// # Errors
/// When it is no model, has a field that would be lost, is too deeply nested, or is larger than [`MAX_MODEL_BYTES`].
pub fn read(bytes: impl Into<Bytes>) -> Result<ModelProto, OnnxError> {
    let bytes = bytes.into();
    check_size(bytes.len() as u64)?;
    fields::check(&bytes)?;
    ModelProto::decode(bytes).map_err(OnnxError::Malformed)
}

/// Reads a model from a file; tensors that it keeps in other files (`external_data`) stay there.
///
/// # Errors
/// As [`read`], or when the file cannot be read.
pub fn read_file(path: &Path) -> Result<ModelProto, OnnxError> {
    let failed = |source| OnnxError::Read {
        path: path.into(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    check_size(file.metadata().map_err(failed)?.len())?;
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to see that a file grew.
    file.by_ref()
        .take(MAX_MODEL_BYTES.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    read(bytes)
}

/// The bytes of a model: fields in the order of their numbers, so that equal models have equal bytes.
///
/// # Errors
/// When they are more than [`MAX_MODEL_BYTES`].
pub fn write(model: &ModelProto) -> Result<Vec<u8>, OnnxError> {
    check_size(model.encoded_len() as u64)?;
    Ok(model.encode_to_vec())
}

fn check_size(size: u64) -> Result<(), OnnxError> {
    if size > MAX_MODEL_BYTES {
        return Err(OnnxError::TooLarge { size });
    }
    Ok(())
}
