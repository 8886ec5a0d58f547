//! One step of compiling, for a process of its own: it makes a form, runs it in one engine, and compares it with the original.
//!
//! A process of its own, because what an engine takes is what its process grew by, because a model may take its engine down, and because
//! a program that maps a shared library cannot be the static one that people install.

use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Choices;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The ONNX file.
    pub model: PathBuf,
    /// A folder that is there, for the form's parts, named by [`crate::part_names`].
    pub folder: PathBuf,
    /// Which form to make.
    pub form: JobForm,
    /// The library of ONNX Runtime, if the form is to run in it; RTen otherwise.
    pub onnxruntime: Option<PathBuf>,
    /// The library of ONNX Runtime in which the original runs; the form's engine otherwise.
    pub reference: Option<PathBuf>,
    /// Whether weights are laid out once more when the form is loaded.
    pub prepack: bool,
    /// What samples are like.
    pub choices: Choices,
    /// How many samples.
    pub samples: u32,
    /// Rows of a batch, if requests are to be run together: the form's memory is then that of a run of so many.
    pub batch: Option<NonZeroU32>,
    /// How far results may be apart, absolutely, or as a part of the value.
    pub tolerance: f64,
    /// Threads of a run.
    pub threads: usize,
}

/// A form that a job makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobForm {
    /// Weights as a part of their own, for any processor and engine.
    Portable,
    /// Optimised by ONNX Runtime for this processor.
    Compiled,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What a processor must have: [`sesemi_protocol::package::InstructionSet::as_str`].
    pub instruction_set: String,
    /// Bytes of memory once it is loaded.
    pub loaded_bytes: u64,
    /// More for a run.
    pub run_bytes: u64,
    /// The largest difference between two values.
    pub difference: f64,
    /// Milliseconds until it was loaded.
    pub load_ms: f64,
    /// Milliseconds of a run, the median.
    pub run_ms: f64,
}

/// Why a job came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words.
    pub why: String,
    /// Whether the engine does run the model, and computes something else.
    pub differs: bool,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self {
            why,
            differs: false,
        }
    }
}

/// What the process says on its standard output: one line of JSON.
pub type Said = Result<Done, Refused>;
