//! Requests as the rows of one run: which may be, and how their tensors become one and the outputs many again. Pure.

use sesemi_protocol::envelope::OpenedRequest;
use sesemi_protocol::package::Manifest;
use sesemi_protocol::tensor::{DataType, Tensor, TensorView};

use crate::engine::check_request;
use crate::runtime::plain::Plain;

/// What requests have in common that may be rows of one run: the inputs, in the manifest's order, apart from their first
/// dimension, and the outputs that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Alike {
    inputs: Vec<(DataType, Vec<u64>)>,
    outputs: Vec<String>,
}

/// What `request` has in common with others, and how many rows it is; none if it cannot be run with others. Whatever is wrong with it
/// is then told to it alone.
pub(super) fn alike(manifest: &Manifest, request: &OpenedRequest) -> Option<(Alike, u64)> {
    let most = u64::from(manifest.batch?.get());
    let inputs: Vec<TensorView<'_>> = request.inputs().collect();
    check_request(manifest, &inputs, request.outputs()).ok()?;
    let mut rows = None;
    let mut common = Vec::with_capacity(manifest.inputs.len());
    for spec in &manifest.inputs {
        let input = inputs.iter().find(|input| input.name == spec.name)?;
        let (first, rest) = input.shape.split_first()?;
        if rows.is_some_and(|rows| rows != *first) {
            return None;
        }
        rows = Some(*first);
        common.push((input.data_type, rest.to_vec()));
    }
    let rows = rows.filter(|rows| (1..most).contains(rows))?;
    let alike = Alike {
        inputs: common,
        outputs: request.outputs().to_vec(),
    };
    Some((alike, rows))
}

/// Bytes of the inputs of all requests together.
pub(super) fn bytes(requests: &[&OpenedRequest]) -> u64 {
    let inputs = requests.iter().flat_map(|request| request.inputs());
    inputs.fold(0, |sum, input| {
        sum.saturating_add(u64::try_from(input.data.len()).unwrap_or(u64::MAX))
    })
}

/// The inputs of all requests, which are alike, as those of one.
pub(super) fn join(requests: &[&OpenedRequest]) -> Plain {
    let Some(first) = requests.first() else {
        return Plain(Vec::new());
    };
    let joined = first.inputs().map(|input| {
        let same: Vec<TensorView<'_>> = requests
            .iter()
            .filter_map(|request| request.inputs().find(|other| other.name == input.name))
            .collect();
        let length = same.iter().map(|it| it.data.len()).sum();
        let mut data = Vec::with_capacity(length);
        same.iter().for_each(|it| data.extend_from_slice(it.data));
        let rows = same.iter().filter_map(|it| it.shape.first()).sum();
        let rest = input.shape.iter().skip(1).copied();
        Tensor {
            name: input.name.to_owned(),
            data_type: input.data_type,
            shape: std::iter::once(rows).chain(rest).collect(),
            data,
        }
    });
    Plain(joined.collect())
}

/// The outputs of one run, by requests of so many `rows` each; none if there is not a row for each.
pub(super) fn split(outputs: &Plain, rows: &[u64]) -> Option<Vec<Plain>> {
    let total = rows.iter().try_fold(0u64, |sum, it| sum.checked_add(*it))?;
    let mut split: Vec<Plain> = rows.iter().map(|_| Plain(Vec::new())).collect();
    for output in &outputs.0 {
        let (found, rest) = output.shape.split_first()?;
        let total = usize::try_from(total).ok()?;
        let row = output.data.len().checked_div(total)?;
        if usize::try_from(*found) != Ok(total) || row.checked_mul(total)? != output.data.len() {
            return None;
        }
        let mut left = output.data.as_slice();
        for (rows, part) in rows.iter().zip(&mut split) {
            let (data, after) =
                left.split_at_checked(row.checked_mul(usize::try_from(*rows).ok()?)?)?;
            left = after;
            part.0.push(Tensor {
                name: output.name.clone(),
                data_type: output.data_type,
                shape: std::iter::once(*rows).chain(rest.iter().copied()).collect(),
                data: data.to_vec(),
            });
        }
    }
    Some(split)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: &[u64], values: &[f32]) -> Plain {
        Plain(vec![Tensor::fp32("y", shape, values).unwrap()])
    }

    #[test]
    fn outputs_go_to_the_requests_of_their_rows() {
        let all = output(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let parts = split(&all, &[1, 2]).unwrap();
        assert_eq!(parts[0].0, output(&[1, 2], &[1.0, 2.0]).0);
        assert_eq!(parts[1].0, output(&[2, 2], &[3.0, 4.0, 5.0, 6.0]).0);
    }

    #[test]
    fn outputs_without_a_row_for_each_are_nobodys() {
        assert!(split(&output(&[2, 2], &[1.0; 4]), &[1, 2]).is_none());
        assert!(split(&output(&[], &[1.0]), &[1, 1]).is_none());
        assert!(split(&output(&[1, 4], &[1.0; 4]), &[1, 1]).is_none());
        assert!(split(&output(&[2], &[1.0; 2]), &[u64::MAX, 3]).is_none());
        assert!(split(&output(&[0], &[]), &[]).is_none());
    }
}
