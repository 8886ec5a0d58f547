//! ResNet101: He et al., *Deep Residual Learning for Image Recognition*, arXiv:1512.03385, table 1.
//!
//! As published: batch norm after each convolution, projection shortcuts where shapes change (option B), and the stride in
//! the first convolution of a stage's first block. (Later variants move it to the second one.) Convolutions have no
//! bias, which a batch norm would take away again.

use sesemi_onnx::messages::ModelProto;

use crate::layers::{Convolution, Layers, Signal};

/// Blocks and inner channels of the stages conv2 to conv5.
const STAGES: [(usize, usize); 4] = [(3, 64), (4, 128), (23, 256), (3, 512)];
/// A block has so many times as many channels outside as inside.
const EXPANSION: usize = 4;

pub(crate) fn model() -> ModelProto {
    let (mut layers, image) = Layers::new("resnet-101", 1e-5);
    let first = layers.convolution("conv1", &image, 64, Convolution::SEVEN);
    let first = layers.batch_norm("conv1/norm", &first);
    let mut signal = layers.relu_and_max_pool("conv1/relu", "conv1/pool", &first);
    for (stage, (blocks, inner)) in (2..).zip(STAGES) {
        for block in 1..=blocks {
            let stride = if stage > 2 && block == 1 { 2 } else { 1 };
            let name = format!("conv{stage}/block{block}");
            signal = bottleneck(&mut layers, &name, &signal, inner, stride);
        }
    }
    layers.classify(&signal)
}

fn bottleneck(
    layers: &mut Layers,
    name: &str,
    input: &Signal,
    inner: usize,
    stride: usize,
) -> Signal {
    let outer = inner * EXPANSION;
    let entry = Convolution {
        stride,
        ..Convolution::POINT
    };
    let mut norm_after = |part: &str, signal: &Signal, channels, kind| {
        let name = format!("{name}/{part}");
        let convolved = layers.convolution(&name, signal, channels, kind);
        let normed = layers.batch_norm(&format!("{name}/norm"), &convolved);
        if matches!(part, "reduce" | "middle") {
            return layers.relu(&format!("{name}/relu"), &normed);
        }
        normed
    };
    let reduced = norm_after("reduce", input, inner, entry);
    let middle = norm_after("middle", &reduced, inner, Convolution::THREE);
    let expanded = norm_after("expand", &middle, outer, Convolution::POINT);
    let projected =
        (input.channels() != outer).then(|| norm_after("shortcut", input, outer, entry));
    let shortcut = projected.as_ref().unwrap_or(input);
    let [add, relu] = ["add", "relu"].map(|it| format!("{name}/{it}"));
    layers.add_and_relu(&add, &relu, [shortcut, &expanded])
}
