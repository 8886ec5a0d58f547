//! Which requests may be the rows of one run.

use sesemi_protocol::envelope::OpenedRequest;
use sesemi_protocol::limits::MAX_TEXTS;
use sesemi_protocol::package::Manifest;
use sesemi_protocol::tensor::{DataType, TensorView};

use crate::engine::{check_request, rows};

/// What requests have in common that may be rows of one run: the inputs, in the manifest's order, apart from their first
/// dimension, and the outputs that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    inputs: Vec<(DataType, Vec<u64>)>,
    outputs: Vec<String>,
}

/// How much of a batch a request is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) rows: u64,
    /// Elements of BYTES, each an object of its own to the engine.
    pub(super) texts: u64,
}

impl Size {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            texts: self.texts.saturating_add(other.texts),
        }
    }

    /// Whether a run may have so much, with so many rows `most`.
    pub(super) fn fits(self, most: u64) -> bool {
        self.rows <= most && self.texts <= MAX_TEXTS
    }
}

/// What `request` has in common with others, and how much it is; none if it cannot be run with others. Whatever is wrong with it is then
/// told to it alone.
pub(super) fn of(manifest: &Manifest, request: &OpenedRequest) -> Option<(Alike, Size)> {
    let most = u64::from(manifest.batch?.get());
    let inputs: Vec<TensorView<'_>> = request.inputs().collect();
    check_request(manifest, &inputs, request.outputs()).ok()?;
    let mut common = Vec::with_capacity(manifest.inputs.len());
    for spec in &manifest.inputs {
        let input = inputs.iter().find(|input| input.name == spec.name)?;
        let (_, rest) = input.shape.split_first()?;
        common.push((input.data_type, rest.to_vec()));
    }
    let rows = rows::count(inputs.iter().map(|it| it.shape))?;
    let rows = Some(rows).filter(|rows| (1..most).contains(rows))?;
    let alike = Alike {
        inputs: common,
        outputs: request.outputs().to_vec(),
    };
    let texts = inputs.iter().filter(|it| it.data_type == DataType::Bytes);
    let texts = texts.map(|it| it.shape.iter().fold(1u64, |a, b| a.saturating_mul(*b)));
    let texts = texts.fold(0u64, u64::saturating_add);
    Some((alike, Size { rows, texts }))
}
