//! The three models of the paper's experiments as ONNX files, made here instead of downloaded.
//!
//! What an experiment measures (sizes, loading, decryption, the time of an inference) depends on a model's structure and not
//! on what it has learnt. So the structures are those of the publications, to the layer, and the weights are drawn: He-normal
//! convolutions, and batch norms whose statistics are computed for these weights (`moments.rs`), so that signals keep their
//! scale through a hundred layers and every output depends on the input. The classes mean nothing.
//!
//! The same bytes come out on every machine: numbers come from a counter-based generator (`draws.rs`), and all arithmetic is
//! addition, multiplication, division and square root, which IEEE 754 defines to the bit. [`Network::sha256`] pins them.
//!
//! | network | publication | parameters | file |
//! |---|---|---|---|
//! | MobileNetV1 (1.0, 224) | Howard et al., *MobileNets*, arXiv:1704.04861, table 1 | 4 253 864 | 17 MB |
//! | ResNet101 (v1) | He et al., *Deep Residual Learning for Image Recognition*, arXiv:1512.03385, table 1 | 44 654 504 | 179 MB |
//! | DenseNet121 (k = 32) | Huang et al., *Densely Connected Convolutional Networks*, arXiv:1608.06993, table 1 | 8 062 504 | 32 MB |
//!
//! (The batch norms' running statistics are counted.) Input: `image`, float32 `[N, 3, 224, 224]`, of about zero mean and unit
//! variance, the batch `N` open. Output: `logits`, float32 `[N, 1000]`, without a softmax: after one, all of a thousand
//! classes are near 0.001, and two engines would seem to agree that do not. IR version 8, opset 17; batch norms stay nodes.

#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod densenet;
mod draws;
mod layers;
mod mobilenet;
mod moments;
mod network;
mod resnet;

pub use network::Network;
