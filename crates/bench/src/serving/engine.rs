//! The engines that are measured. Adding one is a line in each match here, and its program's name in `xtask`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use sesemi_compile::{CompiledForm, compile_for_onnxruntime, split_weights};
use sesemi_onnxruntime::{Library, OnnxRuntime};
use sesemi_semirt::engine::Engine;
use sesemi_semirt::engine::rten::Rten;

use super::model::Model;
use crate::error::BenchError;

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineName {
    Rten,
    Onnxruntime,
}

/// An engine, where its parts are, and how many threads it gets.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) name: EngineName,
    /// The SeMIRT program with this engine.
    pub(crate) semirt: PathBuf,
    /// The engine's shared library, if it has one.
    pub(crate) library: Option<PathBuf>,
    pub(crate) threads: usize,
}

/// An engine in this process. A process can have only one of some.
#[derive(Clone)]
pub(crate) enum Local {
    Rten(Arc<Rten>),
    OnnxRuntime(Arc<OnnxRuntime>),
}

impl EngineName {
    /// As in figures.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Rten => "rten",
            Self::Onnxruntime => "onnxruntime",
        }
    }

    /// For a result: the version too, unless the commit says it.
    pub(crate) fn described(self) -> String {
        match self {
            Self::Rten => "rten".into(),
            Self::Onnxruntime => format!("onnxruntime {}", sesemi_engines::ONNXRUNTIME.version),
        }
    }

    /// Starts it in this process, and says how long that took.
    pub(crate) fn start(
        self,
        library: Option<&Path>,
        threads: usize,
    ) -> Result<(Local, Duration), BenchError> {
        let started = Instant::now();
        let local = match self {
            Self::Rten => Local::Rten(Arc::new(Rten::new(threads))),
            Self::Onnxruntime => {
                let path = library.ok_or(BenchError::Unexpected(
                    "the engine needs its library: name it with --library",
                ))?;
                let engine = OnnxRuntime::starting(Library::load(path)?, threads)?;
                // It starts on a thread of its own, which is waited for here.
                engine.environment().map_err(|error| {
                    BenchError::Engine(sesemi_semirt::engine::EngineError::Load(error.to_string()))
                })?;
                Local::OnnxRuntime(Arc::new(engine))
            }
        };
        Ok((local, started.elapsed()))
    }
}

impl Chosen {
    pub(crate) fn start(&self) -> Result<Local, BenchError> {
        let (local, _) = self.name.start(self.library.as_deref(), self.threads)?;
        Ok(local)
    }

    /// The name of a figure of this engine and a model.
    pub(crate) fn figure(&self, what: &str, model: Model) -> String {
        format!("{what}.{}.{}", model.as_str(), self.name.as_str())
    }

    pub(crate) fn is_onnxruntime(&self) -> bool {
        self.name == EngineName::Onnxruntime
    }
}

impl Local {
    pub(crate) fn engine(&self) -> &dyn Engine {
        match self {
            Self::Rten(engine) => &**engine,
            Self::OnnxRuntime(engine) => &**engine,
        }
    }

    /// The form that an owner makes of a model for this engine.
    pub(crate) fn form(&self, onnx: &[u8]) -> Result<CompiledForm, BenchError> {
        Ok(match self {
            Self::Rten(_) => split_weights(onnx)?,
            Self::OnnxRuntime(engine) => compile_for_onnxruntime(engine, onnx, false)?,
        })
    }
}
