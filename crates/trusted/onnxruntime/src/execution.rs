//! One run at a time in a session that many share.

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::sync::Arc;

use ort::logging::LogLevel;
use ort::session::RunOptions;
use sesemi_process::Wiped;
use sesemi_protocol::package::{Manifest, TensorSpec};
use sesemi_protocol::tensor::{DataType, Tensor, TensorView};
use sesemi_semirt::engine::{EngineError, Execution, LoadedModel, Plain, Stop, check_request};

use crate::raw::{Memory, Session, Value, is_aligned};

/// A model that is ready to run, shared by its executions.
pub(crate) struct Loaded {
    pub(crate) session: Session,
    pub(crate) memory: Arc<Memory>,
    pub(crate) manifest: Manifest,
    /// In the manifest's order.
    pub(crate) inputs: Vec<Port>,
    /// In the manifest's order.
    pub(crate) outputs: Vec<Port>,
    pub(crate) bytes: Option<u64>,
}

/// An input or output, as the graph calls it.
pub(crate) struct Port {
    pub(crate) name: CString,
}

/// What the runtime holds of it.
pub(crate) struct Shared(pub(crate) Arc<Loaded>);

impl LoadedModel for Shared {
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError> {
        let options = RunOptions::new().and_then(|mut options| {
            options.set_log_level(LogLevel::Fatal)?;
            Ok(options)
        });
        Ok(Box::new(OneRun {
            model: self.0.clone(),
            options: Arc::new(options.map_err(failed)?),
        }))
    }

    fn into_memory(self: Box<Self>) -> Option<Wiped> {
        Arc::into_inner(self.0)?.session.into_memory()
    }

    fn memory(&self) -> Option<u64> {
        self.0.bytes
    }
}

/// Buffers between inputs and outputs are the session's.
struct OneRun {
    model: Arc<Loaded>,
    options: Arc<RunOptions>,
}

/// Ends the runs with these options.
struct Stopper(Arc<RunOptions>);

impl Stop for Stopper {
    fn stop(&self) {
        // It only sets a flag.
        let _ = self.0.terminate();
    }
}

impl Execution for OneRun {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError> {
        let model = &*self.model;
        check_request(&model.manifest, inputs, wanted)?;
        let outputs = model.wanted(wanted)?;
        // Kept here for as long as the values over them.
        let aligned: Vec<Aligned<'_>> = inputs.iter().map(Aligned::of).collect();
        let values = inputs.iter().zip(&aligned);
        let values = values
            .map(|(input, aligned)| model.value(input, aligned.bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        let names: Vec<&CStr> = outputs.iter().map(|(_, name)| *name).collect();
        let taken = model.session.run(
            &self.options,
            &values,
            &names,
            |index, data_type, shape, bytes| {
                let spec = outputs.get(index).map(|(spec, _)| *spec);
                let spec = spec.ok_or_else(|| Failed(other_type()))?;
                // If a later one fails, this one is wiped.
                let taken = tensor(spec, data_type, shape, bytes).map_err(Failed)?;
                Ok(Plain(vec![taken]))
            },
        );
        let taken: Vec<Plain> = taken.map_err(|Failed(error)| error)?;
        Ok(taken.into_iter().flat_map(Plain::into_inner).collect())
    }

    fn stopper(&self) -> Option<Arc<dyn Stop>> {
        Some(Arc::new(Stopper(self.options.clone())))
    }
}

impl Loaded {
    /// The outputs to ask for: those that are wanted, or all.
    fn wanted(&self, wanted: &[String]) -> Result<Vec<(&TensorSpec, &CStr)>, EngineError> {
        let all = || self.manifest.outputs.iter().zip(&self.outputs);
        if wanted.is_empty() {
            return Ok(all()
                .map(|(spec, port)| (spec, port.name.as_c_str()))
                .collect());
        }
        let mut found: Vec<(&TensorSpec, &CStr)> = Vec::with_capacity(wanted.len());
        for name in wanted {
            if found.iter().any(|(spec, _)| spec.name == *name) {
                return Err(EngineError::Input(format!(
                    "output '{name}' is asked for twice"
                )));
            }
            let output = all().find(|(spec, _)| spec.name == *name);
            found.extend(output.map(|(spec, port)| (spec, port.name.as_c_str())));
        }
        Ok(found)
    }

    /// An input for ONNX Runtime, over its bytes.
    fn value<'v>(
        &'v self,
        input: &TensorView<'_>,
        bytes: &'v [u8],
    ) -> Result<(&'v CStr, Value<'v>, &'v [u8]), EngineError> {
        let wrong = |why: &dyn core::fmt::Display| {
            EngineError::Input(format!("input '{}': {why}", input.name))
        };
        if input.data_type == DataType::Bool && bytes.iter().any(|byte| *byte > 1) {
            return Err(wrong(&"a BOOL is a byte of 0 or 1"));
        }
        let mut ports = self.manifest.inputs.iter().zip(&self.inputs);
        let port = ports.find(|(spec, _)| spec.name == input.name);
        let (_, port) = port.ok_or_else(|| wrong(&"the model does not have it"))?;
        let shape = input.shape.iter().map(|extent| i64::try_from(*extent));
        let shape: Vec<i64> = shape.collect::<Result<_, _>>().map_err(|e| wrong(&e))?;
        let value = match input.data_type {
            DataType::Bytes => Value::strings(&shape, bytes),
            other => Value::over(other, &shape, bytes, &self.memory),
        };
        Ok((port.name.as_c_str(), value.map_err(|e| wrong(&e))?, bytes))
    }
}

/// An input's bytes where its type can be read: its own, or, where those lie askew, a copy that is wiped.
enum Aligned<'i> {
    Own(&'i [u8]),
    Copied { bytes: Wiped, start: usize },
}

impl<'i> Aligned<'i> {
    fn of(input: &TensorView<'i>) -> Self {
        if is_aligned(input.data, input.data_type) {
            return Self::Own(input.data);
        }
        let size = input.data_type.size().unwrap_or(1);
        let room = input.data.len().saturating_add(size);
        let mut bytes = Wiped(Vec::with_capacity(room));
        let start = bytes.as_ptr().align_offset(size).min(size);
        bytes.resize(start, 0);
        bytes.extend_from_slice(input.data);
        Self::Copied { bytes, start }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Copied { bytes, start } => bytes.get(*start..).unwrap_or_default(),
        }
    }
}

/// An output as it travels.
fn tensor(
    spec: &TensorSpec,
    data_type: DataType,
    shape: Vec<u64>,
    bytes: Cow<'_, [u8]>,
) -> Result<Tensor, EngineError> {
    if !spec.fits(data_type, &shape) {
        if let Cow::Owned(bytes) = bytes {
            drop(Wiped(bytes));
        }
        return Err(EngineError::Run(format!(
            "output '{}' is not of the type and shape that the manifest says",
            spec.name
        )));
    }
    Ok(Tensor {
        name: spec.name.clone(),
        data_type,
        shape,
        data: bytes.into_owned(),
    })
}

fn other_type() -> EngineError {
    EngineError::Run("there is an output more than was asked for".into())
}

/// An error of a run, also if it is ONNX Runtime's.
struct Failed(EngineError);

impl From<ort::Error> for Failed {
    fn from(error: ort::Error) -> Self {
        Self(failed(error))
    }
}

fn failed(error: ort::Error) -> EngineError {
    EngineError::Run(error.to_string())
}
