//! From the parts of a form to a session.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ort::environment::Environment;
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Outlet;
use sesemi_protocol::package::{
    Dimension, Form, Manifest, ModelFormat, TensorSpec, WEIGHT_ALIGNMENT, WEIGHTS, WeightList,
};
use sesemi_semirt::engine::{EngineError, LoadedModel};
use zeroize::Zeroizing;

use crate::blocks_for;
use crate::execution::{Loaded, Port, Shared};
use crate::external::{Outside, Seen, check};
use crate::raw::{Memory, Session, Weights, element_type};

/// Where external data is looked for: a folder that is always there, and has no file of weights. All come from the package.
const NO_FILES: &str = "/dev";

pub(crate) fn load(
    environment: &Environment,
    memory: &Arc<Memory>,
    manifest: &Manifest,
    form: &Form,
    parts: Vec<Vec<u8>>,
) -> Result<Box<dyn LoadedModel>, EngineError> {
    let parts = Parts::of(form, parts)?;
    let bytes = parts.bytes();
    let compiled = form.format == ModelFormat::OnnxRuntimeCompiled;
    let work = || -> Result<Loaded, EngineError> {
        let builder = options(environment, form).map_err(failed)?;
        let session = parts.commit(form, builder, memory)?;
        let inputs = ports(&manifest.inputs, session.ort.inputs(), "input")?;
        let outputs = ports(&manifest.outputs, session.ort.outputs(), "output")?;
        if inputs.len() != session.ort.inputs().len() {
            return Err(EngineError::Manifest("it has other inputs".into()));
        }
        Ok(Loaded {
            session: Session::new(session.ort, session.weights),
            memory: memory.clone(),
            manifest: manifest.clone(),
            inputs,
            outputs,
            // What is known, not what its owner says. Of the portable forms ONNX Runtime makes copies that it alone knows the size of.
            bytes: compiled.then_some(bytes),
        })
    };
    // `ort` panics where ONNX Runtime answers otherwise than it is known to.
    let loaded = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(EngineError::Load("the engine panicked".into())))?;
    Ok(Box::new(Shared(Arc::new(loaded))))
}

/// The parts of a form; all are wiped, weights that are used in place when the model goes.
enum Parts {
    Whole(Zeroizing<Vec<u8>>),
    WithWeights {
        weights: Weights,
        graph: Zeroizing<Vec<u8>>,
    },
    Compiled {
        weights: Weights,
        list: Zeroizing<Vec<u8>>,
        graph: Zeroizing<Vec<u8>>,
    },
}

/// What came of them.
struct Committed {
    ort: OrtSession,
    weights: Option<Weights>,
}

impl Parts {
    fn of(form: &Form, parts: Vec<Vec<u8>>) -> Result<Self, EngineError> {
        let mut parts = parts.into_iter();
        let mut next = || parts.next().map(Zeroizing::new);
        let taken = |mut part: Zeroizing<Vec<u8>>| Weights::new(std::mem::take(&mut *part));
        let read = match (form.format, next(), next(), next()) {
            (ModelFormat::Onnx, Some(graph), None, None) => Some(Self::Whole(graph)),
            (ModelFormat::OnnxWithWeights, Some(weights), Some(graph), None) => {
                let weights = taken(weights);
                Some(Self::WithWeights { weights, graph })
            }
            (ModelFormat::OnnxRuntimeCompiled, Some(weights), Some(list), Some(graph)) => {
                let weights = taken(weights);
                Some(Self::Compiled {
                    weights,
                    list,
                    graph,
                })
            }
            _ => None,
        };
        read.ok_or_else(|| EngineError::Load("it has another number of parts".into()))
    }

    /// Bytes that are there for as long as the model.
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Whole(graph) => graph.len(),
            Self::WithWeights { weights, graph } | Self::Compiled { weights, graph, .. } => {
                weights.capacity().saturating_add(graph.len())
            }
        };
        bytes as u64
    }

    fn commit(
        self,
        form: &Form,
        mut builder: SessionBuilder,
        memory: &Memory,
    ) -> Result<Committed, EngineError> {
        match self {
            Self::Whole(graph) => {
                check_blocks(form, check(&graph, &Outside::No).map_err(broken)?)?;
                let ort = builder.commit_from_memory(&graph).map_err(failed)?;
                Ok(Committed { ort, weights: None })
            }
            Self::WithWeights { weights, graph } => {
                check_blocks(form, check(&graph, &Outside::Part).map_err(broken)?)?;
                let name = CString::new(WEIGHTS).map_err(|e| EngineError::Load(e.to_string()))?;
                weights.lend_as_file(&name, &mut builder).map_err(failed)?;
                let ort = builder.commit_from_memory(&graph).map_err(failed)?;
                // It has made copies of them, whatever their size: none is used where it is.
                drop(weights);
                Ok(Committed { ort, weights: None })
            }
            Self::Compiled {
                mut weights,
                list,
                graph,
            } => {
                let list = WeightList::decode(&list, weights.bytes().len() as u64)
                    .map_err(|e| EngineError::Load(e.to_string()))?;
                let seen = check(&graph, &Outside::Listed(&list)).map_err(broken)?;
                check_blocks(form, seen)?;
                place(&mut weights, list, memory)?;
                weights.lend(&mut builder).map_err(failed)?;
                let ort = builder.commit_from_memory(&graph).map_err(failed)?;
                Ok(Committed {
                    ort,
                    weights: Some(weights),
                })
            }
        }
    }
}

