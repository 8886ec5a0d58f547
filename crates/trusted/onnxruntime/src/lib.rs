//! SeMIRT with ONNX Runtime: the fast engine. (The role that TVM has in the paper.)
//!
//! It runs three forms of a model. The compiled one ([`ModelFormat::OnnxRuntimeCompiled`]) was optimised by its owner: the graph
//! is final, and every weight of some size is used where it was decrypted. The portable ones are optimised when they are
//! loaded, which takes several times as long and as much memory.
//!
//! One session serves all requests of a model at once; ONNX Runtime's threads are shared by all models.
//!
//! ONNX Runtime is a shared library in C++, mapped at the start ([`Library`]) and measured with this program.
//!
//! [`ModelFormat::OnnxRuntimeCompiled`]: sesemi_protocol::package::ModelFormat::OnnxRuntimeCompiled

#![deny(unsafe_code)]

mod environment;
mod execution;
pub mod external;
mod library;
mod load;
mod raw;
mod start;

pub use environment::check_environment;
pub use library::{Library, LibraryError, place};

use std::sync::Arc;

use ort::environment::Environment;
use sesemi_protocol::package::{Form, InstructionSet, Manifest, ModelFormat};
use sesemi_semirt::engine::{Engine, EngineError, LoadedModel, has_instructions};

use start::Start;

/// ONNX Runtime, started or about to be.
pub struct OnnxRuntime {
    start: Start,
}

impl core::fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("OnnxRuntime(..)")
    }
}

impl OnnxRuntime {
    /// Starts the library with this many threads for each run, without waiting for it: a load does.
    ///
    /// # Errors
    /// [`LibraryError::Start`] if there is no thread to do it. Another failure is told by every load.
    pub fn starting(library: Library, threads: usize) -> Result<Self, LibraryError> {
        let start = Start::begin(library, threads)?;
        Ok(Self { start })
    }

    /// What sessions are made in, for tools that make their own.
    ///
    /// # Errors
    /// [`LibraryError::Start`], or [`LibraryError::Twice`] if this process had an engine already.
    pub fn environment(&self) -> Result<Environment, Arc<LibraryError>> {
        Ok(self.start.wait()?.environment)
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    /// Its library has an allocator of its own, and keeps what runs used for the next ones.
    fn wipes(&self) -> bool {
        false
    }

    fn takes(&self, form: &Form) -> bool {
        match form.format {
            ModelFormat::Onnx | ModelFormat::OnnxWithWeights => {
                has_instructions(form.instruction_set)
            }
            // One for any processor has no blocks, which its load looks at.
            ModelFormat::OnnxRuntimeCompiled => {
                form.instruction_set == InstructionSet::Any
                    || Some(form.instruction_set) == blocks_for()
            }
        }
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        let started = self.start.wait();
        let started = started.map_err(|error| EngineError::Load(error.to_string()))?;
        load::load(&started.environment, &started.memory, manifest, form, parts)
    }
}

/// The instruction set for which ONNX Runtime lays out weights in blocks on this processor, if it does so. A layout for narrower
/// vectors does not run here: a block's width is the processor's, and nothing in a graph says what it was made for.
#[must_use]
pub fn blocks_for() -> Option<InstructionSet> {
    [InstructionSet::X86Avx512, InstructionSet::X86Avx2]
        .into_iter()
        .find(|set| has_instructions(*set))
}
