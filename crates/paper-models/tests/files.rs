//! The files are what they are said to be: to the byte, and by what the publications say of the networks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::process::Command;

use ring::digest::{SHA256, digest};
use sesemi_onnx::messages::{GraphProto, TensorProto};
use sesemi_paper_models::Network;

fn graph(network: Network) -> GraphProto {
    network.model().graph.unwrap()
}

fn count(graph: &GraphProto, operator: &str) -> usize {
    let nodes = graph.node.iter();
    nodes.filter(|node| node.op_type() == operator).count()
}

fn elements(tensor: &TensorProto) -> i64 {
    tensor.dims.iter().product()
}

#[test]
fn every_file_has_the_bytes_that_are_pinned_and_is_read_again_unchanged() {
    for (network, megabytes) in [
        (Network::MobileNetV1, 17),
        (Network::DenseNet121, 32),
        (Network::ResNet101, 179),
    ] {
        let bytes = network.onnx().unwrap();
        assert_eq!(bytes.len().div_ceil(500_000) / 2, megabytes, "{network}");
        let sha256 = hex::encode(digest(&SHA256, &bytes));
        assert_eq!(sha256, network.sha256(), "{network}");
        if network != Network::ResNet101 {
            let model = sesemi_onnx::read(bytes.clone()).unwrap();
            assert!(model == network.model(), "{network}");
            assert!(sesemi_onnx::write(&model).unwrap() == bytes, "{network}");
        }
    }
}

#[test]
fn the_layers_and_parameters_are_those_of_the_publications() {
    // Parameters as the publications' implementations count them, the running statistics of batch norms included.
    for (network, parameters, convolutions, norms) in [
        (Network::MobileNetV1, 4_253_864, 27, 27),
        (Network::ResNet101, 44_654_504, 104, 104),
        (Network::DenseNet121, 8_062_504, 120, 121),
    ] {
        let graph = graph(network);
        let weights = graph.initializer.iter();
        let weights = weights.filter(|it| !it.name().starts_with("relu6/"));
        assert_eq!(weights.map(elements).sum::<i64>(), parameters, "{network}");
        assert_eq!(count(&graph, "Conv"), convolutions, "{network}");
        assert_eq!(count(&graph, "BatchNormalization"), norms, "{network}");
        assert_eq!(count(&graph, "Gemm"), 1, "{network}");
    }
}

#[test]
fn every_value_has_one_source_before_it_is_used_and_every_weight_is_used_and_finite() {
    for network in Network::ALL {
        let graph = graph(network);
        let weights: Vec<_> = graph.initializer.iter().map(|it| it.name()).collect();
        let mut known: BTreeSet<_> = weights.iter().copied().collect();
        assert_eq!(
            known.len(),
            weights.len(),
            "{network}: two tensors of one name"
        );
        known.insert("image");
        let mut used = BTreeSet::new();
        for node in &graph.node {
            for input in &node.input {
                assert!(known.contains(input.as_str()), "{network}: {input}");
                used.insert(input.as_str());
            }
            assert!(
                known.insert(&node.output[0]),
                "{network}: {}",
                node.output[0]
            );
        }
        assert!(used.contains("image") && known.contains("logits"));
        for tensor in &graph.initializer {
            assert!(used.contains(tensor.name()), "{network}: {}", tensor.name());
            let values = tensor.raw_data().chunks_exact(4);
            let values = values.map(|it| f32::from_le_bytes(it.try_into().unwrap()));
            let limit = if tensor.name().ends_with("moving_variance") {
                1e-3
            } else {
                f32::MIN
            };
            assert_eq!(
                values.len() as i64,
                elements(tensor),
                "{network}: {}",
                tensor.name()
            );
            assert!(
                values.into_iter().all(|it| it.is_finite() && it > limit),
                "{network}: {}",
                tensor.name()
            );
        }
    }
}

#[test]
fn the_program_writes_the_pinned_file_and_says_its_name_size_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sesemi-paper-models"));
        let output = command
            .arg("write")
            .arg(folder.path())
            .args(arguments)
            .output();
        output.unwrap()
    };
    let output = run(&["--model", "mobilenet-v1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = std::fs::read(folder.path().join("mobilenet-v1.onnx")).unwrap();
    assert_eq!(printed[0]["name"], "mobilenet-v1");
    assert_eq!(printed[0]["bytes"], bytes.len());
    assert_eq!(printed[0]["sha256"], hex::encode(digest(&SHA256, &bytes)));
    let output = run(&["--model", "vgg-16"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && error.contains("resnet-101"),
        "{error}"
    );
}
