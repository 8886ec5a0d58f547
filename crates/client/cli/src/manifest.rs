//! The manifest of an ONNX file: its inputs and outputs, as the graph itself says, and the file as its one form.

use rten::{
    DataType as RtenType, Dimension as RtenDimension, Model, ModelOptions, NodeId, ValueType,
};
use sesemi::{DataType, Dimension, FormContent, Manifest, TensorSpec};

use crate::error::CliError;

/// Describes forms of a model whose inputs and outputs are those of this ONNX, which is loaded as SeMIRT will.
///
/// # Errors
/// [`CliError::Input`] if the model does not load, or uses types that cannot be told from the graph.
pub fn manifest_of_onnx(bytes: &[u8], forms: &[FormContent<'_>]) -> Result<Manifest, CliError> {
    let model = ModelOptions::with_all_ops()
        .load(bytes.to_vec())
        .map_err(|e| {
            CliError::Input(format!(
                "this is not an ONNX model that SeMIRT can load: {e}"
            ))
        })?;
    let specs = |ids: &[NodeId]| {
        ids.iter()
            .map(|id| spec(&model, *id))
            .collect::<Result<_, _>>()
    };
    let (inputs, outputs) = (specs(model.input_ids())?, specs(model.output_ids())?);
    Ok(Manifest::describing(inputs, outputs, forms))
}

fn spec(model: &Model, id: NodeId) -> Result<TensorSpec, CliError> {
    let info = model
        .node_info(id)
        .ok_or_else(|| CliError::Input("the model has an input or output without a node".into()))?;
    let name = info.name().unwrap_or_default().to_owned();
    let unknown = |what: &str| CliError::Input(format!("'{name}' of the model has {what}"));
    let data_type = match info.dtype() {
        Some(ValueType::Tensor(RtenType::Float)) => DataType::Fp32,
        Some(ValueType::Tensor(RtenType::Int32)) => DataType::Int32,
        Some(ValueType::Tensor(RtenType::Int8)) => DataType::Int8,
        Some(ValueType::Tensor(RtenType::UInt8)) => DataType::Uint8,
        _ => return Err(unknown("a data type that this engine does not know")),
    };
    let shape = info
        .shape()
        .ok_or_else(|| unknown("no shape; run shape inference on the model first"))?
        .into_iter()
        .map(|dimension| match dimension {
            RtenDimension::Fixed(extent) => Dimension::Fixed(extent as u64),
            RtenDimension::Symbolic(_) => Dimension::Dynamic,
        })
        .collect();
    Ok(TensorSpec {
        name,
        data_type,
        shape,
    })
}
