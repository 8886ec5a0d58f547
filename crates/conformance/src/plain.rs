//! What all else is compared with: ONNX Runtime on the original file, in this process, with all optimisations off.

use std::path::Path;

use sesemi_compile::unoptimised;
use sesemi_onnxruntime::{Library, OnnxRuntime};
use sesemi_protocol::tensor::{Tensor, TensorView};

use crate::Outcome;

/// ONNX Runtime in this process.
pub(crate) struct Plain(OnnxRuntime);

impl Plain {
    pub(crate) fn start(library: &Path) -> Outcome<Self> {
        let library = Library::load(library).map_err(|e| e.to_string())?;
        let engine = OnnxRuntime::starting(library, 1).map_err(|e| e.to_string())?;
        Ok(Self(engine))
    }

    /// What a model computes of each sample.
    pub(crate) fn run(&self, onnx: &[u8], samples: &[Vec<Tensor>]) -> Outcome<Vec<Vec<Tensor>>> {
        let form = unoptimised(onnx).map_err(|e| e.to_string())?;
        let (model, _) = sesemi_compile::load(&self.0, onnx, &form).map_err(|e| e.to_string())?;
        let mut execution = model.execution().map_err(|e| e.to_string())?;
        let mut run = |inputs: &Vec<Tensor>| {
            let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
            execution.run(&views, &[]).map_err(|e| e.to_string())
        };
        samples.iter().map(&mut run).collect()
    }
}
