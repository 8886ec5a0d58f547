//! A compiled model as a folder: a description for people and tools (`manifest.json`), and the parts of each form.
//!
//! The folder is its owner's and is not encrypted: it is what `sesemi model push` encrypts. Digests are there to notice what was cut
//! short or changed by mistake.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sesemi_protocol::limits::MAX_FORMS;
use sesemi_protocol::package::{Dimension, InstructionSet, Memory, ModelFormat, TensorSpec};
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{Digest, limits};

use crate::CompiledForm;

/// The file that describes the folder.
pub const DESCRIPTION: &str = "manifest.json";
/// What it begins with, so that another one is noticed.
const FORMAT: &str = "sesemi-compiled-model/1";
/// Longest description, in bytes.
const MAX_DESCRIPTION: u64 = 2 * 1024 * 1024;
/// Longest part, in bytes.
const MAX_PART: u64 = 8 * 1024 * 1024 * 1024;

/// Why a folder is not read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder is there already.
    #[error("{} is there already; name another folder, or remove it", .0.display())]
    Exists(PathBuf),
    /// The description cannot be read.
    #[error("{} is not the description of a compiled model: {why}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A part is another than when the folder was written.
    #[error("{} is not what the description says; compile the model again", .0.display())]
    Changed(PathBuf),
}

/// What `manifest.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    format: String,
    /// What was compiled.
    pub source: FileDigest,
    /// The model's inputs.
    pub inputs: Vec<Port>,
    /// The model's outputs.
    pub outputs: Vec<Port>,
    /// Most rows of one run, if requests may be run together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<NonZeroU32>,
    /// Its forms, the preferred one first.
    pub forms: Vec<FormDescription>,
    /// What engines made of it, for people.
    pub engines: Vec<EngineReport>,
}

/// A file, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Its name, without a folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// Its type, by the protocol's name.
    pub data_type: String,
    /// Its extents; null where any will do.
    pub shape: Vec<Option<u64>>,
}

/// A form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormDescription {
    /// [`ModelFormat::as_str`].
    pub format: String,
    /// [`InstructionSet::as_str`].
    pub instruction_set: String,
    /// Bytes of memory once it is loaded.
    pub loaded_bytes: u64,
    /// More for each run at the same time.
    pub run_bytes: u64,
    /// Whether weights are laid out once more when it is loaded.
    pub prepack: bool,
    /// Its parts, weights first.
    pub parts: Vec<FileDigest>,
}

/// What an engine made of a form, or why it does not run the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineReport {
    /// The engine's name.
    pub engine: String,
    /// The form that it ran; none if it ran none.
    pub form: Option<String>,
    /// Why it does not run it.
    pub refused: Option<String>,
    /// The largest difference to the original's results.
    pub difference: Option<f64>,
    /// Milliseconds until it was loaded, and of a run.
    pub load_ms: Option<f64>,
    /// See there.
    pub run_ms: Option<f64>,
    /// Bytes of memory, loaded and for the first run.
    pub memory_bytes: Option<u64>,
}

impl Description {
    /// The description of these forms of a model.
    #[must_use]
    pub fn new(
        source: FileDigest,
        (inputs, outputs): (&[TensorSpec], &[TensorSpec]),
        engines: Vec<EngineReport>,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            source,
            inputs: inputs.iter().map(Port::of).collect(),
            outputs: outputs.iter().map(Port::of).collect(),
            batch: None,
            forms: Vec::new(),
            engines,
        }
    }

    /// Inputs and outputs.
    ///
    /// # Errors
    /// What is not understood.
    pub fn specs(&self) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), String> {
        let all = |ports: &[Port]| ports.iter().map(Port::spec).collect::<Result<_, _>>();
        Ok((all(&self.inputs)?, all(&self.outputs)?))
    }

    /// Reads the description of a folder.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn read(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(DESCRIPTION);
        let bytes = read_bounded(&path, MAX_DESCRIPTION)?;
        let wrong = |why: String| FolderError::Description {
            path: path.clone(),
            why,
        };
        let read: Self = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        if read.format != FORMAT {
            return Err(wrong(format!("its format is not {FORMAT}")));
        }
        read.specs().map_err(wrong)?;
        let formats = read
            .forms
            .iter()
            .map(|form| Ok((form.kind()?.0, form.parts.len())));
        let formats: Vec<_> = formats.collect::<Result<_, _>>().map_err(wrong)?;
        check_forms(formats.into_iter()).map_err(wrong)?;
        Ok(read)
    }

    /// Reads the parts of all forms and compares their digests.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn forms(&self, folder: &Path) -> Result<Vec<CompiledForm>, FolderError> {
        let form = |form: &FormDescription| {
            let kind = form.kind();
            let (format, instruction_set) = kind.map_err(|why| FolderError::Description {
                path: folder.join(DESCRIPTION),
                why,
            })?;
            let parts = form.parts.iter().map(|part| part.read(folder));
            Ok(CompiledForm {
                format,
                instruction_set,
                parts: parts.collect::<Result<_, _>>()?,
                memory: Memory {
                    loaded: form.loaded_bytes,
                    run: form.run_bytes,
                },
                prepack: form.prepack,
            })
        };
        self.forms.iter().map(form).collect()
    }

    /// Writes a folder with these forms, all of it or nothing. The description gets what it says of them.
    ///
    /// # Errors
    /// [`FolderError`], also for what [`Description::read`] would refuse. Nothing is left then, unless it cannot be removed either.
    pub fn write(mut self, folder: &Path, forms: &[CompiledForm]) -> Result<Self, FolderError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        check_forms(forms.iter().map(|form| (form.format, form.parts.len()))).map_err(|why| {
            FolderError::Description {
                path: folder.join(DESCRIPTION),
                why,
            }
        })?;
        self.forms.clear();
        if folder.exists() {
            return Err(FolderError::Exists(folder.to_owned()));
        }
        let parent = folder.parent().filter(|it| !it.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(io(parent))?;
        let working = tempfile::Builder::new()
            .prefix(".sesemi-compile-")
            .tempdir_in(parent)
            .map_err(io(parent))?;
        for (number, form) in (1u32..).zip(forms) {
            let mut parts = Vec::with_capacity(form.parts.len());
            for (name, bytes) in part_names(form.format).iter().zip(&form.parts) {
                let file = format!("{number}-{name}");
                let path = working.path().join(&file);
                write_synced(&path, bytes).map_err(io(&path))?;
                parts.push(FileDigest::of(file, bytes));
            }
            self.forms.push(FormDescription {
                format: form.format.as_str().into(),
                instruction_set: form.instruction_set.as_str().into(),
                loaded_bytes: form.memory.loaded,
                run_bytes: form.memory.run,
                prepack: form.prepack,
                parts,
            });
        }
        let path = working.path().join(DESCRIPTION);
        let mut text = serde_json::to_vec_pretty(&self).map_err(|e| FolderError::Description {
            path: path.clone(),
            why: e.to_string(),
        })?;
        text.push(b'\n');
        write_synced(&path, &text).map_err(io(&path))?;
        // Before anything is moved: whoever may not open it cannot make the move last either.
        let holds = File::open(parent).map_err(io(parent))?;
        // A folder that somebody made meanwhile is not replaced unless it is empty.
        std::fs::rename(working.path(), folder).map_err(io(folder))?;
        // It is not where it would be removed any more.
        let _moved = working.keep();
        if let Err(error) = holds.sync_all() {
            // What may be gone after a crash is not kept as if it were written.
            let _ = std::fs::remove_dir_all(folder);
            return Err(io(parent)(error));
        }
        Ok(self)
    }
}

