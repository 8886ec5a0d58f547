//! The embedded engine: RTen, pure Rust, static, nothing to install. (The role TFLM has in the paper.)
//!
//! RTen knows four element types; the other types of the protocol are converted where that loses nothing, and refused where
//! it would. It panics on some malformed models, so loading and running are fenced: a panic becomes an error and the
//! execution is thrown away.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::rten::{
    DataType as RtenType, Dimension as RtenDimension, Model, ModelOptions, NodeId, RunOptions,
    ThreadPool, Value, ValueOrView, ValueType,
};
use rten_tensor::Layout as _;
use sesemi_protocol::package::{Dimension, Form, Manifest, ModelFormat, TensorSpec, WEIGHTS};
use sesemi_protocol::tensor::{DataType, Tensor, TensorView};
use zeroize::Zeroize as _;

use super::{
    Engine, EngineError, Execution, LoadedModel, Plain, check_request, framing, has_instructions,
};

/// RTen with its own threads.
pub struct Rten {
    threads: Arc<ThreadPool>,
}

impl core::fmt::Debug for Rten {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Rten(..)")
    }
}

impl Rten {
    /// An engine that uses this many threads for each run.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(ThreadPool::with_num_threads(threads)),
        }
    }
}

struct RtenModel {
    model: Arc<Model>,
    manifest: Arc<Manifest>,
    threads: Arc<ThreadPool>,
}

/// Buffers for one run at a time. RTen has its own for what lies between inputs and outputs.
struct RtenExecution {
    model: Arc<Model>,
    manifest: Arc<Manifest>,
    options: RunOptions,
}

impl Engine for Rten {
    fn name(&self) -> &'static str {
        "rten"
    }

    fn wipes(&self) -> bool {
        true
    }

    fn takes(&self, form: &Form) -> bool {
        matches!(
            form.format,
            ModelFormat::Onnx | ModelFormat::OnnxWithWeights
        ) && has_instructions(form.instruction_set)
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        check_types(manifest)?;
        let mut parts = parts.into_iter();
        let (first, second) = (parts.next(), parts.next());
        let mut options = ModelOptions::with_all_ops();
        options.prepack_weights(form.prepack);
        let graph = match (first, second) {
            (Some(weights), Some(graph)) => {
                // Used where they are, without a copy.
                options.external_data(WEIGHTS, weights);
                graph
            }
            (Some(graph), None) => graph,
            (None, _) => return Err(EngineError::Load("it has no parts".into())),
        };
        // RTen's reader hangs, or ends the process, on some bytes that are no model: no fence holds that.
        framing::check(&graph).map_err(|e| EngineError::Load(e.to_string()))?;
        let model = fence(|| options.load(graph))
            .map_err(EngineError::Load)?
            .map_err(|e| EngineError::Load(e.to_string()))?;
        for spec in &manifest.inputs {
            check_spec(&model, spec, "input", model.input_ids())?;
        }
        for spec in &manifest.outputs {
            check_spec(&model, spec, "output", model.output_ids())?;
        }
        if model.input_ids().len() != manifest.inputs.len() {
            return Err(EngineError::Manifest("it has other inputs".into()));
        }
        Ok(Box::new(RtenModel {
            model: Arc::new(model),
            manifest: Arc::new(manifest.clone()),
            threads: self.threads.clone(),
        }))
    }
}

impl LoadedModel for RtenModel {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        Ok(Box::new(RtenExecution {
            model: self.model.clone(),
            manifest: self.manifest.clone(),
            options: RunOptions::default().with_thread_pool(Some(self.threads.clone())),
        }))
    }
}

