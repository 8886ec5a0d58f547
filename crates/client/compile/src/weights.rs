//! Weights moved out of a graph into one block, each at a multiple of 64.

use bytes::Bytes;
use sesemi_onnx::messages::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, data_location, data_type,
};
use sesemi_protocol::package::{
    InstructionSet, Memory, ModelFormat, WEIGHT_ALIGNMENT, WEIGHTS, Weight, WeightList,
};
use sesemi_protocol::tensor::DataType;

use crate::fold::fold_batch_norms;
use crate::graph::protocol_type;
use crate::{CompileError, CompiledForm, SMALLEST_WEIGHT};

/// What the graph says of weights that were moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reference {
    /// Where they lie in the part [`WEIGHTS`].
    Place,
    /// Nothing: a list says it.
    #[cfg(feature = "engines")]
    Nowhere,
}

/// The portable form whose weights are a part of their own, so that an engine can use them where they were decrypted. Batch norms
/// are folded into the convolutions before them, because an engine that does it makes new weights of them.
///
/// # Errors
/// [`CompileError::Onnx`] or [`CompileError::Model`].
pub fn split_weights(onnx: &[u8]) -> Result<CompiledForm, CompileError> {
    let mut model = sesemi_onnx::read(Bytes::copy_from_slice(onnx))?;
    fold_batch_norms(model.graph.get_or_insert_default());
    let (weights, _) = move_weights(&mut model, Reference::Place)?;
    Ok(CompiledForm {
        format: ModelFormat::OnnxWithWeights,
        instruction_set: InstructionSet::Any,
        parts: vec![weights, sesemi_onnx::write(&model)?],
        memory: Memory::default(),
        prepack: false,
    })
}

/// The portable form that is the file as it is.
#[must_use]
pub fn whole(onnx: &[u8]) -> CompiledForm {
    CompiledForm {
        format: ModelFormat::Onnx,
        instruction_set: InstructionSet::Any,
        parts: vec![onnx.to_vec()],
        memory: Memory::default(),
        prepack: false,
    }
}

/// The file as it is, as a form that ONNX Runtime does not optimise, because it says that this was done. Forms are compared with it.
///
/// # Errors
/// [`CompileError::List`], never in practice.
pub fn unoptimised(onnx: &[u8]) -> Result<CompiledForm, CompileError> {
    Ok(CompiledForm {
        format: ModelFormat::OnnxRuntimeCompiled,
        parts: vec![vec![], WeightList::default().encode(0)?, onnx.to_vec()],
        ..whole(onnx)
    })
}

/// Moves the large initializers of a model out of its graph.
pub(crate) fn move_weights(
    model: &mut ModelProto,
    reference: Reference,
) -> Result<(Vec<u8>, WeightList), CompileError> {
    let graph = model.graph.get_or_insert_default();
    let (mut block, mut list) = (Vec::new(), WeightList::default());
    // One that is an input as well may be another in each request, and one that is an output would leave in it.
    let named = |values: &[sesemi_onnx::messages::ValueInfoProto], name: &str| {
        values.iter().any(|value| value.name() == name)
    };
    let GraphProto {
        initializer,
        input,
        output,
        ..
    } = graph;
    for tensor in initializer {
        if tensor.data_location() == data_location::EXTERNAL {
            return Err(CompileError::Model(format!(
                "the weight '{}' is in another file; save the model as one",
                tensor.name()
            )));
        }
        let Some((data_type, bytes)) = elements(tensor) else {
            continue;
        };
        let stays = named(input, tensor.name()) || named(output, tensor.name());
        if bytes.len() < SMALLEST_WEIGHT || stays {
            continue;
        }
        let shape = tensor.dims.iter().map(|extent| u64::try_from(*extent));
        let shape: Vec<u64> = shape
            .collect::<Result<_, _>>()
            .map_err(|_| negative(tensor))?;
        let start = block.len().next_multiple_of(WEIGHT_ALIGNMENT as usize);
        block.resize(start, 0);
        block.extend_from_slice(&bytes);
        list.weights.push(Weight {
            name: tensor.name().to_owned(),
            data_type,
            shape,
            offset: start as u64,
            length: bytes.len() as u64,
        });
        refer(tensor, reference, start, bytes.len());
    }
    Ok((block, list))
}

fn negative(tensor: &TensorProto) -> CompileError {
    let name = tensor.name();
    CompileError::Model(format!("the weight '{name}' has a negative extent"))
}

/// Leaves of an initializer its name, type and shape, and where its data is.
fn refer(tensor: &mut TensorProto, reference: Reference, start: usize, length: usize) {
    let name = tensor.name.take();
    let (dims, data_type) = (std::mem::take(&mut tensor.dims), tensor.data_type);
    let mut external_data = vec![];
    match reference {
        #[cfg(feature = "engines")]
        Reference::Nowhere => {
            external_data.push(entry("location", sesemi_protocol::package::NOWHERE))
        }
        Reference::Place => external_data.extend([
            entry("location", WEIGHTS),
            entry("offset", &start.to_string()),
            entry("length", &length.to_string()),
        ]),
    }
    *tensor = TensorProto {
        dims,
        data_type,
        name,
        external_data,
        data_location: Some(data_location::EXTERNAL),
        ..TensorProto::default()
    };
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto::new(key, value)
}

/// Type and bytes of a tensor whose elements are in the model; none of a type that a list cannot have.
pub(crate) fn elements(tensor: &TensorProto) -> Option<(DataType, Bytes)> {
    let data_type = protocol_type(tensor.data_type())?;
    // Texts stay in the graph.
    let size = data_type.size()?;
    if let Some(raw) = &tensor.raw_data {
        return Some((data_type, raw.clone()));
    }
    let wide = |value: &i32| value.to_le_bytes();
    let bytes: Vec<u8> = match tensor.data_type() {
        data_type::FLOAT => little_endian(&tensor.float_data, |it| it.to_le_bytes()),
        data_type::DOUBLE => little_endian(&tensor.double_data, |it| it.to_le_bytes()),
        data_type::INT64 => little_endian(&tensor.int64_data, |it| it.to_le_bytes()),
        data_type::UINT64 => little_endian(&tensor.uint64_data, |it| it.to_le_bytes()),
        data_type::UINT32 => {
            let low = |it: &u64| (*it as u32).to_le_bytes();
            little_endian(&tensor.uint64_data, low)
        }
        data_type::INT32 => little_endian(&tensor.int32_data, wide),
        _ => match size {
            1 => little_endian(&tensor.int32_data, |it| {
                let [low, ..] = it.to_le_bytes();
                [low]
            }),
            _ => little_endian(&tensor.int32_data, |it| {
                let [low, high, ..] = it.to_le_bytes();
                [low, high]
            }),
        },
    };
    Some((data_type, bytes.into()))
}

fn little_endian<T, const N: usize>(values: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(bytes).collect()
}
