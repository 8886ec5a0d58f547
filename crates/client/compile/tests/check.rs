//! A check that compared nothing would say that a form is right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::NonZeroU32;

use sesemi_compile::{
    CompileError, Tolerance, check, check_against, sample_inputs, specs, split_weights,
};
use sesemi_onnx::messages::{
    AttributeProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    ValueInfoProto,
};
use sesemi_protocol::package::{Form, Manifest, ModelFormat};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine, EngineError, LoadedModel};

const TINY: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

#[test]
fn a_check_without_samples_is_refused_and_one_with_a_sample_is_made() {
    let (engine, form) = (Rten::new(1), split_weights(TINY).unwrap());
    let check = |samples: &[Vec<_>]| check(&engine, TINY, &form, samples, Tolerance::default());
    let refused = check(&[]).unwrap_err();
    assert!(matches!(&refused, CompileError::Model(why) if why.contains("sample")));
    let (inputs, _) = specs(TINY).unwrap();
    check(&[sample_inputs(&inputs, 1)]).unwrap();
}

/// RTen, and an engine that should run models as they are written, and may fail to.
struct Failing {
    rten: Rten,
    takes_unoptimised: bool,
}

impl Engine for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn takes(&self, form: &Form) -> bool {
        let unoptimised = form.format == ModelFormat::OnnxRuntimeCompiled;
        self.rten.takes(form) || (unoptimised && self.takes_unoptimised)
    }

    fn wipes(&self) -> bool {
        self.rten.wipes()
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        if form.format == ModelFormat::OnnxRuntimeCompiled {
            return Err(EngineError::Load("the original is broken".into()));
        }
        self.rten.load(manifest, form, parts)
    }
}

#[test]
fn an_original_that_fails_as_it_is_written_is_told_and_not_replaced_by_an_optimised_one() {
    let (inputs, _) = specs(TINY).unwrap();
    let samples = [sample_inputs(&inputs, 1)];
    let form = split_weights(TINY).unwrap();
    let checked = |takes_unoptimised| {
        let rten = Rten::new(1);
        let reference = Failing {
            rten,
            takes_unoptimised,
        };
        let (engine, tolerance) = (Rten::new(1), Tolerance::default());
        check_against(&engine, &reference, TINY, &form, &samples, tolerance, None)
    };
    // One that has no such form runs the model in its own way.
    checked(false).unwrap();
    let failed = checked(true).unwrap_err();
    assert!(
        matches!(&failed, CompileError::Original(EngineError::Load(why)) if why.contains("broken")),
        "{failed}"
    );
}

/// A model of one operator on two values a row.
fn model(operator: &str, axis: i64) -> Vec<u8> {
    let shape = || {
        let rows = DimensionValue::DimParam("rows".into());
        [rows, DimensionValue::DimValue(2)]
    };
    let node = NodeProto {
        input: vec!["x".into()],
        output: vec!["y".into()],
        op_type: Some(operator.into()),
        attribute: vec![AttributeProto::int("axis", axis)],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        input: vec![ValueInfoProto::floats("x", shape())],
        output: vec![ValueInfoProto::floats("y", shape())],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto {
        version: Some(17),
        ..OperatorSetIdProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    };
    sesemi_onnx::write(&model).unwrap()
}

#[test]
fn a_batch_is_refused_where_a_row_of_it_depends_on_another() {
    let checked = |onnx: &[u8], samples: u64, rows| {
        let (inputs, _) = specs(onnx).unwrap();
        let samples: Vec<_> = (0..samples).map(|it| sample_inputs(&inputs, it)).collect();
        let form = split_weights(onnx).unwrap();
        let (engine, tolerance) = (Rten::new(1), Tolerance::default());
        let rows = NonZeroU32::new(rows);
        check_against(&engine, &engine, onnx, &form, &samples, tolerance, rows)
    };
    checked(TINY, 3, 16).unwrap();
    checked(&model("Softmax", 1), 3, 16).unwrap();
    let mixed = checked(&model("Softmax", 0), 3, 16).unwrap_err();
    assert!(matches!(mixed, CompileError::Rows(_)), "{mixed}");
    let small = checked(TINY, 2, 1).unwrap_err();
    assert!(small.to_string().contains("two samples"), "{small}");
}
