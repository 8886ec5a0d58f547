//! What is inside an envelope: a CBOR head that describes tensors, then the tensors' bytes, then padding.
//!
//! ```text
//! u32 little-endian: length of the head | head (CBOR) | 0.. to 64 | tensor | 0.. to 64 | tensor | ... | 0.. to Padmé bucket
//! ```
//!
//! Every tensor starts at a multiple of 64 bytes from the start of the plaintext: whoever opens a message to an aligned place
//! can read tensors where they lie.

use core::ops::Range;

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::limits::{MAX_CONTENT_HEADER, MAX_ENVELOPE, MAX_TENSORS, MAX_TEXTS};
use crate::padding::padded_length;
use crate::tensor::{self, DataType, TensorError, TensorView};

/// Alignment of tensors within the plaintext, in bytes: a cache line, and the widest vector register.
const ALIGNMENT: usize = 64;
/// Length of the field that holds the head's length.
const LENGTH_FIELD: usize = 4;

/// Why an authentic plaintext is not a request or response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// The head is not what it should be.
    #[error("the head of the message is malformed: {0}")]
    Head(#[from] CborError),
    /// A tensor's description is wrong.
    #[error("tensor '{name}': {source}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// More tensors than are allowed.
    #[error("a message has at most {MAX_TENSORS} tensors, this one {0}")]
    TooMany(usize),
    /// More elements of BYTES tensors than are allowed.
    #[error("the BYTES tensors of a message have at most {MAX_TEXTS} elements")]
    TooManyTexts,
    /// The lengths do not add up, or padding is not zero.
    #[error("the message's parts and its length do not agree")]
    Layout,
    /// Too large to be sent.
    #[error(
        "the message is too large: at most {MAX_ENVELOPE} bytes; send large tensors by reference"
    )]
    TooLong,
}

/// Describes one tensor of a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct TensorInfo {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub data_type: DataType,
    #[n(2)]
    pub shape: Vec<u64>,
    #[n(3)]
    pub length: u64,
}

impl TensorInfo {
    pub(super) fn of(tensor: &TensorView<'_>) -> Self {
        Self {
            name: tensor.name.to_owned(),
            data_type: tensor.data_type,
            shape: tensor.shape.to_vec(),
            length: tensor.data.len() as u64,
        }
    }
}

/// How a message's parts are laid out.
pub(super) struct Layout {
    head: Vec<u8>,
    /// Length of the whole plaintext, padding included.
    pub(super) padded: usize,
}

