//! What an owner says about a model; encrypted with it.

use core::num::NonZeroU32;
use core::ops::Range;
use std::collections::HashSet;

use minicbor::{Decode, Encode};

use crate::id::Digest;
use crate::limits::{MAX_BATCH_ROWS, MAX_FORMS, MAX_RANK, MAX_TENSOR_NAME};
use crate::tensor::DataType;

/// Alignment of each part within the plaintext, in bytes: a page, so that it can be used where it was decrypted.
pub(super) const ALIGNMENT: u64 = 4096;
/// What is between two parts, at most.
const ZEROS: &[u8; 4096] = &[0; 4096];

/// What a graph calls the part with its weights, as the location of external data (ONNX, `ExternalDataInfo`). Readers of ONNX
/// go by the extension, and RTen takes no other than `data` and `onnx_data`.
pub const WEIGHTS: &str = "weights.data";

/// How the parts of a form are to be read. Weights come first, because the first part alone can stay in the memory into which
/// the form is decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ModelFormat {
    /// One part: ONNX, with all weights inside.
    #[n(1)]
    Onnx,
    /// Two parts: weights, and an ONNX graph for which they are external data named [`WEIGHTS`].
    #[n(2)]
    OnnxWithWeights,
    /// Three parts: weights as they are used, the list of them, and the ONNX graph that ONNX Runtime optimised for them.
    #[n(3)]
    OnnxRuntimeCompiled,
}

impl ModelFormat {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Onnx, Self::OnnxWithWeights, Self::OnnxRuntimeCompiled];

    /// How many parts a form of this format has.
    #[must_use]
    pub fn parts(self) -> usize {
        match self {
            Self::Onnx => 1,
            Self::OnnxWithWeights => 2,
            Self::OnnxRuntimeCompiled => 3,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::OnnxWithWeights => "onnx-with-weights",
            Self::OnnxRuntimeCompiled => "onnxruntime-compiled",
        }
    }
}

/// What a processor must be able to do to run a form: weights may lie as its widest vectors want them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum InstructionSet {
    /// Any processor.
    #[n(1)]
    Any,
    /// x86-64 with AVX2 and FMA.
    #[n(2)]
    X86Avx2,
    /// x86-64 with AVX-512 (F, BW, DQ, VL).
    #[n(3)]
    X86Avx512,
}

impl InstructionSet {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Any, Self::X86Avx2, Self::X86Avx512];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::X86Avx2 => "x86-64-avx2",
            Self::X86Avx512 => "x86-64-avx512",
        }
    }
}

/// One dimension of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Dimension {
    /// Always this extent.
    #[n(0)]
    Fixed(#[n(0)] u64),
    /// Any extent, for example a batch.
    #[n(1)]
    Dynamic,
}

/// An input or output of the model.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TensorSpec {
    /// Its name in the graph.
    #[n(0)]
    pub name: String,
    /// Type of an element.
    #[n(1)]
    pub data_type: DataType,
    /// Its dimensions, outermost first.
    #[n(2)]
    pub shape: Vec<Dimension>,
}

impl TensorSpec {
    /// Whether a tensor of this type and shape fits.
    #[must_use]
    pub fn fits(&self, data_type: DataType, shape: &[u64]) -> bool {
        self.data_type == data_type
            && self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(spec, extent)| match spec {
                    Dimension::Fixed(fixed) => fixed == extent,
                    Dimension::Dynamic => true,
                })
    }

    /// For people: `FP32 [batch, 30]` with `?` for a dynamic dimension.
    #[must_use]
    pub fn describe(&self) -> String {
        let shape: Vec<String> = self
            .shape
            .iter()
            .map(|d| match d {
                Dimension::Fixed(extent) => extent.to_string(),
                Dimension::Dynamic => "?".to_owned(),
            })
            .collect();
        format!("{} [{}]", self.data_type.as_str(), shape.join(", "))
    }
}

/// What a form needs, in bytes; 0 where nobody measured it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Memory {
    /// Once it is loaded, its own parts included.
    #[n(0)]
    pub loaded: u64,
    /// More for each run at the same time.
    #[n(1)]
    pub run: u64,
}

/// What a claim may be above a multiple of the form's length, and that multiple.
const CLAIM: u64 = 64 * 1024 * 1024;
const TIMES: u64 = 8;

/// Where each part of each form lies.
pub(super) type Places = Vec<Vec<Range<u64>>>;

/// One way to have the model. Forms of a model compute the same.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Form {
    /// How to read its parts.
    #[n(0)]
    pub format: ModelFormat,
    /// What it runs on.
    #[n(1)]
    pub instruction_set: InstructionSet,
    /// The length of each part, in bytes.
    #[n(2)]
    pub parts: Vec<u64>,
    /// What it needs.
    #[n(3)]
    pub memory: Memory,
    /// Whether the engine should lay out weights once more for faster runs, at the cost of a slower start.
    #[n(4)]
    pub prepack: bool,
}

impl Form {
    /// What its owner may say at most that it needs, loaded or for a run, in bytes: a small model that claims all memory would drive
    /// out everybody else's. Readers believe no more.
    #[must_use]
    pub fn most_memory(&self) -> u64 {
        let parts = self.parts.iter();
        let length = parts.fold(0, |sum: u64, part| sum.saturating_add(*part));
        length.saturating_mul(TIMES).saturating_add(CLAIM)
    }
}

