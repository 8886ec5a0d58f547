//! Which requests may be the rows of one run.

use sesemi_protocol::envelope::OpenedRequest;
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

/// What `request` has in common with others, and how many rows it is; none if it cannot be run with others. Whatever is wrong with it
/// is then told to it alone.
pub(super) fn of(manifest: &Manifest, request: &OpenedRequest) -> Option<(Alike, u64)> {
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
    Some((alike, rows))
}