/// Refuses a graph whose weights lie in blocks, unless it was made for this processor's: kernels read as much as their own width,
/// whatever the weights have.
fn check_blocks(form: &Form, seen: Seen) -> Result<(), EngineError> {
    if seen.blocked && Some(form.instruction_set) != blocks_for() {
        return Err(broken(
            "its weights lie in blocks for another processor than its form says",
        ));
    }
    Ok(())
}

/// Makes a value over each weight of a list that was checked.
fn place(weights: &mut Weights, list: WeightList, memory: &Memory) -> Result<(), EngineError> {
    weights.align(WEIGHT_ALIGNMENT as usize);
    for weight in list.weights {
        let wrong = || EngineError::Load("its list of weights has one that cannot be".into());
        let range = weight.range();
        let start = usize::try_from(range.start).map_err(|_| wrong())?;
        let end = usize::try_from(range.end).map_err(|_| wrong())?;
        let shape = weight.shape.iter().map(|extent| i64::try_from(*extent));
        let shape: Vec<i64> = shape.collect::<Result<_, _>>().map_err(|_| wrong())?;
        let name = CString::new(weight.name).map_err(|_| wrong())?;
        weights
            .add(name, weight.data_type, &shape, start..end, memory)
            .map_err(failed)?;
    }
    Ok(())
}

/// What every session has in common, and what a form asks for.
fn options(environment: &Environment, form: &Form) -> Result<SessionBuilder, ort::Error> {
    let optimisation = match form.format {
        // Done by its owner.
        ModelFormat::OnnxRuntimeCompiled => GraphOptimizationLevel::Disable,
        ModelFormat::Onnx | ModelFormat::OnnxWithWeights => GraphOptimizationLevel::All,
    };
    let builder = OrtSession::builder(environment)?
        .with_optimization_level(optimisation)?
        .with_log_level(ort::logging::LogLevel::Fatal)?
        .with_prepacking(form.prepack)?
        // Anything else would be guessed from the bytes.
        .with_config_entry("session.load_model_format", "ONNX")?
        .with_config_entry(
            "session.model_external_initializers_file_folder_path",
            NO_FILES,
        )?;
    Ok(builder)
}

/// Finds the inputs or outputs of a manifest in the graph and compares them.
fn ports(specs: &[TensorSpec], found: &[Outlet], what: &str) -> Result<Vec<Port>, EngineError> {
    specs
        .iter()
        .map(|spec| {
            let wrong = |why: &str| EngineError::Manifest(format!("{what} '{}' {why}", spec.name));
            let port = found.iter().find(|port| port.name() == spec.name);
            let port = port.ok_or_else(|| wrong("is missing"))?;
            let element = port.dtype().tensor_type();
            if element != Some(element_type(spec.data_type).into()) {
                return Err(wrong("has another data type"));
            }
            let shape = port.dtype().tensor_shape().map(|shape| &**shape);
            if !fits(shape.unwrap_or_default(), spec) {
                return Err(wrong("has another shape"));
            }
            let name = CString::new(spec.name.as_str()).map_err(|_| wrong("has no name"))?;
            Ok(Port { name })
        })
        .collect()
}

/// Whether the graph's shape, in which a dimension that may vary is negative, allows all that the manifest does.
fn fits(found: &[i64], spec: &TensorSpec) -> bool {
    found.len() == spec.shape.len()
        && found
            .iter()
            .zip(&spec.shape)
            .all(|(found, said)| match (u64::try_from(*found), said) {
                (Err(_), _) => true,
                (Ok(found), Dimension::Fixed(said)) => found == *said,
                (Ok(_), Dimension::Dynamic) => false,
            })
}

fn broken(why: &str) -> EngineError {
    EngineError::Load(why.into())
}

fn failed<R>(error: ort::Error<R>) -> EngineError {
    EngineError::Load(error.to_string())
}