/// The manifest of a model package.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// SHA-256 of what follows the manifest in the plaintext, gaps included. Who registers the manifest registers the model
    /// with it; a reader with the key need not compute it.
    #[n(0)]
    pub content: Digest,
    /// Its inputs.
    #[n(1)]
    pub inputs: Vec<TensorSpec>,
    /// Its outputs.
    #[n(2)]
    pub outputs: Vec<TensorSpec>,
    /// The forms that the package has, the one that its owner prefers first.
    #[n(3)]
    pub forms: Vec<Form>,
    /// Most rows of one run, if the first dimension of all inputs and outputs is a batch of rows that have nothing to do with each
    /// other: requests may then be run together. The memory of each form is that of a run of so many.
    #[n(4)]
    pub batch: Option<NonZeroU32>,
}

/// A form on its way into a package.
#[derive(Debug, Clone, Copy)]
pub struct FormContent<'a> {
    /// How to read its parts.
    pub format: ModelFormat,
    /// What it runs on.
    pub instruction_set: InstructionSet,
    /// Its parts.
    pub parts: &'a [&'a [u8]],
    /// What it needs.
    pub memory: Memory,
    /// See [`Form::prepack`].
    pub prepack: bool,
}

impl<'a> FormContent<'a> {
    /// Parts that run anywhere, of which nothing was measured.
    #[must_use]
    pub fn portable(format: ModelFormat, parts: &'a [&'a [u8]]) -> Self {
        Self {
            format,
            instruction_set: InstructionSet::Any,
            parts,
            memory: Memory::default(),
            prepack: false,
        }
    }

    /// The parts of a form, which says all else.
    #[must_use]
    pub fn of(form: &Form, parts: &'a [&'a [u8]]) -> Self {
        Self {
            format: form.format,
            instruction_set: form.instruction_set,
            parts,
            memory: form.memory,
            prepack: form.prepack,
        }
    }
}

impl Manifest {
    /// The manifest of a package with these forms.
    #[must_use]
    pub fn describing(
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        forms: &[FormContent<'_>],
    ) -> Self {
        let parts = forms.iter().flat_map(|form| form.parts.iter().copied());
        Self {
            content: Digest::of_pieces(laid_out(parts)),
            inputs,
            outputs,
            batch: None,
            forms: forms
                .iter()
                .map(|form| Form {
                    format: form.format,
                    instruction_set: form.instruction_set,
                    parts: form.parts.iter().map(|part| part.len() as u64).collect(),
                    memory: form.memory,
                    prepack: form.prepack,
                })
                .collect(),
        }
    }

    /// The same model, of which requests with at most `rows` in all may be run together.
    #[must_use]
    pub fn with_batch(mut self, rows: Option<NonZeroU32>) -> Self {
        self.batch = rows;
        self
    }

    /// Whether there is an input, and the first dimension of every input and output may have any extent, as that of a batch must.
    #[must_use]
    pub fn have_rows(inputs: &[TensorSpec], outputs: &[TensorSpec]) -> bool {
        let mut specs = inputs.iter().chain(outputs);
        !inputs.is_empty()
            && specs.all(|spec| matches!(spec.shape.first(), Some(Dimension::Dynamic)))
    }

    /// Checks the descriptions of inputs and outputs against each other and the limits of requests.
    ///
    /// # Errors
    /// [`ContentError`] if two inputs or two outputs have one name, a name or shape is longer than a request's may be, or there is
    /// a batch of too many rows, or of tensors that have none.
    pub(super) fn check_tensors(&self) -> Result<(), ContentError> {
        for specs in [&self.inputs, &self.outputs] {
            let mut names = HashSet::with_capacity(specs.len());
            if specs.iter().any(|spec| spec.name.len() > MAX_TENSOR_NAME) {
                return Err(ContentError("a tensor's name is too long"));
            }
            if specs.iter().any(|spec| spec.shape.len() > MAX_RANK) {
                return Err(ContentError("a tensor has too many dimensions"));
            }
            if !specs.iter().all(|spec| names.insert(spec.name.as_str())) {
                return Err(ContentError("two tensors have the same name"));
            }
        }
        let Some(rows) = self.batch else {
            return Ok(());
        };
        if rows.get() > MAX_BATCH_ROWS {
            return Err(ContentError("a batch has at most 4096 rows"));
        }
        if !Self::have_rows(&self.inputs, &self.outputs) {
            return Err(ContentError("a tensor of a batch has no rows"));
        }
        Ok(())
    }

    /// Where each part lies, from the first one's start on, and where the last one ends.
    ///
    /// # Errors
    /// [`ContentError`] if a form has another number of parts than its format says, there are none, or too many, or they end
    /// beyond 2^63.
    pub(super) fn places(&self) -> Result<(Places, u64), ContentError> {
        if self.forms.is_empty() || self.forms.len() > MAX_FORMS {
            return Err(ContentError("a package has 1 to 8 forms"));
        }
        let mut end = 0u64;
        let mut forms = Vec::with_capacity(self.forms.len());
        for form in &self.forms {
            if form.parts.len() != form.format.parts() {
                return Err(ContentError(
                    "a form has another number of parts than its format",
                ));
            }
            let mut places = Vec::with_capacity(form.parts.len());
            for length in &form.parts {
                let start = end
                    .checked_next_multiple_of(ALIGNMENT)
                    .ok_or(ContentError("parts too long"))?;
                end = start
                    .checked_add(*length)
                    .filter(|end| *end <= u64::MAX >> 1)
                    .ok_or(ContentError("parts too long"))?;
                places.push(start..end);
            }
            forms.push(places);
        }
        Ok((forms, end))
    }
}

/// Why a manifest and a package do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentError(pub(super) &'static str);

/// Parts and the zeros between them.
pub(super) fn laid_out<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    let mut end = 0usize;
    parts.flat_map(move |part| {
        let start = end.checked_next_multiple_of(ZEROS.len()).unwrap_or(end);
        let gap = ZEROS.get(..start.saturating_sub(end)).unwrap_or_default();
        end = start.saturating_add(part.len());
        [gap, part]
    })
}
