//! Two engines agree on the models: rten here, and onnxruntime, whose scores `check.py` wrote to `tests/expected`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use rten::{Model, Value};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use sesemi_paper_models::Network;

const ELEMENTS: usize = 3 * 224 * 224;

/// What `noise` of `check.py` makes, to the bit.
fn noise(image: usize) -> Vec<f32> {
    let places = image * ELEMENTS..(image + 1) * ELEMENTS;
    places
        .map(|place| {
            let mut x = place as u32;
            x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
            x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
            x ^= x >> 16;
            ((x >> 8) as f32 / 8_388_608.0 - 1.0) * 1.75
        })
        .collect()
}

fn scores(model: &Model, images: &[usize]) -> Vec<f32> {
    let pixels: Vec<_> = images.iter().flat_map(|image| noise(*image)).collect();
    let input = NdTensor::from_data([images.len(), 3, 224, 224], pixels);
    let id = model.node_id("image").unwrap();
    let output = model.node_id("logits").unwrap();
    let [logits] = model
        .run_n(vec![(id, Value::from(input).into())], [output], None)
        .unwrap();
    let logits: NdTensor<f32, 2> = logits.try_into().unwrap();
    assert_eq!(logits.shape(), [images.len(), 1000]);
    logits.to_vec()
}

fn expected(network: Network) -> Vec<f32> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/expected");
    let text = std::fs::read_to_string(format!("{folder}/{network}.txt")).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn agree(network: Network) {
    let model = Model::load(network.onnx().unwrap()).unwrap();
    let both = scores(&model, &[1, 2]);
    let (one, other) = both.split_at(1000);
    let expected = expected(network);
    assert_eq!(expected.len(), 1000);
    for (class, (ours, theirs)) in one.iter().zip(&expected).enumerate() {
        assert!(
            (ours - theirs).abs() < 1e-3,
            "{network}, class {class}: {ours} instead of {theirs}"
        );
    }
    // Another image has other scores, by far more than engines differ.
    let furthest = one
        .iter()
        .zip(other)
        .map(|(one, other)| (one - other).abs());
    assert!(furthest.fold(0.0, f32::max) > 0.02, "{network}");
}

#[test]
fn rten_and_onnxruntime_agree_on_mobilenet() {
    agree(Network::MobileNetV1);
}

#[test]
fn rten_and_onnxruntime_agree_on_densenet() {
    agree(Network::DenseNet121);
}

#[test]
fn rten_and_onnxruntime_agree_on_resnet() {
    agree(Network::ResNet101);
}
