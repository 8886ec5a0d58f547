//! MobileNetV1: Howard et al., *MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications*,
//! arXiv:1704.04861, table 1.
//!
//! Where the table leaves a choice, it is that of the authors' own implementation: `ReLU6`, padding at the end alone where
//! the stride is 2, an epsilon of 0.001, a bias in the classifier.

use sesemi_onnx::messages::ModelProto;

use crate::layers::{Convolution, Layers, Signal};

/// Stride and output channels of the thirteen depthwise separable convolutions.
const BLOCKS: [(usize, usize); 13] = [
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
];

const HALVING: Convolution = Convolution {
    kernel: 3,
    stride: 2,
    pads: (0, 1),
};

pub(crate) fn model() -> ModelProto {
    let (mut layers, image) = Layers::new("mobilenet-v1", 1e-3);
    let first = layers.convolution("conv1", &image, 32, HALVING);
    let mut signal = norm_and_relu6(&mut layers, "conv1", &first);
    for (block, (stride, outputs)) in (1..).zip(BLOCKS) {
        let kind = if stride == 2 {
            HALVING
        } else {
            Convolution::THREE
        };
        let name = format!("block{block}/depthwise");
        let depthwise = layers.depthwise(&name, &signal, kind);
        let depthwise = norm_and_relu6(&mut layers, &name, &depthwise);
        let name = format!("block{block}/pointwise");
        let pointwise = layers.convolution(&name, &depthwise, outputs, Convolution::POINT);
        signal = norm_and_relu6(&mut layers, &name, &pointwise);
    }
    layers.classify(&signal)
}

fn norm_and_relu6(layers: &mut Layers, name: &str, signal: &Signal) -> Signal {
    let normed = layers.batch_norm(&format!("{name}/norm"), signal);
    layers.relu6(&format!("{name}/relu6"), &normed)
}