impl Execution for RtenExecution {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError> {
        check_request(&self.manifest, inputs, wanted)?;
        let specs = wanted_specs(&self.manifest, wanted);
        let ids: Vec<NodeId> = specs
            .iter()
            .map(|spec| node(&self.model, &spec.name))
            .collect::<Result<_, _>>()?;
        let values = inputs
            .iter()
            .map(|input| Ok((node(&self.model, input.name)?, to_value(input)?.into())))
            .collect::<Result<Vec<(NodeId, ValueOrView<'_>)>, EngineError>>()?;
        let options = self.options.clone();
        let outputs = fence(|| self.model.run(values, &ids, Some(options)))
            .map_err(EngineError::Run)?
            .map_err(|e| EngineError::Run(e.to_string()))?;
        let mut outputs = outputs.into_iter();
        let mut made = Plain(Vec::with_capacity(specs.len()));
        for (spec, value) in specs.iter().zip(&mut outputs) {
            match from_value(spec, value) {
                Ok(tensor) => made.0.push(tensor),
                Err(error) => {
                    outputs.for_each(forget);
                    return Err(error);
                }
            }
        }
        Ok(made.into_inner())
    }
}

/// Runs engine code that may panic. Whatever it was working on is not used again.
fn fence<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the engine panicked".to_owned())
}

fn wanted_specs<'m>(manifest: &'m Manifest, wanted: &[String]) -> Vec<&'m TensorSpec> {
    if wanted.is_empty() {
        return manifest.outputs.iter().collect();
    }
    wanted
        .iter()
        .filter_map(|name| manifest.outputs.iter().find(|spec| spec.name == *name))
        .collect()
}

fn node(model: &Model, name: &str) -> Result<NodeId, EngineError> {
    model
        .node_id(name)
        .map_err(|e| EngineError::Run(e.to_string()))
}

/// The engine's element type for one of the protocol's; `None` where it has none.
fn engine_type(data_type: DataType) -> Option<RtenType> {
    match data_type {
        DataType::Fp32 => Some(RtenType::Float),
        DataType::Int32 | DataType::Int64 | DataType::Bool => Some(RtenType::Int32),
        DataType::Int8 => Some(RtenType::Int8),
        DataType::Uint8 => Some(RtenType::UInt8),
        _ => None,
    }
}

/// Checks that RTen has a type for every input and output, before it looks at the model.
fn check_types(manifest: &Manifest) -> Result<(), EngineError> {
    let named = |what| move |spec| (what, spec);
    let inputs = manifest.inputs.iter().map(named("input"));
    let outputs = manifest.outputs.iter().map(named("output"));
    let mut unknown = inputs.chain(outputs);
    match unknown.find(|(_, spec)| engine_type(spec.data_type).is_none()) {
        None => Ok(()),
        Some((what, spec)) => Err(EngineError::Load(no_type(what, spec))),
    }
}

fn no_type(what: &str, spec: &TensorSpec) -> String {
    format!(
        "{what} '{}' is {}, and RTen has FP32, INT32, INT64, INT8, UINT8 and BOOL only; ONNX Runtime has all types",
        spec.name,
        spec.data_type.as_str()
    )
}

/// Checks that the model has this input or output, of this type and shape as far as the model says.
fn check_spec(
    model: &Model,
    spec: &TensorSpec,
    what: &str,
    ids: &[NodeId],
) -> Result<(), EngineError> {
    let wrong = |why: &str| EngineError::Manifest(format!("{what} '{}' {why}", spec.name));
    let expected =
        engine_type(spec.data_type).ok_or_else(|| EngineError::Load(no_type(what, spec)))?;
    let id = model
        .node_id(&spec.name)
        .ok()
        .filter(|id| ids.contains(id))
        .ok_or_else(|| wrong("is missing"))?;
    let info = model.node_info(id).ok_or_else(|| wrong("is missing"))?;
    match info.dtype() {
        Some(ValueType::Tensor(found)) if found == expected => {}
        // The graph need not name the types of outputs; inputs it must.
        None if what == "output" => {}
        _ => return Err(wrong("has another data type")),
    }
    let Some(shape) = info.shape() else {
        return Ok(());
    };
    let fits = shape.len() == spec.shape.len()
        && shape
            .iter()
            .zip(&spec.shape)
            .all(|(found, said)| match (found, said) {
                (RtenDimension::Fixed(found), Dimension::Fixed(said)) => *found as u64 == *said,
                (RtenDimension::Symbolic(_), _) => true,
                (RtenDimension::Fixed(_), Dimension::Dynamic) => false,
            });
    if fits {
        Ok(())
    } else {
        Err(wrong("has another shape"))
    }
}

