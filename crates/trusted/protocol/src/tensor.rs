//! Tensors as they travel: Open Inference Protocol data types, row-major, little-endian.

use minicbor::{Decode, Encode};

use crate::limits::{MAX_RANK, MAX_TENSOR_NAME};

mod elements;

pub use elements::{Elements, append, split_elements};

/// Data types of the Open Inference Protocol (KServe v2).
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
    /// Texts, or any bytes: see [`Elements`].
    #[n(13)]
    Bytes,
}

impl DataType {
    /// All of them, by their numbers.
    pub const ALL: [Self; 14] = [
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
        Self::Bytes,
    ];

    /// Size of one element, in bytes; none for BYTES, each of whose elements has its own.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
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
            Self::Bytes => "BYTES",
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
    /// The data of a BYTES tensor is too short for the lengths of its elements alone, or there should be none.
    #[error(
        "a BYTES tensor of this shape has {expected} elements, each behind its length of 4 bytes; that is not {got} bytes"
    )]
    Lengths {
        /// Elements that the shape asks for.
        expected: u64,
        /// Bytes that are there.
        got: u64,
    },
    /// The data of a BYTES tensor holds another number of elements.
    #[error("a BYTES tensor of this shape has {expected} elements, not {got}")]
    Elements {
        /// Elements that the shape asks for.
        expected: u64,
        /// Elements that are there.
        got: u64,
    },
    /// The data of a BYTES tensor ends within an element.
    #[error(
        "the data ends within an element; one of BYTES is its length (u32, little-endian) and that many bytes"
    )]
    Cut,
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
    /// Elements, row-major, little-endian; those of BYTES as [`Elements`] says.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// Checks name, rank and that shape, type and bytes agree. Walks through the data if it is of BYTES.
    ///
    /// # Errors
    /// See [`TensorError`].
    pub fn check(&self) -> Result<(), TensorError> {
        let bytes = self.data.len() as u64;
        check(self.name, self.data_type, self.shape, bytes)?;
        check_elements(self.data_type, self.shape, self.data)
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
    /// Elements, row-major, little-endian; those of BYTES as [`Elements`] says.
    pub data: Vec<u8>,
}

impl Tensor {
    /// A tensor of these bytes, as [`Tensor::data`] describes them.
    ///
    /// # Errors
    /// [`TensorError`] if they are not what type and shape ask for.
    pub fn new(
        name: &str,
        data_type: DataType,
        shape: &[u64],
        data: Vec<u8>,
    ) -> Result<Self, TensorError> {
        let tensor = Self {
            name: name.to_owned(),
            data_type,
            shape: shape.to_vec(),
            data,
        };
        tensor.view().check()?;
        Ok(tensor)
    }

    /// An FP32 tensor of `values` in row-major order.
    ///
    /// # Errors
    /// [`TensorError`] if the shape asks for another number of values.
    pub fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Result<Self, TensorError> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(name, DataType::Fp32, shape, data)
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

    /// A BYTES tensor of `elements` in row-major order: texts, or any bytes.
    ///
    /// # Errors
    /// [`TensorError`] if the shape asks for another number of them.
    pub fn bytes(
        name: &str,
        shape: &[u64],
        elements: &[impl AsRef<[u8]>],
    ) -> Result<Self, TensorError> {
        let mut data = Vec::new();
        for element in elements {
            append(&mut data, element.as_ref())?;
        }
        Self::new(name, DataType::Bytes, shape, data)
    }

    /// The elements of a BYTES tensor, row-major; `None` for another type, or where its data is not what its shape asks for.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Vec<&[u8]>> {
        if self.data_type != DataType::Bytes || self.view().check().is_err() {
            return None;
        }
        Elements::of(&self.data).collect::<Result<_, _>>().ok()
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

/// Checks that a tensor's description agrees with its number of bytes. For BYTES that is half of it: see [`check_elements`].
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
    let Some(size) = data_type.size() else {
        let expected = product(1, shape)?;
        let least = product(elements::LENGTH_FIELD, shape)?;
        return if least > bytes || (least == 0 && bytes != 0) {
            Err(TensorError::Lengths {
                expected,
                got: bytes,
            })
        } else {
            Ok(())
        };
    };
    let expected = product(size, shape)?;
    if expected != bytes {
        return Err(TensorError::Length {
            expected,
            got: bytes,
        });
    }
    Ok(())
}

/// Checks the elements of a tensor whose description was checked: those of BYTES must be as many as the shape asks for, and use
/// up the data. Of any other type all bytes are elements.
///
/// # Errors
/// [`TensorError::Elements`], [`TensorError::Cut`], or [`TensorError::Overflow`] if the description was not checked.
pub fn check_elements(data_type: DataType, shape: &[u64], data: &[u8]) -> Result<(), TensorError> {
    match data_type {
        DataType::Bytes => elements::check(data, product(1, shape)?),
        _ => Ok(()),
    }
}

/// What so many elements of a size take, from the left: a product that does not fit is one too many, also before a 0.
fn product(size: usize, shape: &[u64]) -> Result<u64, TensorError> {
    let mut extents = shape.iter();
    extents
        .try_fold(size as u64, |size, extent| size.checked_mul(*extent))
        .ok_or(TensorError::Overflow)
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
    fn a_bytes_tensor_has_the_elements_that_its_shape_asks_for_and_no_byte_more() {
        let words = ["good", "", "film"];
        let tensor = Tensor::bytes("x", &[3, 1], &words).unwrap();
        let read = tensor.to_bytes().unwrap();
        assert_eq!(read, words.map(str::as_bytes));
        assert_eq!(tensor.data.len(), 4 + 4 + 4 + 4 + 4);
        assert!(Tensor::bytes("x", &[2], &words).is_err());
        assert!(Tensor::bytes("x", &[4], &words).is_err());
        assert!(Tensor::bytes("x", &[0], &[b""; 0]).is_ok());
        assert!(Tensor::bytes("x", &[], &["one"]).is_ok());
        assert_eq!(Tensor::fp32("x", &[1], &[1.0]).unwrap().to_bytes(), None);
        let mut longer = tensor.clone();
        longer.data.push(0);
        assert_eq!(longer.view().check(), Err(TensorError::Cut));
        assert_eq!(longer.to_bytes(), None);
        let mut shorter = tensor;
        shorter.data.pop();
        assert_eq!(shorter.view().check(), Err(TensorError::Cut));
    }

    #[test]
    fn a_description_of_bytes_must_have_room_for_the_lengths_of_its_elements() {
        let check = |shape: &[u64], bytes| check("x", DataType::Bytes, shape, bytes);
        assert_eq!(check(&[2, 3], 24), Ok(()));
        assert_eq!(check(&[2, 3], 1000), Ok(()));
        let (expected, got) = (6, 23);
        assert_eq!(
            check(&[2, 3], 23),
            Err(TensorError::Lengths { expected, got })
        );
        let (expected, got) = (0, 1);
        assert_eq!(
            check(&[2, 0], 1),
            Err(TensorError::Lengths { expected, got })
        );
        assert_eq!(check(&[2, 0], 0), Ok(()));
        // 2^62 elements have lengths of 2^64 bytes.
        assert_eq!(check(&[1 << 62], u64::MAX), Err(TensorError::Overflow));
        assert_eq!(check(&[1 << 62, 0], 0), Err(TensorError::Overflow));
    }

    #[test]
    fn values_read_back_as_written() {
        let tensor = Tensor::fp32("x", &[3], &[1.5, -0.0, f32::MAX]).unwrap();
        assert_eq!(tensor.to_fp32().unwrap(), [1.5, -0.0, f32::MAX]);
    }
}
