//! The compiled form for ONNX Runtime.

use bytes::Bytes;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use sesemi_onnxruntime::{OnnxRuntime, blocks_for};
use sesemi_protocol::package::{InstructionSet, Memory, ModelFormat};

use crate::graph::has_domain;
use crate::weights::{Reference, move_weights};
use crate::{CompileError, CompiledForm};

/// Operators whose weights lie in blocks as wide as this processor's vectors.
const BLOCKED: &str = "com.microsoft.nchwc";
/// The optimised graph.
const OPTIMISED: &str = "optimised.onnx";

/// Has ONNX Runtime optimise a model for this processor, and moves the weights out of the result.
///
/// `prepack`: whether weights should be laid out once more when the form is loaded. That takes time and memory then, and pays where a
/// model multiplies large matrices (transformers, 8-bit weights), not for convolutions, whose weights are laid out here.
///
/// # Errors
/// [`CompileError`].
pub fn compile_for_onnxruntime(
    engine: &OnnxRuntime,
    onnx: &[u8],
    prepack: bool,
) -> Result<CompiledForm, CompileError> {
    let mut model = sesemi_onnx::read(optimise(engine, onnx)?)?;
    let graph = model.graph.get_or_insert_default();
    let instruction_set = if has_domain(graph, BLOCKED) {
        blocks_for().ok_or_else(|| {
            CompileError::Model("this processor has blocks that no instruction set names".into())
        })?
    } else {
        InstructionSet::Any
    };
    let (weights, list) = move_weights(&mut model, Reference::Nowhere)?;
    let list = list.encode(weights.len() as u64)?;
    Ok(CompiledForm {
        format: ModelFormat::OnnxRuntimeCompiled,
        instruction_set,
        parts: vec![weights, list, sesemi_onnx::write(&model)?],
        memory: Memory::default(),
        prepack,
    })
}

/// The graph as ONNX Runtime would run it. It can only be had as a file; the folder is this user's alone.
fn optimise(engine: &OnnxRuntime, onnx: &[u8]) -> Result<Bytes, CompileError> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(OPTIMISED);
    let environment = engine.environment();
    let environment = environment.map_err(|e| CompileError::OnnxRuntime(e.to_string()))?;
    let session = || {
        Session::builder(&environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_log_level(ort::logging::LogLevel::Fatal)?
            .with_optimized_model_path(&file)?
            .commit_from_memory(onnx)
    };
    let failed = |error: ort::Error| CompileError::OnnxRuntime(error.to_string());
    drop(session().map_err(failed)?);
    Ok(std::fs::read(&file)?.into())
}