/// Hands an input to the engine. Its shape and length were checked against each other when the envelope was opened.
fn to_value(input: &TensorView<'_>) -> Result<Value, EngineError> {
    let failed =
        |e: &dyn core::fmt::Display| EngineError::Input(format!("input '{}': {e}", input.name));
    let shape: Vec<usize> = input
        .shape
        .iter()
        .map(|extent| usize::try_from(*extent))
        .collect::<Result<_, _>>()
        .map_err(|e| failed(&e))?;
    match input.data_type {
        DataType::Fp32 => {
            let (values, _) = input.data.as_chunks::<4>();
            let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Value::from_shape(shape.as_slice(), values).map_err(|e| failed(&e))
        }
        DataType::Int32 => {
            let (values, _) = input.data.as_chunks::<4>();
            let values: Vec<i32> = values.iter().map(|b| i32::from_le_bytes(*b)).collect();
            Value::from_shape(shape.as_slice(), values).map_err(|e| failed(&e))
        }
        DataType::Int64 => {
            let (values, _) = input.data.as_chunks::<8>();
            let values: Vec<i32> = values
                .iter()
                .map(|b| i32::try_from(i64::from_le_bytes(*b)))
                .collect::<Result<_, _>>()
                .map_err(|_| failed(&"this engine takes INT64 values from -2^31 to 2^31-1"))?;
            Value::from_shape(shape.as_slice(), values).map_err(|e| failed(&e))
        }
        DataType::Bool => {
            let values: Vec<i32> = input.data.iter().map(|b| i32::from(*b != 0)).collect();
            Value::from_shape(shape.as_slice(), values).map_err(|e| failed(&e))
        }
        DataType::Uint8 => {
            Value::from_shape(shape.as_slice(), input.data.to_vec()).map_err(|e| failed(&e))
        }
        DataType::Int8 => {
            let values: Vec<i8> = input.data.iter().map(|b| b.cast_signed()).collect();
            Value::from_shape(shape.as_slice(), values).map_err(|e| failed(&e))
        }
        _ => Err(failed(&"this engine does not know its data type")),
    }
}

/// Takes an output from the engine, in the type that the manifest promises.
fn from_value(spec: &TensorSpec, value: Value) -> Result<Tensor, EngineError> {
    let shape = value.shape().iter().map(|extent| *extent as u64).collect();
    let data = match (spec.data_type, value) {
        (DataType::Fp32, Value::FloatTensor(t)) => little_endian(t.into_data(), f32::to_le_bytes),
        (DataType::Int32, Value::Int32Tensor(t)) => little_endian(t.into_data(), i32::to_le_bytes),
        (DataType::Int64, Value::Int32Tensor(t)) => {
            little_endian(t.into_data(), |v: i32| i64::from(v).to_le_bytes())
        }
        (DataType::Bool, Value::Int32Tensor(t)) => {
            little_endian(t.into_data(), |v: i32| [u8::from(v != 0)])
        }
        (DataType::Int8, Value::Int8Tensor(t)) => little_endian(t.into_data(), i8::to_le_bytes),
        (DataType::Uint8, Value::UInt8Tensor(t)) => t.into_data(),
        (_, value) => {
            forget(value);
            return Err(EngineError::Run(format!(
                "output '{}' is not of the type that the manifest says",
                spec.name
            )));
        }
    };
    Ok(Tensor {
        name: spec.name.clone(),
        data_type: spec.data_type,
        shape,
        data,
    })
}

/// Wipes an output that is not handed out.
fn forget(value: Value) {
    match value {
        Value::FloatTensor(t) => t.into_data().zeroize(),
        Value::Int32Tensor(t) => t.into_data().zeroize(),
        Value::Int8Tensor(t) => t.into_data().zeroize(),
        Value::UInt8Tensor(t) => t.into_data().zeroize(),
        _ => {}
    }
}

/// The bytes of an output; the engine's own buffer is wiped.
fn little_endian<T, const N: usize>(mut values: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Vec<u8>
where
    T: Copy + zeroize::Zeroize,
{
    let out = values.iter().flat_map(|value| bytes(*value)).collect();
    values.zeroize();
    out
}

#[cfg(test)]
mod tests;
