//! What a model is tried on: numbers, and texts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use sesemi_compile::{Choices, CompileError, Tolerance, compare, sample_inputs, sample_inputs_of};
use sesemi_protocol::package::{Dimension, TensorSpec};
use sesemi_protocol::tensor::{DataType, Tensor};

fn inputs() -> [TensorSpec; 2] {
    let spec = |name: &str, data_type| TensorSpec {
        name: name.into(),
        data_type,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(40)],
    };
    [
        spec("review", DataType::Bytes),
        spec("stars", DataType::Int64),
    ]
}

fn texts(texts: &[(&str, &str)]) -> Choices {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Choices {
        texts: texts.iter().map(owned).collect(),
        ..Choices::default()
    }
}

/// The different elements of the first sample.
fn different(samples: &[Tensor]) -> Vec<&[u8]> {
    let mut elements = samples[0].to_bytes().unwrap();
    assert_eq!(elements.len(), 40);
    elements.sort_unstable();
    elements.dedup();
    elements
}

#[test]
fn samples_of_every_type_are_what_their_description_says() {
    for data_type in DataType::ALL {
        let spec = TensorSpec {
            data_type,
            ..inputs()[0].clone()
        };
        let samples = sample_inputs(std::slice::from_ref(&spec), 1);
        samples[0].view().check().unwrap();
        assert!(spec.fits(samples[0].data_type, &samples[0].shape));
    }
}

#[test]
fn texts_are_digits_unless_others_are_chosen() {
    assert_eq!(different(&sample_inputs(&inputs(), 1)), [b"0", b"1"]);
    let chosen = texts(&[("review", "good"), ("review", ""), ("review", "bad=worse")]);
    let samples = sample_inputs_of(&inputs(), &chosen, 1).unwrap();
    assert_eq!(different(&samples), [&b""[..], b"bad=worse", b"good"]);
    assert_eq!(samples, sample_inputs_of(&inputs(), &chosen, 1).unwrap());
    assert_ne!(samples, sample_inputs_of(&inputs(), &chosen, 2).unwrap());
    // What is not chosen is as it was.
    assert_eq!(samples[1], sample_inputs(&inputs(), 1)[1]);
}

#[test]
fn texts_for_numbers_and_numbers_for_texts_are_refused() {
    let ranges = Choices {
        ranges: vec![("review".into(), 0..5)],
        ..Choices::default()
    };
    for choices in [texts(&[("stars", "five")]), texts(&[("film", "x")]), ranges] {
        let refused = sample_inputs_of(&inputs(), &choices, 1).unwrap_err();
        assert!(matches!(refused, CompileError::Model(_)), "{refused}");
    }
}

#[test]
fn texts_differ_if_one_byte_does() {
    let output = |texts: &[&str]| [Tensor::bytes("y", &[2], texts).unwrap()];
    let compare = |found: &[&str]| {
        let expected = output(&["good", "bad"]);
        compare(&expected, &output(found), Tolerance::default())
    };
    assert_eq!(compare(&["good", "bad"]).unwrap(), 0.0);
    for found in [
        ["good", "bat"],
        ["good ", "bad"],
        ["bad", "good"],
        ["goo", "dbad"],
    ] {
        let differs = compare(&found).unwrap_err();
        assert!(matches!(differs, CompileError::Differs(_)), "{differs}");
    }
}
