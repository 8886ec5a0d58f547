//! DenseNet121: Huang et al., *Densely Connected Convolutional Networks*, arXiv:1608.06993, table 1 with growth rate 32.
//!
//! It is the published DenseNet-BC: batch norm and `ReLU` before each convolution, one-by-one convolutions to four times the
//! growth before each three-by-three, and half of the channels kept between blocks.

use sesemi_onnx::messages::ModelProto;

use crate::layers::{Convolution, Layers, Signal};

/// Layers of the dense blocks.
const BLOCKS: [usize; 4] = [6, 12, 24, 16];
/// Channels that each layer adds.
const GROWTH: usize = 32;

pub(crate) fn model() -> ModelProto {
    let (mut layers, image) = Layers::new("densenet-121", 1e-5);
    let first = layers.convolution("conv1", &image, 2 * GROWTH, Convolution::SEVEN);
    let first = layers.batch_norm("conv1/norm", &first);
    let mut signal = layers.relu_and_max_pool("conv1/relu", "conv1/pool", &first);
    for (block, count) in (1..).zip(BLOCKS) {
        if block > 1 {
            signal = transition(&mut layers, &format!("transition{}", block - 1), &signal);
        }
        for layer in 1..=count {
            let name = format!("block{block}/layer{layer}");
            let added = dense_layer(&mut layers, &name, &signal);
            signal = layers.concatenate(&format!("{name}/concat"), [&signal, &added]);
        }
    }
    let last = norm_and_relu(&mut layers, "last", &signal);
    layers.classify(&last)
}

fn dense_layer(layers: &mut Layers, name: &str, input: &Signal) -> Signal {
    let [narrow, wide] = ["bottleneck", "growth"].map(|it| format!("{name}/{it}"));
    let signal = norm_and_relu(layers, &narrow, input);
    let signal = layers.convolution(&narrow, &signal, 4 * GROWTH, Convolution::POINT);
    let signal = norm_and_relu(layers, &wide, &signal);
    layers.convolution(&wide, &signal, GROWTH, Convolution::THREE)
}

fn transition(layers: &mut Layers, name: &str, input: &Signal) -> Signal {
    let signal = norm_and_relu(layers, name, input);
    let signal = layers.convolution(name, &signal, input.channels() / 2, Convolution::POINT);
    layers.average_pool(&format!("{name}/pool"), &signal)
}

fn norm_and_relu(layers: &mut Layers, name: &str, signal: &Signal) -> Signal {
    let normed = layers.batch_norm(&format!("{name}/norm"), signal);
    layers.relu(&format!("{name}/relu"), &normed)
}