impl FormDescription {
    fn kind(&self) -> Result<(ModelFormat, InstructionSet), String> {
        let mut formats = ModelFormat::ALL.into_iter();
        let format = formats.find(|it| it.as_str() == self.format);
        let format = format.ok_or_else(|| format!("'{}' is no format", self.format))?;
        let mut sets = InstructionSet::ALL.into_iter();
        let set = sets.find(|it| it.as_str() == self.instruction_set);
        let set = set.ok_or_else(|| format!("'{}' is no instruction set", self.instruction_set))?;
        Ok((format, set))
    }
}

/// Refuses forms that no folder has: too many of them or none, or one with other parts than its format's.
fn check_forms(
    mut forms: impl ExactSizeIterator<Item = (ModelFormat, usize)>,
) -> Result<(), String> {
    if !(1..=MAX_FORMS).contains(&forms.len()) {
        return Err(format!("a model has 1 to {MAX_FORMS} forms"));
    }
    match forms.find(|(format, parts)| *parts != format.parts()) {
        Some((format, _)) => {
            let (name, parts) = (format.as_str(), format.parts());
            Err(format!("the form {name} has {parts} parts"))
        }
        None => Ok(()),
    }
}

impl FileDigest {
    /// Of these bytes.
    #[must_use]
    pub fn of(file: String, bytes: &[u8]) -> Self {
        Self {
            file,
            bytes: bytes.len() as u64,
            sha256: Digest::of(bytes).to_string(),
        }
    }

    fn read(&self, folder: &Path) -> Result<Vec<u8>, FolderError> {
        let path = folder.join(&self.file);
        let is_name = Path::new(&self.file)
            .file_name()
            .is_some_and(|name| name == self.file.as_str());
        if !is_name {
            return Err(FolderError::Description {
                path: folder.join(DESCRIPTION),
                why: format!("'{}' is no file of the folder", self.file),
            });
        }
        let bytes = read_bounded(&path, self.bytes.min(MAX_PART))?;
        if bytes.len() as u64 != self.bytes || Digest::of(&bytes).to_string() != self.sha256 {
            return Err(FolderError::Changed(path));
        }
        Ok(bytes)
    }
}

impl Port {
    fn of(spec: &TensorSpec) -> Self {
        let extent = |dimension: &Dimension| match dimension {
            Dimension::Fixed(extent) => Some(*extent),
            Dimension::Dynamic => None,
        };
        Self {
            name: spec.name.clone(),
            data_type: spec.data_type.as_str().into(),
            shape: spec.shape.iter().map(extent).collect(),
        }
    }

    fn spec(&self) -> Result<TensorSpec, String> {
        let mut types = DataType::ALL.into_iter();
        let data_type = types.find(|it| it.as_str() == self.data_type);
        let data_type = data_type.ok_or_else(|| format!("'{}' is no data type", self.data_type))?;
        if self.shape.len() > limits::MAX_RANK || self.name.len() > limits::MAX_TENSOR_NAME {
            return Err(format!(
                "'{}' has a name or shape that is too long",
                self.name
            ));
        }
        let extent = |extent: &Option<u64>| extent.map_or(Dimension::Dynamic, Dimension::Fixed);
        Ok(TensorSpec {
            name: self.name.clone(),
            data_type,
            shape: self.shape.iter().map(extent).collect(),
        })
    }
}

/// What the parts of a form are called.
#[must_use]
pub fn part_names(format: ModelFormat) -> &'static [&'static str] {
    match format {
        ModelFormat::Onnx => &["model.onnx"],
        ModelFormat::OnnxWithWeights => &["weights.data", "graph.onnx"],
        ModelFormat::OnnxRuntimeCompiled => &["weights.data", "weights.list", "graph.onnx"],
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads a file of at most so many bytes; what is longer comes with one byte more.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, FolderError> {
    let failed = |source| FolderError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let most = limit.saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