/// Checks the tensors and lays the message out. `head` is the encoded head.
pub(super) fn lay_out(head: &[u8], tensors: &[TensorView<'_>]) -> Result<Layout, ContentError> {
    if tensors.len() > MAX_TENSORS {
        return Err(ContentError::TooMany(tensors.len()));
    }
    if head.len() > MAX_CONTENT_HEADER {
        return Err(ContentError::TooLong);
    }
    for tensor in tensors {
        tensor.check().map_err(|source| ContentError::Tensor {
            name: tensor.name.to_owned(),
            source,
        })?;
    }
    check_texts(tensors.iter().map(|t| (t.data_type, t.shape)))?;
    let lengths = tensors.iter().map(|t| t.data.len());
    let (_, end) = places(head.len(), lengths)?;
    let padded = padded_length(end)
        .filter(|padded| *padded <= MAX_ENVELOPE)
        .ok_or(ContentError::TooLong)?;
    Ok(Layout {
        head: head.to_vec(),
        padded,
    })
}

impl Layout {
    /// Appends the plaintext to `out`.
    pub(super) fn write(
        &self,
        tensors: &[TensorView<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), ContentError> {
        let start = out.len();
        let pad_to = |out: &mut Vec<u8>, offset: usize| {
            let target = start.checked_add(offset).ok_or(ContentError::Layout)?;
            out.resize(target, 0);
            Ok::<(), ContentError>(())
        };
        let head_length = u32::try_from(self.head.len()).map_err(|_| ContentError::TooLong)?;
        out.extend_from_slice(&head_length.to_le_bytes());
        out.extend_from_slice(&self.head);
        let (places, _) = places(self.head.len(), tensors.iter().map(|t| t.data.len()))?;
        for (tensor, place) in tensors.iter().zip(places) {
            pad_to(out, place.start)?;
            out.extend_from_slice(tensor.data);
        }
        pad_to(out, self.padded)
    }
}

/// The encoded head of a plaintext.
pub(super) fn head(plaintext: &[u8]) -> Result<&[u8], ContentError> {
    let (field, rest) = plaintext
        .split_first_chunk::<LENGTH_FIELD>()
        .ok_or(ContentError::Layout)?;
    let length = usize::try_from(u32::from_le_bytes(*field)).map_err(|_| ContentError::Layout)?;
    if length > MAX_CONTENT_HEADER {
        return Err(ContentError::Layout);
    }
    rest.get(..length).ok_or(ContentError::Layout)
}

/// Decodes a head.
pub(super) fn decode_head<'b, T: Decode<'b, ()> + Encode<()>>(
    plaintext: &'b [u8],
) -> Result<T, ContentError> {
    Ok(cbor::decode(head(plaintext)?, MAX_CONTENT_HEADER)?)
}

/// Where each described tensor lies in the plaintext, once everything about the layout is checked.
pub(super) fn find(
    plaintext: &[u8],
    tensors: &[TensorInfo],
) -> Result<Vec<Range<usize>>, ContentError> {
    if tensors.len() > MAX_TENSORS {
        return Err(ContentError::TooMany(tensors.len()));
    }
    for info in tensors {
        tensor::check(&info.name, info.data_type, &info.shape, info.length).map_err(|source| {
            ContentError::Tensor {
                name: info.name.clone(),
                source,
            }
        })?;
    }
    check_texts(tensors.iter().map(|it| (it.data_type, &*it.shape)))?;
    let lengths: Vec<usize> = tensors
        .iter()
        .map(|info| usize::try_from(info.length).map_err(|_| ContentError::Layout))
        .collect::<Result<_, _>>()?;
    let head_length = head(plaintext)?.len();
    let (places, end) = places(head_length, lengths.into_iter())?;
    if padded_length(end) != Some(plaintext.len()) {
        return Err(ContentError::Layout);
    }
    for (info, place) in tensors.iter().zip(&places) {
        let data = plaintext.get(place.clone()).ok_or(ContentError::Layout)?;
        tensor::check_elements(info.data_type, &info.shape, data).map_err(|source| {
            ContentError::Tensor {
                name: info.name.clone(),
                source,
            }
        })?;
    }
    // One content, one plaintext: what lies between the parts is zero, so nothing can hide there.
    let mut gap_starts = LENGTH_FIELD.saturating_add(head_length);
    for place in &places {
        check_zero(plaintext, gap_starts..place.start)?;
        gap_starts = place.end;
    }
    check_zero(plaintext, gap_starts..plaintext.len())?;
    Ok(places)
}

/// Refuses more elements of BYTES than an engine has to make objects of.
fn check_texts<'t>(
    tensors: impl Iterator<Item = (DataType, &'t [u64])>,
) -> Result<(), ContentError> {
    let texts = tensors.filter(|(data_type, _)| *data_type == DataType::Bytes);
    let mut counts = texts.map(|(_, shape)| {
        let mut extents = shape.iter();
        extents.try_fold(1u64, |count, extent| count.checked_mul(*extent))
    });
    let all = counts.try_fold(0u64, |sum, count| sum.checked_add(count?));
    match all {
        Some(all) if all <= MAX_TEXTS => Ok(()),
        _ => Err(ContentError::TooManyTexts),
    }
}

fn check_zero(plaintext: &[u8], range: Range<usize>) -> Result<(), ContentError> {
    match plaintext.get(range) {
        Some(gap) if gap.iter().all(|byte| *byte == 0) => Ok(()),
        _ => Err(ContentError::Layout),
    }
}

/// The places of tensors of these lengths behind a head of that length, and where the last part ends.
fn places(
    head: usize,
    lengths: impl Iterator<Item = usize>,
) -> Result<(Vec<Range<usize>>, usize), ContentError> {
    let mut end = LENGTH_FIELD
        .checked_add(head)
        .ok_or(ContentError::TooLong)?;
    let mut places = Vec::new();
    for length in lengths {
        let start = end
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or(ContentError::TooLong)?;
        end = start.checked_add(length).ok_or(ContentError::TooLong)?;
        places.push(start..end);
    }
    Ok((places, end))
}
