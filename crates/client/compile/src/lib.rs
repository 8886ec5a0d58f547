//! The owner's offline step: from an ONNX model to the forms that engines load fast. (What TVM's compiler is in the paper.)
//!
//! ```no_run
//! # fn example(engine: &sesemi_onnxruntime::OnnxRuntime, onnx: &[u8]) -> Result<(), sesemi_compile::CompileError> {
//! use sesemi_compile::{Tolerance, check, compile_for_onnxruntime, sample_inputs, split_weights};
//! let (inputs, outputs) = sesemi_compile::specs(onnx)?;
//! let samples: Vec<_> = (0..3).map(|seed| sample_inputs(&inputs, seed)).collect();
//! // The fast form, for processors like this one, and one for all others.
//! let mut compiled = compile_for_onnxruntime(engine, onnx, false)?;
//! let portable = split_weights(onnx)?;
//! let checked = check(engine, onnx, &compiled, &samples, Tolerance::default())?;
//! compiled.memory = checked.memory;
//! # Ok(()) }
//! ```
//!
//! A compiled form is right if it computes what the original does: [`check`] runs both, in the engine that will serve it.
//! Nothing of this is in an enclave, which would not believe it either: there, the owner's manifest says what is loaded.

#![forbid(unsafe_code)]

#[cfg(feature = "engines")]
mod check;
mod fold;
mod folder;
mod graph;
mod job;
#[cfg(feature = "engines")]
mod onnxruntime;
mod results;
mod weights;

use sesemi_onnx::OnnxError;
use sesemi_protocol::package::{FormContent, InstructionSet, Memory, ModelFormat, WeightListError};

#[cfg(feature = "engines")]
pub use check::{Checked, check, check_against, described, load};
pub use folder::{
    DESCRIPTION, Description, EngineReport, FileDigest, FolderError, FormDescription, Port,
    part_names,
};
pub use graph::specs;
pub use job::{Done, Job, JobForm, Refused, Said};
#[cfg(feature = "engines")]
pub use onnxruntime::compile_for_onnxruntime;
pub use results::{Choices, Tolerance, compare, sample_inputs, sample_inputs_of};
pub use weights::{split_weights, unoptimised, whole};

/// Weights from this size on are moved out of a graph, in bytes: smaller ones are not worth an entry in a list.
pub const SMALLEST_WEIGHT: usize = 128;

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is no ONNX model.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// It has something that requests, or forms, cannot have.
    #[error("{0}")]
    Model(String),
    /// ONNX Runtime does not take it.
    #[error("ONNX Runtime does not take the model: {0}")]
    OnnxRuntime(String),
    /// A form could not be written.
    #[error("the compiled form cannot be written: {0}")]
    List(#[from] WeightListError),
    /// Files of the optimiser.
    #[error("cannot use a temporary folder: {0}")]
    Io(#[from] std::io::Error),
    /// A form does not load or run.
    #[cfg(feature = "engines")]
    #[error("the compiled form does not run: {0}")]
    Engine(#[from] sesemi_semirt::engine::EngineError),
    /// The original does not load or run.
    #[cfg(feature = "engines")]
    #[error("the original does not run: {0}")]
    Original(#[source] sesemi_semirt::engine::EngineError),
    /// A form computes something else.
    #[error("the compiled form computes something else: {0}")]
    Differs(String),
    /// Rows of a batch are not each other's business, and these are.
    #[error(
        "requests cannot be the rows of one run, for then the model computes something else: {0}; leave the batch out"
    )]
    Rows(String),
}

/// A form with its own bytes; [`FormContent`] is a view of one.
#[derive(Debug, Clone)]
pub struct CompiledForm {
    /// How to read its parts.
    pub format: ModelFormat,
    /// What a processor must have.
    pub instruction_set: InstructionSet,
    /// Its parts, weights first.
    pub parts: Vec<Vec<u8>>,
    /// What it needs; [`check`] measures it.
    pub memory: Memory,
    /// Whether the engine should lay out weights once more when it loads it.
    pub prepack: bool,
}

impl CompiledForm {
    /// Views of its parts, for [`CompiledForm::content`].
    #[must_use]
    pub fn parts(&self) -> Vec<&[u8]> {
        self.parts.iter().map(Vec::as_slice).collect()
    }

    /// What goes into a package.
    #[must_use]
    pub fn content<'a>(&self, parts: &'a [&'a [u8]]) -> FormContent<'a> {
        FormContent {
            format: self.format,
            instruction_set: self.instruction_set,
            parts,
            memory: self.memory,
            prepack: self.prepack,
        }
    }
}
