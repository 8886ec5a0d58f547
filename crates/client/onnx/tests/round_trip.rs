//! What is read and written again is the same model, and what would not be is refused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::Path;

use sesemi_onnx::messages::{
    AttributeProto, DimensionValue, GraphProto, ModelProto, NodeProto, TypeProto, TypeValue,
    ValueInfoProto,
};
use sesemi_onnx::{OnnxError, read, read_file, write};

/// Every field of every message, set by ONNX's own library: see `every_field.py`.
const EVERY_FIELD: &[u8] = include_bytes!("every-field.onnx");
const BREAST_CANCER: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

#[test]
fn the_example_model_is_written_again_byte_for_byte() {
    let model = read(BREAST_CANCER).unwrap();
    assert!(!model.graph.as_ref().unwrap().node.is_empty());
    assert!(write(&model).unwrap() == BREAST_CANCER);
}

#[test]
fn no_field_of_a_model_that_has_every_field_is_lost() {
    let model = read(EVERY_FIELD).unwrap();
    let written = write(&model).unwrap();
    // The members of `TypeProto.value` are on both sides of `denotation`, which prost does not put between them: the order
    // may differ, the fields not.
    assert_eq!(written.len(), EVERY_FIELD.len());
    assert_eq!(histogram(&written), histogram(EVERY_FIELD));
    assert!(read(written).unwrap() == model);
}

fn histogram(bytes: &[u8]) -> [usize; 256] {
    let mut counts = [0; 256];
    bytes
        .iter()
        .for_each(|byte| counts[usize::from(*byte)] += 1);
    counts
}

#[test]
fn a_field_of_a_later_version_is_refused_and_named() {
    // Field 99 of the model, a varint.
    let mut later = BREAST_CANCER.to_vec();
    later.extend([0x98, 0x06, 1]);
    let error = read(later).unwrap_err();
    assert!(
        matches!(
            error,
            OnnxError::UnknownField {
                message: "ModelProto",
                number: 99
            }
        ),
        "{error}"
    );
    // Field 99 of a graph (field 7), of a node (field 1): 3 bytes in 5 in 7.
    let error = read(vec![0x3a, 5, 0x0a, 3, 0x98, 0x06, 1]).unwrap_err();
    assert!(
        matches!(
            error,
            OnnxError::UnknownField {
                message: "NodeProto",
                number: 99
            }
        ),
        "{error}"
    );
}

#[test]
fn a_model_that_is_cut_anywhere_or_is_none_gives_an_error_or_a_model_and_never_a_panic() {
    let cuts: Vec<_> = (1..EVERY_FIELD.len()).step_by(17).collect();
    let refused = cuts
        .iter()
        .filter(|end| read(&EVERY_FIELD[..**end]).is_err());
    // Only a cut between two fields of the model itself leaves a model.
    assert!(refused.count() > cuts.len() - 10);
    assert!(read(&b"<html><body>not found</body></html>"[..]).is_err());
    // A varint without an end, a length beyond the end, and a group.
    for broken in [
        &[0xff; 12][..],
        &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x0b],
    ] {
        let error = read(broken).unwrap_err();
        assert!(
            matches!(
                error,
                OnnxError::BrokenField {
                    message: "ModelProto"
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn graphs_in_graphs_are_kept_down_to_a_depth_and_refused_below() {
    let nested = |levels: usize| {
        let mut graph = GraphProto::default();
        for _ in 0..levels {
            let attribute = AttributeProto {
                g: Some(Box::new(graph)),
                ..Default::default()
            };
            let node = NodeProto {
                attribute: vec![attribute],
                ..Default::default()
            };
            graph = GraphProto {
                node: vec![node],
                ..Default::default()
            };
        }
        ModelProto {
            graph: Some(graph),
            ..Default::default()
        }
    };
    let model = nested(30);
    assert!(read(write(&model).unwrap()).unwrap() == model);
    let error = read(write(&nested(60)).unwrap()).unwrap_err();
    assert!(matches!(error, OnnxError::TooDeep { .. }), "{error}");
}

#[test]
fn a_default_that_was_set_is_not_one_that_was_not() {
    let set = ModelProto {
        producer_name: Some(String::new()),
        model_version: Some(0),
        ..Default::default()
    };
    assert_eq!(write(&set).unwrap(), [0x12, 0, 0x28, 0]);
    assert_eq!(read(write(&set).unwrap()).unwrap(), set);
    assert_ne!(set, ModelProto::default());
}

#[test]
fn an_input_with_an_open_batch_has_the_shape_that_it_was_given() {
    let input = ValueInfoProto::floats(
        "x",
        [
            DimensionValue::DimParam("N".into()),
            DimensionValue::DimValue(3),
        ],
    );
    let Some(TypeProto {
        value: Some(TypeValue::TensorType(tensor)),
        ..
    }) = input.r#type
    else {
        panic!("not a tensor");
    };
    let dims: Vec<_> = tensor
        .shape
        .unwrap()
        .dim
        .into_iter()
        .map(|dim| dim.value.unwrap())
        .collect();
    assert_eq!(
        dims,
        [
            DimensionValue::DimParam("N".into()),
            DimensionValue::DimValue(3)
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = read_file(Path::new("/nonexistent/model.onnx")).unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/model.onnx"),
        "{error}"
    );
}
