//! What a graph says about itself.

use sesemi_onnx::messages::{self, DimensionValue, TypeValue, ValueInfoProto, data_type};
#[cfg(feature = "engines")]
use sesemi_onnx::messages::{GraphProto, NodeProto};
use sesemi_protocol::package::{Dimension, TensorSpec};
use sesemi_protocol::tensor::DataType;

use crate::CompileError;

/// The inputs and outputs of a model, as its graph names them.
///
/// # Errors
/// [`CompileError::Onnx`], or [`CompileError::Model`] if one is no tensor of a type that requests have, or has no shape.
pub fn specs(onnx: &[u8]) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), CompileError> {
    let model = sesemi_onnx::read(bytes::Bytes::copy_from_slice(onnx))?;
    let graph = model.graph.unwrap_or_default();
    // Old models list their weights among the inputs as well.
    let is_weight = |name: &str| graph.initializer.iter().any(|it| it.name() == name);
    let inputs = graph.input.iter().filter(|it| !is_weight(it.name()));
    let inputs = inputs.map(spec).collect::<Result<_, _>>()?;
    let outputs = graph.output.iter().map(spec).collect::<Result<_, _>>()?;
    Ok((inputs, outputs))
}

fn spec(value: &ValueInfoProto) -> Result<TensorSpec, CompileError> {
    let name = value.name().to_owned();
    let wrong = |what: &str| CompileError::Model(format!("'{name}' of the model {what}"));
    let value = value.r#type.as_ref().and_then(|it| it.value.as_ref());
    let Some(TypeValue::TensorType(tensor)) = value else {
        return Err(wrong("is no tensor"));
    };
    let data_type = protocol_type(tensor.elem_type())
        .ok_or_else(|| wrong("has a data type that requests do not have"))?;
    let shape = tensor.shape.as_ref();
    let shape = shape.ok_or_else(|| wrong("has no shape; run shape inference on the model"))?;
    Ok(TensorSpec {
        data_type,
        shape: shape.dim.iter().map(dimension).collect(),
        name,
    })
}

fn dimension(dimension: &messages::Dimension) -> Dimension {
    match &dimension.value {
        Some(DimensionValue::DimValue(extent)) => {
            u64::try_from(*extent).map_or(Dimension::Dynamic, Dimension::Fixed)
        }
        Some(DimensionValue::DimParam(_)) | None => Dimension::Dynamic,
    }
}

/// The protocol's type for a number of ONNX's.
pub(crate) fn protocol_type(number: i32) -> Option<DataType> {
    Some(match number {
        data_type::BOOL => DataType::Bool,
        data_type::UINT8 => DataType::Uint8,
        data_type::UINT16 => DataType::Uint16,
        data_type::UINT32 => DataType::Uint32,
        data_type::UINT64 => DataType::Uint64,
        data_type::INT8 => DataType::Int8,
        data_type::INT16 => DataType::Int16,
        data_type::INT32 => DataType::Int32,
        data_type::INT64 => DataType::Int64,
        data_type::FLOAT16 => DataType::Fp16,
        data_type::FLOAT => DataType::Fp32,
        data_type::DOUBLE => DataType::Fp64,
        data_type::BFLOAT16 => DataType::Bf16,
        data_type::STRING => DataType::Bytes,
        _ => return None,
    })
}

/// Whether a node of the graph, or of a graph in it, is of this domain.
#[cfg(feature = "engines")]
pub(crate) fn has_domain(graph: &GraphProto, domain: &str) -> bool {
    let inside = |node: &NodeProto| {
        let mut attributes = node.attribute.iter();
        attributes.any(|it| {
            let graphs = it.g.as_deref().into_iter().chain(&it.graphs);
            graphs.into_iter().any(|graph| has_domain(graph, domain))
        })
    };
    let mut nodes = graph.node.iter();
    nodes.any(|node| node.domain() == domain || inside(node))
}
