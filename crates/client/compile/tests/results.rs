//! Two results: what counts as the same, and what samples are drawn from.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::ops::Range;

use sesemi_compile::{Choices, CompileError, Tolerance, compare, sample_inputs_of};
use sesemi_protocol::package::{Dimension, TensorSpec};
use sesemi_protocol::tensor::{DataType, Tensor};

fn tensor(data_type: DataType, data: &[u8]) -> Tensor {
    Tensor {
        name: "out".into(),
        data_type,
        shape: vec![(data.len() / data_type.size().unwrap()) as u64],
        data: data.to_vec(),
    }
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::fp32("out", &[values.len() as u64], values).unwrap()
}

/// The largest difference; none if they are said to differ.
fn apart(expected: &Tensor, found: &Tensor) -> Option<f64> {
    let one = |tensor: &Tensor| [tensor.clone()];
    match compare(&one(expected), &one(found), Tolerance::default()) {
        Ok(largest) => Some(largest),
        Err(CompileError::Differs(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_infinity_is_only_the_same_infinity_and_no_number_only_no_number() {
    const INF: f32 = f32::INFINITY;
    let apart = |expected, found| apart(&floats(&[1.0, expected]), &floats(&[1.0, found]));
    for same in [INF, -INF, f32::NAN, 0.5] {
        assert_eq!(apart(same, same), Some(0.0), "{same}");
    }
    for (one, other) in [
        (INF, -INF),
        (INF, f32::NAN),
        (-INF, f32::NAN),
        (INF, 7.0),
        (-INF, f32::MIN),
        (f32::NAN, 0.0),
    ] {
        assert_eq!(apart(one, other), None, "{one} {other}");
        assert_eq!(apart(other, one), None, "{other} {one}");
    }
}

#[test]
fn infinities_of_half_precision_are_compared_as_well() {
    let half = |bits: u16| tensor(DataType::Fp16, &bits.to_le_bytes());
    assert_eq!(apart(&half(0x7c00), &half(0x7c00)), Some(0.0));
    assert_eq!(apart(&half(0x7c00), &half(0xfc00)), None);
    assert_eq!(apart(&half(0x7c00), &half(0x7bff)), None);
}

#[test]
fn floats_may_differ_in_their_last_digits_and_no_more() {
    let near = apart(&floats(&[1000.0, 0.0]), &floats(&[1000.5, 0.0005]));
    assert_eq!(near, Some(0.5));
    assert_eq!(apart(&floats(&[1000.0]), &floats(&[1001.5])), None);
    assert_eq!(apart(&floats(&[0.0]), &floats(&[0.0015])), None);
}

#[test]
fn integers_and_booleans_are_the_same_or_differ() {
    let whole = |data_type, value: i64| {
        let bytes = value.to_le_bytes();
        tensor(data_type, &bytes[..data_type.size().unwrap()])
    };
    for (data_type, one, other) in [
        // Within the tolerance for floats, and the same once they are floats.
        (DataType::Int64, (1 << 53) + 1, 1 << 53),
        (DataType::Uint64, -1, -2),
        (DataType::Int32, 30_000, 30_001),
        (DataType::Uint32, 30_000, 30_001),
        (DataType::Int16, -30_000, -30_001),
        (DataType::Uint16, 30_000, 30_001),
        (DataType::Int8, -1, 1),
        (DataType::Uint8, 0, 1),
        (DataType::Bool, 0, 1),
    ] {
        let (one, other) = (whole(data_type, one), whole(data_type, other));
        assert_eq!(apart(&one, &one), Some(0.0), "{data_type:?}");
        assert_eq!(apart(&one, &other), None, "{data_type:?}");
        assert_eq!(apart(&other, &one), None, "{data_type:?}");
    }
    let wide = Tolerance {
        absolute: 5.0,
        relative: 5.0,
    };
    let label = |label| [whole(DataType::Int64, label)];
    let differs = compare(&label(-7), &label(-8), wide).unwrap_err();
    assert!(
        differs.to_string().contains("-8 instead of -7"),
        "{differs}"
    );
}

#[test]
fn a_range_that_a_type_has_no_room_for_is_refused_instead_of_wrapping() {
    let drawn = |data_type, range: Range<i64>| {
        let spec = TensorSpec {
            name: "in".into(),
            data_type,
            shape: vec![Dimension::Fixed(64)],
        };
        let choices = Choices {
            ranges: vec![("in".into(), range)],
            ..Choices::default()
        };
        sample_inputs_of(&[spec], &choices, 1).map(|mut samples| samples.remove(0))
    };
    for (data_type, first, last) in [
        (DataType::Uint8, 0, 255),
        (DataType::Int8, -128, 127),
        (DataType::Uint16, 0, 65_535),
        (DataType::Int16, -32_768, 32_767),
        (DataType::Uint32, 0, u32::MAX.into()),
        (DataType::Int32, i32::MIN.into(), i32::MAX.into()),
    ] {
        assert!(drawn(data_type, first..last + 1).is_ok(), "{data_type:?}");
        for beyond in [first - 1..last, first..last + 2, last + 1..last + 2] {
            let refused = drawn(data_type, beyond.clone());
            assert!(refused.is_err(), "{data_type:?} {beyond:?}");
        }
    }
    assert!(drawn(DataType::Uint64, -1..1).is_err());
    assert!(drawn(DataType::Bool, 0..2).is_err());
    assert!(drawn(DataType::Int64, i64::MIN..-5).is_ok());
    let bytes = drawn(DataType::Uint8, 250..256).unwrap();
    assert!(bytes.data.iter().all(|byte| *byte >= 250));
}
