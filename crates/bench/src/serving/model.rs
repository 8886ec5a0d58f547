//! The models that are measured with: those of the paper's experiments, and a tiny one, with which everything but the engine shows.

use clap::ValueEnum;
use sesemi_compile::{CompiledForm, Tolerance, compare, sample_inputs, specs};
use sesemi_paper_models::Network;
use sesemi_protocol::package::Manifest;
use sesemi_protocol::tensor::{Tensor, TensorView};

use super::engine::Local;
use super::load;
use crate::error::BenchError;

const TINY: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");
/// What inputs are drawn from.
const SEED: u64 = 7;

/// A model, by the name that figures have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Model {
    /// A classifier of 30 numbers.
    Tiny,
    #[value(name = "mobilenetv1")]
    MobileNetV1,
    #[value(name = "densenet121")]
    DenseNet121,
    #[value(name = "resnet101")]
    ResNet101,
}

/// A model in the form that an engine takes.
pub(crate) struct Prepared {
    pub(crate) model: Model,
    pub(crate) form: CompiledForm,
    pub(crate) manifest: Manifest,
    pub(crate) inputs: Vec<Tensor>,
    /// What the engine alone makes of them.
    pub(crate) expected: Vec<Tensor>,
}

impl Model {
    /// Those of the paper.
    pub(crate) const OF_THE_PAPER: [Self; 3] =
        [Self::MobileNetV1, Self::DenseNet121, Self::ResNet101];
    /// All.
    pub(crate) const ALL: [Self; 4] = [
        Self::Tiny,
        Self::MobileNetV1,
        Self::DenseNet121,
        Self::ResNet101,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::MobileNetV1 => "mobilenetv1",
            Self::DenseNet121 => "densenet121",
            Self::ResNet101 => "resnet101",
        }
    }

    fn onnx(self) -> Result<Vec<u8>, BenchError> {
        let network = match self {
            Self::Tiny => return Ok(TINY.to_vec()),
            Self::MobileNetV1 => Network::MobileNetV1,
            Self::DenseNet121 => Network::DenseNet121,
            Self::ResNet101 => Network::ResNet101,
        };
        Ok(network.onnx()?)
    }

    /// What its owner does before it is pushed.
    pub(crate) fn prepare(self, local: &Local) -> Result<Prepared, BenchError> {
        eprintln!("making {}", self.as_str());
        let onnx = self.onnx()?;
        let (inputs, outputs) = specs(&onnx)?;
        let form = local.form(&onnx)?;
        drop(onnx);
        let parts = form.parts();
        let manifest = Manifest::describing(inputs, outputs, &[form.content(&parts)]);
        let mut prepared = Prepared {
            model: self,
            inputs: inputs_for(&manifest),
            expected: Vec::new(),
            form,
            manifest,
        };
        let loaded = load(local, &prepared)?;
        let views: Vec<TensorView<'_>> = prepared.inputs.iter().map(Tensor::view).collect();
        let expected = loaded.execution()?.run(&views, &[])?;
        drop(views);
        prepared.expected = expected;
        Ok(prepared)
    }
}

impl Prepared {
    /// Wrong answers are not measured.
    pub(crate) fn must_be(&self, found: &[Tensor]) -> Result<(), BenchError> {
        compare(&self.expected, found, Tolerance::default())?;
        Ok(())
    }

    /// Bytes of the form.
    pub(crate) fn bytes(&self) -> usize {
        self.form.parts.iter().map(Vec::len).sum()
    }
}

/// One request's inputs: 602 kB for a picture.
pub(crate) fn inputs_for(manifest: &Manifest) -> Vec<Tensor> {
    sample_inputs(&manifest.inputs, SEED)
}
