//! The program that does one step, as `sesemi model compile` starts it. With RTen alone, which is always there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use sesemi_compile::{Choices, Job, JobForm, Said, part_names, split_weights};
use sesemi_onnx::messages::{GraphProto, ModelProto, TypeValue, data_type};
use sesemi_protocol::package::ModelFormat;
use tempfile::TempDir;

const MODEL: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

fn said(place: &TempDir, model: &[u8], change: impl FnOnce(&mut Job)) -> Said {
    let file = place.path().join("model.onnx");
    fs::write(&file, model).unwrap();
    let mut job = Job {
        model: file,
        folder: place.path().to_owned(),
        form: JobForm::Portable,
        onnxruntime: None,
        reference: None,
        prepack: false,
        choices: Choices::default(),
        samples: 2,
        batch: None,
        tolerance: 1e-3,
        threads: 1,
    };
    change(&mut job);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sesemi-compile"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&serde_json::to_vec(&job).unwrap()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_portable_form_is_made_checked_and_measured() {
    let place = tempfile::tempdir().unwrap();
    let done = said(&place, MODEL, |_| {}).unwrap();
    assert_eq!(done.instruction_set, "any");
    assert!(done.difference <= 1e-3);
    let expected = split_weights(MODEL).unwrap();
    let names = part_names(ModelFormat::OnnxWithWeights);
    let mut bytes = 0;
    for (name, part) in names.iter().zip(&expected.parts) {
        assert_eq!(fs::read(place.path().join(name)).unwrap(), *part);
        bytes += part.len() as u64;
    }
    assert!(done.loaded_bytes >= bytes);
}

#[test]
fn samples_have_the_shapes_that_are_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let shape = |name: &str, shape: &[u64]| vec![(name.to_owned(), shape.to_vec())];
    assert!(
        said(&place, MODEL, |job| job.choices.shapes =
            shape("features", &[7, 30]))
        .is_ok()
    );
    let wrong = said(&place, MODEL, |job| {
        job.choices.shapes = shape("features", &[7, 31])
    });
    assert!(wrong.unwrap_err().why.contains("does not fit"));
    let unknown = said(&place, MODEL, |job| {
        job.choices.shapes = shape("other", &[1])
    });
    assert!(unknown.unwrap_err().why.contains("no input 'other'"));
    // Floats are not drawn from a range.
    let ranges = vec![("features".to_owned(), 0..2)];
    let float = said(&place, MODEL, |job| job.choices.ranges = ranges);
    let why = float.unwrap_err().why;
    assert!(why.contains("FP32, has no values of 0..2"), "{why}");
}

#[test]
fn what_is_no_model_is_refused_in_words() {
    let place = tempfile::tempdir().unwrap();
    // The third kept RTen's own reader busy for ever.
    let endless = [&[0x08][..], &[0x80; 10], &[0]].concat();
    for bytes in [&b""[..], b"no model", &endless, &MODEL[..1000]] {
        let why = said(&place, bytes, |_| {}).unwrap_err().why;
        assert!(why.contains("no ONNX model"), "{why}");
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
}

#[test]
fn a_model_with_an_unknown_operator_is_refused_and_the_operator_named() {
    let place = tempfile::tempdir().unwrap();
    let mut model: ModelProto = sesemi_onnx::read(MODEL).unwrap();
    let graph: &mut GraphProto = model.graph.as_mut().unwrap();
    graph.node[0].op_type = Some("Bewitch".into());
    let onnx = sesemi_onnx::write(&model).unwrap();
    let why = said(&place, &onnx, |_| {}).unwrap_err().why;
    assert!(why.contains("Bewitch"), "{why}");
}

#[test]
fn a_model_of_a_type_that_rten_does_not_have_is_refused_and_the_type_named() {
    let place = tempfile::tempdir().unwrap();
    let types = [
        (data_type::STRING, "BYTES"),
        (data_type::DOUBLE, "FP64"),
        (data_type::FLOAT16, "FP16"),
        (data_type::BFLOAT16, "BF16"),
    ];
    for (number, name) in types {
        let mut model: ModelProto = sesemi_onnx::read(MODEL).unwrap();
        let graph: &mut GraphProto = model.graph.as_mut().unwrap();
        let input = graph.input[0].r#type.as_mut().unwrap();
        let Some(TypeValue::TensorType(tensor)) = &mut input.value else {
            panic!("the input is no tensor");
        };
        tensor.elem_type = Some(number);
        let onnx = sesemi_onnx::write(&model).unwrap();
        let why = said(&place, &onnx, |_| {}).unwrap_err().why;
        let expected = format!("input 'features' is {name}, and RTen has FP32, ");
        assert!(why.contains(&expected), "{why}");
        assert!(why.contains("ONNX Runtime has all types"), "{why}");
    }
}

#[test]
fn the_compiled_form_is_not_made_without_its_engine() {
    let place = tempfile::tempdir().unwrap();
    let why = said(&place, MODEL, |job| job.form = JobForm::Compiled)
        .unwrap_err()
        .why;
    assert!(why.contains("ONNX Runtime"), "{why}");
}
