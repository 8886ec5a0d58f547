//! Batch norms go into the convolutions before them, and nothing else does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use sesemi_compile::{Tolerance, check, sample_inputs, specs, split_weights};
use sesemi_onnx::messages::{
    AttributeProto, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto,
};
use sesemi_semirt::engine::rten::Rten;

fn node(
    operator: &str,
    inputs: &[&str],
    output: &str,
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs.iter().map(|it| (*it).to_owned()).collect(),
        output: vec![output.into()],
        attribute,
        ..NodeProto::default()
    }
}

/// One step in each direction, without a border.
fn conv() -> Vec<AttributeProto> {
    vec![
        AttributeProto::ints("strides", &[1, 1]),
        AttributeProto::ints("dilations", &[1, 1]),
        AttributeProto::ints("pads", &[0; 4]),
    ]
}

fn values(count: usize, from: f32) -> Vec<f32> {
    (0..count)
        .map(|at| from + (at as f32).sin() / 4.0)
        .collect()
}

/// `y = norm(conv(x))` of four channels; the convolution has a bias if it is asked for.
fn graph(bias: bool) -> GraphProto {
    let vector = |name: &str, from: f32| TensorProto::floats(name, &[4], &values(4, from));
    let mut initializer = vec![
        TensorProto::floats("w", &[4, 3, 3, 3], &values(108, 0.0)),
        vector("scale", 1.0),
        vector("shift", 0.5),
        vector("mean", 0.1),
        vector("variance", 2.0),
    ];
    let mut inputs = vec!["x", "w"];
    if bias {
        initializer.push(vector("b", -1.0));
        inputs.push("b");
    }
    let statistics = ["c", "scale", "shift", "mean", "variance"];
    let epsilon = vec![AttributeProto::float("epsilon", 0.5)];
    let fixed = |extents: [i64; 4]| extents.map(DimensionValue::DimValue);
    GraphProto {
        name: Some("g".into()),
        node: vec![
            node("Conv", &inputs, "c", conv()),
            node("BatchNormalization", &statistics, "n", epsilon),
            node("Relu", &["n"], "y", vec![]),
        ],
        initializer,
        input: vec![ValueInfoProto::floats("x", fixed([1, 3, 8, 8]))],
        output: vec![ValueInfoProto::floats("y", fixed([1, 4, 6, 6]))],
        ..GraphProto::default()
    }
}

fn model(graph: GraphProto) -> Vec<u8> {
    let onnx = OperatorSetIdProto {
        domain: Some(String::new()),
        version: Some(17),
    };
    sesemi_onnx::write(&ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        opset_import: vec![onnx],
        ..ModelProto::default()
    })
    .unwrap()
}

/// The graph of the portable form, whose results must be those of the original.
fn split(graph: GraphProto) -> GraphProto {
    let onnx = model(graph);
    let form = split_weights(&onnx).unwrap();
    let (inputs, _) = specs(&onnx).unwrap();
    let samples = [sample_inputs(&inputs, 1), sample_inputs(&inputs, 2)];
    // RTen folds with the same arithmetic when it loads the original.
    let exact = Tolerance {
        absolute: 0.0,
        relative: 0.0,
    };
    check(&Rten::new(1), &onnx, &form, &samples, exact).unwrap();
    let graph = form.parts[1].clone();
    sesemi_onnx::read(graph).unwrap().graph.unwrap()
}

fn operators(graph: &GraphProto) -> Vec<&str> {
    graph.node.iter().map(|it| it.op_type()).collect()
}

#[test]
fn a_batch_norm_of_a_convolution_is_folded_and_its_statistics_are_gone() {
    for bias in [false, true] {
        let folded = split(graph(bias));
        assert_eq!(operators(&folded), ["Conv", "Relu"]);
        let names: Vec<_> = folded.initializer.iter().map(|it| it.name()).collect();
        assert_eq!(names, ["n/folded-weights", "n/folded-bias"]);
    }
}

#[test]
fn a_convolution_that_somebody_else_takes_stays_as_it_is() {
    let mut shared = graph(true);
    shared.node[2] = node("Add", &["n", "c"], "y", vec![]);
    let kept = split(shared);
    assert_eq!(operators(&kept), ["Conv", "BatchNormalization", "Add"]);
    let mut output = graph(true);
    let fixed = [1, 4, 6, 6].map(DimensionValue::DimValue);
    output.output.push(ValueInfoProto::floats("c", fixed));
    assert_eq!(split(output).node.len(), 3);
}

#[test]
fn weights_that_two_convolutions_share_are_folded_for_each_alone() {
    let mut shared = graph(false);
    shared
        .node
        .insert(1, node("Conv", &["x", "w"], "d", conv()));
    shared.node[3] = node("Add", &["n", "d"], "y", vec![]);
    let folded = split(shared);
    assert_eq!(operators(&folded), ["Conv", "Conv", "Add"]);
    let names: Vec<_> = folded.initializer.iter().map(|it| it.name()).collect();
    assert_eq!(names, ["w", "n/folded-weights", "n/folded-bias"]);
}

#[test]
fn what_a_request_may_replace_is_not_folded() {
    let mut open = graph(true);
    let fixed = [4].map(DimensionValue::DimValue);
    open.input.push(ValueInfoProto::floats("mean", fixed));
    let form = split_weights(&model(open)).unwrap();
    let kept = sesemi_onnx::read(form.parts[1].clone()).unwrap();
    assert_eq!(kept.graph.unwrap().node.len(), 3);
}

#[test]
fn the_channels_of_a_grouped_convolution_are_folded_each_with_its_own_statistics() {
    let mut grouped = graph(true);
    grouped.initializer[0] = TensorProto::floats("w", &[4, 2, 3, 3], &values(72, 0.0));
    let fixed = [1, 4, 8, 8].map(DimensionValue::DimValue);
    grouped.input[0] = ValueInfoProto::floats("x", fixed);
    grouped.node[0]
        .attribute
        .push(AttributeProto::int("group", 2));
    assert_eq!(operators(&split(grouped)), ["Conv", "Relu"]);
}

#[test]
fn a_norm_that_is_trained_or_has_further_outputs_is_not_folded() {
    let mut trained = graph(true);
    trained.node[1]
        .attribute
        .push(AttributeProto::int("training_mode", 1));
    let mut more = graph(true);
    more.node[1].output.push("running_mean".into());
    for open in [trained, more] {
        let form = split_weights(&model(open)).unwrap();
        let kept = sesemi_onnx::read(form.parts[1].clone()).unwrap();
        assert_eq!(kept.graph.unwrap().node.len(), 3);
    }
}
