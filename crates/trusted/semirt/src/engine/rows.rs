//! Several requests as the rows of one run: how their inputs become one, and the outputs many again. Pure.

use sesemi_protocol::tensor::{self, DataType, Tensor, TensorView};

/// How many rows inputs of these shapes have, if all have as many: the extent of their first dimension.
pub fn count<'s>(mut shapes: impl Iterator<Item = &'s [u64]>) -> Option<u64> {
    let rows = *shapes.next()?.first()?;
    shapes
        .all(|shape| shape.first() == Some(&rows))
        .then_some(rows)
}

/// The inputs of several requests as those of one. They have the same names, in any order, and differ in no dimension but the
/// first.
#[must_use]
pub fn join(requests: &[Vec<TensorView<'_>>]) -> Vec<Tensor> {
    let joined = requests.first().into_iter().flatten().map(|input| {
        let same: Vec<&TensorView<'_>> = requests
            .iter()
            .filter_map(|request| request.iter().find(|other| other.name == input.name))
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
    joined.collect()
}

/// The outputs of one run, by requests of so many `rows` each; none if there is not a row for each.
#[must_use]
pub fn split(outputs: &[Tensor], rows: &[u64]) -> Option<Vec<Vec<Tensor>>> {
    let cut = outputs.iter().map(|output| cut(output, rows));
    let cut: Vec<Vec<&[u8]>> = cut.collect::<Option<_>>()?;
    // Nothing is copied before it is known that all of it is somebody's.
    let of = |(number, rows): (usize, &u64)| {
        let parts = outputs.iter().zip(&cut).filter_map(|(output, parts)| {
            let rest = output.shape.iter().skip(1).copied();
            Some(Tensor {
                name: output.name.clone(),
                data_type: output.data_type,
                shape: std::iter::once(*rows).chain(rest).collect(),
                data: parts.get(number)?.to_vec(),
            })
        });
        parts.collect()
    };
    Some(rows.iter().enumerate().map(of).collect())
}

/// The bytes of each request's rows.
fn cut<'t>(output: &'t Tensor, rows: &[u64]) -> Option<Vec<&'t [u8]>> {
    let total = rows.iter().try_fold(0u64, |sum, it| sum.checked_add(*it))?;
    if output.shape.first() != Some(&total) || total == 0 {
        return None;
    }
    let rest = output.shape.get(1..).unwrap_or_default();
    let mut left = output.data.as_slice();
    let mut parts = Vec::with_capacity(rows.len());
    for rows in rows {
        let (part, after) = cut_off(output.data_type, left, *rows, rest)?;
        left = after;
        parts.push(part);
    }
    left.is_empty().then_some(parts)
}

/// The first so many `rows` of data, and what lies behind them. Rows of texts are as long as their texts, which is looked at: cut
/// elsewhere, they would be another request's.
fn cut_off<'d>(
    data_type: DataType,
    data: &'d [u8],
    rows: u64,
    rest: &[u64],
) -> Option<(&'d [u8], &'d [u8])> {
    let mut rest = rest.iter();
    let elements = rest.try_fold(rows, |elements, extent| elements.checked_mul(*extent))?;
    match data_type.size() {
        Some(size) => {
            let elements = usize::try_from(elements).ok()?;
            data.split_at_checked(elements.checked_mul(size)?)
        }
        None => tensor::split_elements(data, elements),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(shape: &[u64], values: &[f32]) -> Vec<Tensor> {
        vec![Tensor::fp32("y", shape, values).unwrap()]
    }

    #[test]
    fn outputs_go_to_the_requests_of_their_rows() {
        let all = output(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let parts = split(&all, &[1, 2]).unwrap();
        assert_eq!(parts[0], output(&[1, 2], &[1.0, 2.0]));
        assert_eq!(parts[1], output(&[2, 2], &[3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn inputs_are_joined_by_their_names_and_come_apart_again() {
        let [a, b] = [1.0, 2.0].map(|first| {
            let one = Tensor::fp32("x", &[1, 2], &[first, 0.5]).unwrap();
            let other = Tensor::fp32("z", &[1], &[first]).unwrap();
            (one, other)
        });
        let requests = [vec![a.0.view(), a.1.view()], vec![b.1.view(), b.0.view()]];
        assert_eq!(count(requests[0].iter().map(|it| it.shape)), Some(1));
        assert_eq!(count([&[1, 2][..], &[2]].into_iter()), None);
        let joined = join(&requests);
        assert_eq!(joined[0].shape, [2, 2]);
        let parts = split(&joined, &[1, 1]).unwrap();
        assert_eq!(parts, [vec![a.0, a.1], vec![b.0, b.1]]);
    }

    #[test]
    fn texts_go_to_the_requests_of_their_rows_however_long_they_are() {
        let texts = |shape: &[u64], texts: &[&str]| vec![Tensor::bytes("y", shape, texts).unwrap()];
        // Equal parts of the data would be 16 bytes each, and the first one would have some of the second row.
        let all = texts(&[3, 2], &["b", "", "", "a secret", "cc", "the end of it"]);
        assert_eq!(all[0].data.len(), 48);
        let parts = split(&all, &[1, 2]).unwrap();
        assert_eq!(parts[0], texts(&[1, 2], &["b", ""]));
        let second = ["", "a secret", "cc", "the end of it"];
        assert_eq!(parts[1], texts(&[2, 2], &second));
        let mut cut = all;
        cut[0].data.pop();
        assert!(split(&cut, &[1, 2]).is_none());
        cut[0].data.extend([0; 5]);
        assert!(split(&cut, &[1, 2]).is_none());
    }

    #[test]
    fn outputs_without_a_row_for_each_are_nobodys() {
        assert!(split(&output(&[2, 2], &[1.0; 4]), &[1, 2]).is_none());
        assert!(split(&output(&[], &[1.0]), &[1, 1]).is_none());
        assert!(split(&output(&[1, 4], &[1.0; 4]), &[1, 1]).is_none());
        assert!(split(&output(&[2], &[1.0; 2]), &[u64::MAX, 3]).is_none());
        assert!(split(&output(&[0], &[]), &[]).is_none());
        let mut longer = output(&[2], &[1.0; 2]);
        longer[0].data.extend([0; 3]);
        assert!(split(&longer, &[1, 1]).is_none());
    }
}
