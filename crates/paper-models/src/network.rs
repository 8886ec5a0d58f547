//! The three networks, by name.

use std::fmt;
use std::str::FromStr;

use sesemi_onnx::OnnxError;
use sesemi_onnx::messages::ModelProto;

use crate::{densenet, mobilenet, resnet};

/// A network of the paper's experiments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// MobileNetV1 of width 1.0.
    MobileNetV1,
    /// ResNet101, with the stride in the first convolution of a block, as published.
    ResNet101,
    /// DenseNet121.
    DenseNet121,
}

impl Network {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::MobileNetV1, Self::DenseNet121, Self::ResNet101];

    /// The name, which is also that of the graph and, with `.onnx`, of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::MobileNetV1 => "mobilenet-v1",
            Self::ResNet101 => "resnet-101",
            Self::DenseNet121 => "densenet-121",
        }
    }

    /// The SHA-256 of the file, in hexadecimal.
    pub fn sha256(self) -> &'static str {
        match self {
            Self::MobileNetV1 => "82916ac9ededbdc6f06c5b672ab3a1ebbc3dbb92b3807362c16a4b2bf7dd9509",
            Self::ResNet101 => "ce080b6f52f4617ce37eba391fe2567cfbe4fd5f74f405c7696c9c230b64888b",
            Self::DenseNet121 => "56e7b608b1b8ec8ad0af0816fab920672be5f5115daa3efbcafb7f91b5460c51",
        }
    }

    /// The model. Takes as much memory as its file.
    pub fn model(self) -> ModelProto {
        match self {
            Self::MobileNetV1 => mobilenet::model(),
            Self::ResNet101 => resnet::model(),
            Self::DenseNet121 => densenet::model(),
        }
    }

    /// The bytes of the model's file.
    ///
    /// # Errors
    /// None that is known: only a model of 2 GiB cannot be written.
    pub fn onnx(self) -> Result<Vec<u8>, OnnxError> {
        sesemi_onnx::write(&self.model())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.map(Self::name);
        Self::ALL
            .into_iter()
            .find(|network| network.name() == name)
            .ok_or_else(|| format!("there is no such model; there are {}", known.join(", ")))
    }
}
