//! What an owner says about a model; encrypted with it.

use minicbor::{Decode, Encode};

use crate::tensor::DataType;

/// How the model's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ModelFormat {
    /// ONNX, with all weights inside.
    #[n(1)]
    Onnx,
}

/// One dimension of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Dimension {
    /// Always this extent.
    #[n(0)]
    Fixed(#[n(0)] u64),
    /// Any extent, for example a batch.
    #[n(1)]
    Dynamic,
}

/// An input or output of the model.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TensorSpec {
    /// Its name in the graph.
    #[n(0)]
    pub name: String,
    /// Type of an element.
    #[n(1)]
    pub data_type: DataType,
    /// Its dimensions, outermost first.
    #[n(2)]
    pub shape: Vec<Dimension>,
}

impl TensorSpec {
    /// Whether a tensor of this type and shape fits.
    #[must_use]
    pub fn fits(&self, data_type: DataType, shape: &[u64]) -> bool {
        self.data_type == data_type
            && self.shape.len() == shape.len()
            && self
                .shape
                .iter()
                .zip(shape)
                .all(|(spec, extent)| match spec {
                    Dimension::Fixed(fixed) => fixed == extent,
                    Dimension::Dynamic => true,
                })
    }

    /// For people: `FP32 [batch, 30]` with `?` for a dynamic dimension.
    #[must_use]
    pub fn describe(&self) -> String {
        let shape: Vec<String> = self
            .shape
            .iter()
            .map(|d| match d {
                Dimension::Fixed(extent) => extent.to_string(),
                Dimension::Dynamic => "?".to_owned(),
            })
            .collect();
        format!("{} [{}]", self.data_type.as_str(), shape.join(", "))
    }
}

/// The manifest of a model package.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// How to read the model.
    #[n(0)]
    pub format: ModelFormat,
    /// Its inputs.
    #[n(1)]
    pub inputs: Vec<TensorSpec>,
    /// Its outputs.
    #[n(2)]
    pub outputs: Vec<TensorSpec>,
}
