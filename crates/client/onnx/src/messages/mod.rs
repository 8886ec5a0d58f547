//! The messages of ONNX, under their own names and field numbers.
//!
//! Source: `onnx/onnx-ml.proto` of ONNX 1.23 (IR version 14), whose comments say what each field means;
//! <https://onnx.ai/onnx/repo-docs/IR.html> says how they belong together. That file is proto2, where a field that was
//! set to its default is not the same as one that was not set: hence an `Option` around every single value, and lists of
//! numbers that are not packed except in tensors.
//!
//! Numbers of enumerations stay numbers, so that a type of a later version is kept as well.

mod devices;
mod graph;
mod model;
mod tensor;
mod types;

pub use devices::{
    DeviceConfigurationProto, IntIntListEntryProto, NodeDeviceConfigurationProto, ShardedDimProto,
    ShardingDim, ShardingSpecProto, SimpleShardedDimProto,
};
pub use graph::{AttributeProto, GraphProto, NodeProto, ValueInfoProto, attribute_type};
pub use model::{
    FunctionProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TrainingInfoProto,
};
pub use tensor::{
    Segment, SparseTensorProto, TensorAnnotation, TensorProto, data_location, data_type,
};
pub use types::{
    Dimension, DimensionValue, MapType, OpaqueType, OptionalType, SequenceType, SparseTensorType,
    TensorShapeProto, TensorType, TypeProto, TypeValue,
};
