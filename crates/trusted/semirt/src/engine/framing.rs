//! The framing of an ONNX file, checked before a reader of it sees a byte.
//!
//! RTen's reader trusts what lengths say: a number without an end keeps it busy for ever, a length that the file does not hold is
//! allocated, and graphs in graphs use up its stack; none of that can be fenced in. So protobuf's wire format is walked through here
//! first, as far as ONNX's messages go: every number ends, every field lies within its message, messages are nested to a bound, and
//! every tensor has the data that its shape asks for. What is only bytes (weights, above all) is stepped over. Fields that are not in
//! the tables are stepped over as well: readers do the same. Field numbers are those of `onnx.proto`, and the wire format is that of
//! <https://protobuf.dev/programming-guides/encoding/>.

/// Messages in each other: as deep as protobuf's own readers go. A graph in a graph takes three.
const MAX_DEPTH: usize = 100;

/// Elements that one byte of a file may hold: types of one bit are the smallest there could be.
const ELEMENTS_PER_BYTE: u64 = 8;

/// Why bytes are not taken for an ONNX model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A field does not end where it should, or is of another kind.
    #[error("this is no ONNX model, or it is truncated: a field of {0} is broken")]
    Field(&'static str),
    /// Messages are nested deeper than any model needs.
    #[error(
        "graphs or types are nested in each other more than {MAX_DEPTH} deep; flatten the model"
    )]
    TooDeep,
    /// It has no graph or no version, or more than one.
    #[error("this is no ONNX model: it must have one {0}")]
    Not(&'static str),
    /// A text is not UTF-8.
    #[error("a text in {0} is not UTF-8")]
    Text(&'static str),
    /// Shape and data of a tensor disagree.
    #[error("a tensor's data is not what its shape and type say")]
    Tensor,
}

/// What a field is.
enum Kind {
    /// A number of a varint.
    Number,
    /// Numbers, each in a field of its own or many in one.
    Numbers,
    /// The same, of four bytes each.
    Fours,
    /// The same, of eight bytes each.
    Eights,
    /// A text.
    Text,
    /// Bytes that are nobody's business here.
    Bytes,
    /// Another message.
    Message(&'static Message),
    /// A tensor, whose data is compared with its shape.
    Tensor,
}

struct Message {
    name: &'static str,
    fields: &'static [(u64, Kind)],
}

macro_rules! messages {
    ($($table:ident = $name:literal, [$($number:literal: $kind:expr),* $(,)?];)*) => {
        $(static $table: Message = Message {
            name: $name,
            fields: &[$(($number, $kind)),*],
        };)*
    };
}

use Kind::{Bytes, Eights, Fours, Number, Numbers, Tensor, Text};

const fn of(message: &'static Message) -> Kind {
    Kind::Message(message)
}

messages! {
    MODEL = "ModelProto", [
        1: Number, 2: Text, 3: Text, 4: Text, 5: Number, 6: Bytes, 7: of(&GRAPH), 8: of(&OPERATOR_SET), 14: of(&ENTRY),
        20: of(&TRAINING), 25: of(&FUNCTION),
    ];
    GRAPH = "GraphProto", [
        1: of(&NODE), 2: Text, 5: Tensor, 10: Bytes, 11: of(&VALUE_INFO), 12: of(&VALUE_INFO), 13: of(&VALUE_INFO),
        14: of(&ANNOTATION), 15: of(&SPARSE_TENSOR), 16: of(&ENTRY),
    ];
    NODE = "NodeProto", [
        1: Text, 2: Text, 3: Text, 4: Text, 5: of(&ATTRIBUTE), 6: Bytes, 7: Text, 8: Text, 9: of(&ENTRY),
    ];
    ATTRIBUTE = "AttributeProto", [
        1: Text, 2: Fours, 3: Number, 4: Bytes, 5: Tensor, 6: of(&GRAPH), 7: Fours, 8: Numbers, 9: Bytes, 10: Tensor,
        11: of(&GRAPH), 13: Bytes, 14: of(&TYPE), 15: of(&TYPE), 20: Number, 21: Text, 22: of(&SPARSE_TENSOR),
        23: of(&SPARSE_TENSOR),
    ];
    FUNCTION = "FunctionProto", [
        1: Text, 4: Text, 5: Text, 6: Text, 7: of(&NODE), 8: Bytes, 9: of(&OPERATOR_SET), 10: Text, 11: of(&ATTRIBUTE),
        12: of(&VALUE_INFO), 13: Text, 14: of(&ENTRY),
    ];
    TRAINING = "TrainingInfoProto", [1: of(&GRAPH), 2: of(&GRAPH), 3: of(&ENTRY), 4: of(&ENTRY)];
    OPERATOR_SET = "OperatorSetIdProto", [1: Text, 2: Number];
    ENTRY = "StringStringEntryProto", [1: Text, 2: Text];
    ANNOTATION = "TensorAnnotation", [1: Text, 2: of(&ENTRY)];
    VALUE_INFO = "ValueInfoProto", [1: Text, 2: of(&TYPE), 3: Bytes, 4: of(&ENTRY)];
    TENSOR = "TensorProto", [
        1: Numbers, 2: Number, 3: of(&SEGMENT), 4: Fours, 5: Numbers, 6: Bytes, 7: Numbers, 8: Text, 9: Bytes, 10: Eights,
        11: Numbers, 12: Bytes, 13: of(&ENTRY), 14: Number, 16: of(&ENTRY),
    ];
    SEGMENT = "TensorProto.Segment", [1: Number, 2: Number];
    SPARSE_TENSOR = "SparseTensorProto", [1: Tensor, 2: Tensor, 3: Numbers];
    TYPE = "TypeProto", [
        1: of(&TENSOR_TYPE), 4: of(&SEQUENCE_TYPE), 5: of(&MAP_TYPE), 6: Text, 7: of(&OPAQUE_TYPE), 8: of(&TENSOR_TYPE),
        9: of(&SEQUENCE_TYPE),
    ];
    TENSOR_TYPE = "TypeProto.Tensor", [1: Number, 2: of(&SHAPE)];
    SEQUENCE_TYPE = "TypeProto.Sequence", [1: of(&TYPE)];
    MAP_TYPE = "TypeProto.Map", [1: Number, 2: of(&TYPE)];
    OPAQUE_TYPE = "TypeProto.Opaque", [1: Text, 2: Text];
    SHAPE = "TensorShapeProto", [1: of(&DIMENSION)];
    DIMENSION = "TensorShapeProto.Dimension", [1: Number, 2: Text, 3: Text];
}

/// Checks that bytes are framed as an ONNX model is. The time that takes goes with the number of fields, not with that of weights.
///
/// # Errors
/// [`FramingError`].
pub fn check(model: &[u8]) -> Result<(), FramingError> {
    // RTen would read its own format, whatever the manifest says.
    if model.starts_with(b"RTEN") {
        return Err(FramingError::Not("graph"));
    }
    check_message(model, &MODEL, 0)?;
    let (mut graphs, mut versions) = (0u64, 0u64);
    let mut rest = model;
    while let Some((number, _)) = next_field(&mut rest, MODEL.name)? {
        match number {
            1 => versions = versions.saturating_add(1),
            7 => graphs = graphs.saturating_add(1),
            _ => {}
        }
    }
    match (versions, graphs) {
        (1, 1) => Ok(()),
        (1, _) => Err(FramingError::Not("graph")),
        _ => Err(FramingError::Not("version")),
    }
}

fn check_message(
    mut rest: &[u8],
    message: &'static Message,
    depth: usize,
) -> Result<(), FramingError> {
    if depth > MAX_DEPTH {
        return Err(FramingError::TooDeep);
    }
    while let Some((number, value)) = next_field(&mut rest, message.name)? {
        let Some((_, kind)) = message.fields.iter().find(|(it, _)| *it == number) else {
            continue;
        };
        match (kind, value) {
            (Number | Numbers, Value::Number(_))
            | (Fours, Value::Four)
            | (Eights, Value::Eight)
            | (Bytes, Value::Bytes(_)) => {}
            (Numbers, Value::Bytes(packed)) => check_numbers(packed, message)?,
            (Fours, Value::Bytes(packed)) if packed.len().is_multiple_of(4) => {}
            (Eights, Value::Bytes(packed)) if packed.len().is_multiple_of(8) => {}
            (Text, Value::Bytes(text)) => {
                core::str::from_utf8(text).map_err(|_| FramingError::Text(message.name))?;
            }
            (Kind::Message(inner), Value::Bytes(bytes)) => {
                check_message(bytes, inner, depth.saturating_add(1))?;
            }
            (Tensor, Value::Bytes(bytes)) => {
                check_message(bytes, &TENSOR, depth.saturating_add(1))?;
                check_tensor(bytes)?;
            }
            _ => return Err(FramingError::Field(message.name)),
        }
    }
    Ok(())
}

fn check_numbers(mut packed: &[u8], message: &Message) -> Result<(), FramingError> {
    while !packed.is_empty() {
        varint(&mut packed).ok_or(FramingError::Field(message.name))?;
    }
    Ok(())
}

/// Compares the shape of a tensor, whose framing was checked, with what there is of its data.
fn check_tensor(tensor: &[u8]) -> Result<(), FramingError> {
    let mut shape = Shape::default();
    let (mut data_type, mut raw, mut is_external) = (0, None, false);
    let mut rest = tensor;
    while let Some((number, value)) = next_field(&mut rest, TENSOR.name)? {
        match (number, value) {
            (1, Value::Number(extent)) => shape.add(extent)?,
            (1, Value::Bytes(mut packed)) => {
                while let Some(extent) = varint(&mut packed) {
                    shape.add(extent)?;
                }
            }
            (2, Value::Number(number)) => data_type = number,
            (9, Value::Bytes(bytes)) => raw = Some(bytes.len() as u64),
            (13, _) => is_external = true,
            (14, Value::Number(place)) => is_external |= place != 0,
            _ => {}
        }
    }
    let elements = shape.elements();
    let fits = match (raw, element_size(data_type)) {
        _ if is_external => true,
        (Some(raw), Some(size)) => elements.checked_mul(size) == Some(raw),
        _ => elements <= (tensor.len() as u64).saturating_mul(ELEMENTS_PER_BYTE),
    };
    if fits {
        Ok(())
    } else {
        Err(FramingError::Tensor)
    }
}

/// The extents of a tensor, multiplied.
#[derive(Default)]
struct Shape {
    /// Of those that are not 0, because readers multiply in any order; 0 for none so far.
    product: u64,
    is_empty: bool,
}

impl Shape {
    fn add(&mut self, extent: u64) -> Result<(), FramingError> {
        if extent == 0 {
            self.is_empty = true;
            return Ok(());
        }
        // A negative one has the highest bit. Bytes of it must be countable as well.
        let product = self.product.max(1).checked_mul(extent);
        let product = product.filter(|it| *it <= (i64::MAX as u64) / 16);
        self.product = product.ok_or(FramingError::Tensor)?;
        Ok(())
    }

    fn elements(&self) -> u64 {
        if self.is_empty {
            0
        } else {
            self.product.max(1)
        }
    }
}

/// Bytes of an element of one of ONNX's data types; none of a type of less than a byte, of texts, or that is not known.
fn element_size(data_type: u64) -> Option<u64> {
    Some(match data_type {
        2 | 3 | 9 | 17..=20 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 | 14 => 8,
        15 => 16,
        _ => return None,
    })
}

/// A field's value.
enum Value<'m> {
    Number(u64),
    Four,
    Eight,
    Bytes(&'m [u8]),
}

/// The next field of a message: its number and value; none at the message's end.
fn next_field<'m>(
    rest: &mut &'m [u8],
    message: &'static str,
) -> Result<Option<(u64, Value<'m>)>, FramingError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let field = read_field(rest).ok_or(FramingError::Field(message))?;
    Ok(Some(field))
}

fn read_field<'m>(rest: &mut &'m [u8]) -> Option<(u64, Value<'m>)> {
    // A number of a field has 29 bits.
    let key = u64::from(u32::try_from(varint(rest)?).ok()?);
    let number = Some(key >> 3).filter(|it| *it != 0)?;
    let value = match key & 7 {
        0 => Value::Number(varint(rest)?),
        1 => rest.split_off(..8).map(|_| Value::Eight)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(rest.split_off(..length)?)
        }
        5 => rest.split_off(..4).map(|_| Value::Four)?,
        // Groups, which ONNX never had.
        _ => return None,
    };
    Some((number, value))
}

/// Seven bits a byte, the lowest first, at most ten bytes and 64 bits.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        let bits = u64::from(byte & 0x7f);
        value |= bits.checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return (shift < 63 || bits < 2).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
