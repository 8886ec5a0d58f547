//! Tensors as they travel: Open Inference Protocol data types, row-major, little-endian.

use minicbor::{Decode, Encode};

use crate::limits::{MAX_RANK, MAX_TENSOR_NAME};

/// Data types of the Open Inference Protocol (KServe v2) that have a fixed size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum DataType {
    #[n(0)]
    Bool,
    #[n(1)]
    Uint8,
    #[n(2)]
    Uint16,
    #[n(3)]
    Uint32,
    #[n(4)]
    Uint64,
    #[n(5)]
    Int8,
    #[n(6)]
    Int16,
    #[n(7)]
    Int32,
    #[n(8)]
    Int64,
    #[n(9)]
    Fp16,
    #[n(10)]
    Fp32,
    #[n(11)]
    Fp64,
    #[n(12)]
    Bf16,
}

impl DataType {
    /// All of them, by their numbers.
    pub const ALL: [Self; 13] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bf16,
    ];

    /// Size of one element, in bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => 1,
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => 2,
            Self::Uint32 | Self::Int32 | Self::Fp32 => 4,
            Self::Uint64 | Self::Int64 | Self::Fp64 => 8,
        }
    }

    /// The protocol's name, for example `FP32`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
        }
    }
}

/// Why a tensor is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The name is empty or too long.
    #[error("a tensor's name has 1 to {MAX_TENSOR_NAME} bytes, this one {0}")]
    Name(usize),
    /// Too many dimensions.
    #[error("a tensor has at most {MAX_RANK} dimensions, this one {0}")]
    Rank(usize),
    /// Shape, data type and number of bytes disagree.
    #[error("a tensor of this shape and data type has {expected} bytes, not {got}")]
    Length {
        /// Bytes that shape and type ask for.
        expected: u64,
        /// Bytes that are there.
        got: u64,
    },
    /// The shape's product does not fit.
    #[error("a tensor of this shape is too large to address")]
    Overflow,
}

/// A tensor whose bytes live in a buffer elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorView<'a> {
    /// Name of the model's input or output.
    pub name: &'a str,
    /// Type of an element.
    pub data_type: DataType,
    /// Extent of each dimension, outermost first.
    pub shape: &'a [u64],
    /// Elements, row-major, little-endian.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// Checks name, rank and that shape, type and bytes agree.
    ///
    /// # Errors
    /// See [`TensorError`].
    pub fn check(&self) -> Result<(), TensorError> {
        check(
            self.name,
            self.data_type,
            self.shape,
            self.data.len() as u64,
        )
    }
}

/// A tensor that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Name of the model's input or output.
    pub name: String,
    /// Type of an element.
    pub data_type: DataType,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<u64>,
    /// Elements, row-major, little-endian.
    pub data: Vec<u8>,
}

impl Tensor {
    /// An FP32 tensor of `values` in row-major order.
    ///
    /// # Errors
    /// [`TensorError`] if the shape asks for another number of values.
    pub fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Result<Self, TensorError> {
        let tensor = Self {
            name: name.to_owned(),
            data_type: DataType::Fp32,
            shape: shape.to_vec(),
            data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        tensor.view().check()?;
        Ok(tensor)
    }

    /// The values of an FP32 tensor, row-major; `None` for another type.
    #[must_use]
    pub fn to_fp32(&self) -> Option<Vec<f32>> {
        if self.data_type != DataType::Fp32 {
            return None;
        }
        let (values, _) = self.data.as_chunks::<4>();
        Some(
            values
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        )
    }

    /// A view of it.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            name: &self.name,
            data_type: self.data_type,
            shape: &self.shape,
            data: &self.data,
        }
    }
}

/// Checks that a tensor's description agrees with its number of bytes.
///
/// # Errors
/// See [`TensorError`].
pub fn check(
    name: &str,
    data_type: DataType,
    shape: &[u64],
    bytes: u64,
) -> Result<(), TensorError> {
    if name.is_empty() || name.len() > MAX_TENSOR_NAME {
        return Err(TensorError::Name(name.len()));
    }
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank(shape.len()));
    }
    let expected = shape
        .iter()
        .try_fold(data_type.size() as u64, |size, extent| {
            size.checked_mul(*extent)
        })
        .ok_or(TensorError::Overflow)?;
    if expected != bytes {
        return Err(TensorError::Length {
            expected,
            got: bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_and_bytes_must_agree() {
        assert!(Tensor::fp32("x", &[2, 3], &[0.0; 6]).is_ok());
        assert!(Tensor::fp32("x", &[2, 3], &[0.0; 5]).is_err());
        assert!(Tensor::fp32("", &[1], &[0.0]).is_err());
        assert_eq!(
            check("x", DataType::Fp32, &[u64::MAX, 2], 0),
            Err(TensorError::Overflow)
        );
    }

    #[test]
    fn values_read_back_as_written() {
        let tensor = Tensor::fp32("x", &[3], &[1.5, -0.0, f32::MAX]).unwrap();
        assert_eq!(tensor.to_fp32().unwrap(), [1.5, -0.0, f32::MAX]);
    }
}
