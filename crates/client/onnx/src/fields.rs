//! Which fields a model has, before it is decoded: `prost` drops a field that it does not know without a word.
//!
//! The tables are those of [`crate::messages`] again, reduced to numbers: which fields are plain values, and which are
//! messages with a table of their own.

use crate::error::OnnxError;

/// As deep as `prost` goes; a graph in a graph takes three levels.
const MAX_DEPTH: usize = 100;

/// The fields of one message of ONNX.
struct Fields {
    message: &'static str,
    values: &'static [u64],
    messages: &'static [(u64, &'static Fields)],
}

macro_rules! fields {
    ($($table:ident = $message:literal, [$($value:literal),*], [$($number:literal: $inner:ident),*];)*) => {
        $(static $table: Fields = Fields {
            message: $message,
            values: &[$($value),*],
            messages: &[$(($number, &$inner)),*],
        };)*
    };
}

fields! {
    MODEL = "ModelProto", [1, 2, 3, 4, 5, 6], [7: GRAPH, 8: OPERATOR_SET, 14: ENTRY, 20: TRAINING, 25: FUNCTION, 26: DEVICES];
    GRAPH = "GraphProto", [2, 10], [1: NODE, 5: TENSOR, 11: VALUE_INFO, 12: VALUE_INFO, 13: VALUE_INFO, 14: ANNOTATION, 15: SPARSE_TENSOR, 16: ENTRY];
    NODE = "NodeProto", [1, 2, 3, 4, 6, 7, 8], [5: ATTRIBUTE, 9: ENTRY, 10: NODE_DEVICES];
    ATTRIBUTE = "AttributeProto", [1, 2, 3, 4, 7, 8, 9, 13, 20, 21], [5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 14: TYPE, 15: TYPE, 22: SPARSE_TENSOR, 23: SPARSE_TENSOR];
    FUNCTION = "FunctionProto", [1, 4, 5, 6, 8, 10, 13], [7: NODE, 9: OPERATOR_SET, 11: ATTRIBUTE, 12: VALUE_INFO, 14: ENTRY];
    TRAINING = "TrainingInfoProto", [], [1: GRAPH, 2: GRAPH, 3: ENTRY, 4: ENTRY];
    OPERATOR_SET = "OperatorSetIdProto", [1, 2], [];
    ENTRY = "StringStringEntryProto", [1, 2], [];
    ANNOTATION = "TensorAnnotation", [1], [2: ENTRY];
    VALUE_INFO = "ValueInfoProto", [1, 3], [2: TYPE, 4: ENTRY];
    TENSOR = "TensorProto", [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14], [3: SEGMENT, 13: ENTRY, 16: ENTRY];
    SEGMENT = "TensorProto.Segment", [1, 2], [];
    SPARSE_TENSOR = "SparseTensorProto", [3], [1: TENSOR, 2: TENSOR];
    TYPE = "TypeProto", [6], [1: TENSOR_TYPE, 4: SEQUENCE_TYPE, 5: MAP_TYPE, 7: OPAQUE_TYPE, 8: SPARSE_TENSOR_TYPE, 9: OPTIONAL_TYPE];
    TENSOR_TYPE = "TypeProto.Tensor", [1], [2: SHAPE];
    SPARSE_TENSOR_TYPE = "TypeProto.SparseTensor", [1], [2: SHAPE];
    SEQUENCE_TYPE = "TypeProto.Sequence", [], [1: TYPE];
    OPTIONAL_TYPE = "TypeProto.Optional", [], [1: TYPE];
    MAP_TYPE = "TypeProto.Map", [1], [2: TYPE];
    OPAQUE_TYPE = "TypeProto.Opaque", [1, 2], [];
    SHAPE = "TensorShapeProto", [], [1: DIMENSION];
    DIMENSION = "TensorShapeProto.Dimension", [1, 2, 3], [];
    DEVICES = "DeviceConfigurationProto", [1, 2, 3], [];
    NODE_DEVICES = "NodeDeviceConfigurationProto", [1, 3], [2: SHARDING];
    SHARDING = "ShardingSpecProto", [1, 2], [3: DEVICE_GROUP, 4: SHARDED_DIMENSION];
    DEVICE_GROUP = "IntIntListEntryProto", [1, 2], [];
    SHARDED_DIMENSION = "ShardedDimProto", [1], [2: SIMPLE_SHARDING];
    SIMPLE_SHARDING = "SimpleShardedDimProto", [1, 2, 3], [];
}

/// Checks that every field of a model is known.
pub(crate) fn check(model: &[u8]) -> Result<(), OnnxError> {
    check_message(model, &MODEL, 0)
}

fn check_message(mut rest: &[u8], fields: &Fields, depth: usize) -> Result<(), OnnxError> {
    if depth > MAX_DEPTH {
        return Err(OnnxError::TooDeep { limit: MAX_DEPTH });
    }
    let message = fields.message;
    while !rest.is_empty() {
        let (number, content) = take_field(&mut rest).ok_or(OnnxError::BrokenField { message })?;
        if fields.values.contains(&number) {
            continue;
        }
        let Some((_, inner)) = fields.messages.iter().find(|(it, _)| *it == number) else {
            return Err(OnnxError::UnknownField { message, number });
        };
        let content = content.ok_or(OnnxError::BrokenField { message })?;
        check_message(content, inner, depth.saturating_add(1))?;
    }
    Ok(())
}

/// The next field: its number, and its content if it has a length (wire type 2). See
/// <https://protobuf.dev/programming-guides/encoding/>; groups (3 and 4) are not in ONNX.
fn take_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, Option<&'a [u8]>)> {
    let key = take_varint(rest)?;
    let mut content = None;
    match key & 7 {
        0 => {
            take_varint(rest)?;
        }
        1 => {
            rest.split_off(..8)?;
        }
        2 => {
            let length = usize::try_from(take_varint(rest)?).ok()?;
            content = Some(rest.split_off(..length)?);
        }
        5 => {
            rest.split_off(..4)?;
        }
        _ => return None,
    }
    Some((key >> 3, content))
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
