//! What runs a model. One trait, because an engine is most of the trusted code and owners choose which one they trust; each
//! engine is a SeMIRT image with a measurement of its own.

pub mod framing;
mod plain;
pub mod rows;
pub mod rten;

use std::sync::Arc;

pub use plain::Plain;
use sesemi_process::Wiped;
use sesemi_protocol::package::{Form, InstructionSet, Manifest};
use sesemi_protocol::tensor::{Tensor, TensorView};

/// Why an engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The model does not load here.
    #[error("the model does not load: {0}")]
    Load(String),
    /// The model and its manifest disagree.
    #[error("the model is not what its manifest says: {0}")]
    Manifest(String),
    /// The inputs do not fit.
    #[error("{0}")]
    Input(String),
    /// The run failed.
    #[error("the run failed: {0}")]
    Run(String),
}

/// Loads models.
pub trait Engine: Send + Sync {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// Whether this engine reads a format, and this processor does what the form asks for.
    fn takes(&self, form: &Form) -> bool;

    /// Whether all memory that runs use comes from this program's allocator, which wipes it when that is asked for. Requests that
    /// must leave nothing behind are refused where it does not.
    fn wipes(&self) -> bool;

    /// Loads the decrypted parts of a form and checks them against the manifest. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`EngineError::Load`] or [`EngineError::Manifest`].
    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError>;
}

/// A loaded model: one copy, shared by all executions.
pub trait LoadedModel: Send + Sync {
    /// Makes an execution: the buffers that one run at a time needs. It is kept and used again.
    ///
    /// # Errors
    /// [`EngineError::Run`] if buffers cannot be had.
    fn execution(&self) -> Result<Box<dyn Execution>, EngineError>;

    /// The memory that its weights were decrypted in, if that is there and nobody else uses it any more; all else is dropped. It is
    /// not wiped yet: the weights of the next model are decrypted over it.
    fn into_memory(self: Box<Self>) -> Option<Wiped> {
        None
    }

    /// Bytes of memory that the loaded model takes, if the engine knows.
    fn memory(&self) -> Option<u64> {
        None
    }
}

/// What one run at a time needs.
pub trait Execution: Send {
    /// Runs the model; the outputs come in the manifest's order, or in that of `wanted` if it is not empty. Nothing of the
    /// inputs stays behind in the execution's own buffers. Blocks for as long as the run takes.
    ///
    /// # Errors
    /// [`EngineError::Input`] if the inputs do not fit, [`EngineError::Run`] if the run fails.
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        wanted: &[String],
    ) -> Result<Vec<Tensor>, EngineError>;

    /// What stops this execution from another thread, if the engine can be stopped. It may be asked for once and kept.
    fn stopper(&self) -> Option<Arc<dyn Stop>> {
        None
    }
}

/// Stops an execution while it runs.
pub trait Stop: Send + Sync {
    /// Has the run under way, or the next one, end with [`EngineError::Run`] as soon as the engine looks, which it does between
    /// operators. An execution that was stopped stays so: drop it and make another.
    fn stop(&self);
}

/// Whether this processor has an instruction set.
#[must_use]
pub fn has_instructions(set: InstructionSet) -> bool {
    match set {
        InstructionSet::Any => true,
        #[cfg(target_arch = "x86_64")]
        InstructionSet::X86Avx2 => {
            std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::X86Avx512 => {
            std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512bw")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512vl")
        }
        #[cfg(not(target_arch = "x86_64"))]
        InstructionSet::X86Avx2 | InstructionSet::X86Avx512 => false,
    }
}

/// Checks inputs and wanted outputs against the manifest, for all engines alike.
///
/// # Errors
/// [`EngineError::Input`], with a sentence for the user.
pub fn check_request(
    manifest: &Manifest,
    inputs: &[TensorView<'_>],
    wanted: &[String],
) -> Result<(), EngineError> {
    let unknown = inputs
        .iter()
        .map(|input| input.name)
        .find(|name| manifest.inputs.iter().all(|spec| spec.name != *name));
    if let Some(name) = unknown {
        let known: Vec<String> = manifest
            .inputs
            .iter()
            .map(|spec| format!("{} {}", spec.name, spec.describe()))
            .collect();
        return Err(EngineError::Input(format!(
            "the model has no input '{name}'; its inputs are: {}",
            known.join(", ")
        )));
    }
    for spec in &manifest.inputs {
        let mut matching = inputs.iter().filter(|input| input.name == spec.name);
        let input = match (matching.next(), matching.next()) {
            (Some(input), None) => input,
            (given, _) => {
                let how = if given.is_some() {
                    "given twice"
                } else {
                    "missing"
                };
                return Err(EngineError::Input(format!(
                    "input '{}' ({}) is {how}",
                    spec.name,
                    spec.describe()
                )));
            }
        };
        if !spec.fits(input.data_type, input.shape) {
            return Err(EngineError::Input(format!(
                "input '{}' must be {}, not {} {:?}",
                spec.name,
                spec.describe(),
                input.data_type.as_str(),
                input.shape
            )));
        }
    }
    let unknown = wanted
        .iter()
        .find(|name| manifest.outputs.iter().all(|spec| spec.name != **name));
    match unknown {
        Some(name) => Err(EngineError::Input(format!(
            "the model has no output '{name}'"
        ))),
        None => Ok(()),
    }
}
