//! What a graph says of weights that are not in it, read before ONNX Runtime reads it.
//!
//! ONNX Runtime takes a tensor for an initializer by its name alone: whether type and shape are those of the graph it does not
//! compare, and kernels that were chosen for one shape would run on another. And it looks for external data in files. So the
//! initializers of a graph are walked through here, in protobuf's wire format, as far as that takes: names, types, shapes and
//! locations; elements are stepped over. Field numbers are those of `onnx.proto`.

use sesemi_protocol::package::Weight;
use sesemi_protocol::tensor::DataType;

/// Most numbers of a shape that are read.
const MAX_RANK: usize = sesemi_protocol::limits::MAX_RANK;

/// An initializer whose elements are elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) name: String,
    data_type: u64,
    shape: Vec<u64>,
    is_external: bool,
    pub(crate) locations: Vec<String>,
}

impl External {
    /// Whether a weight of a list is this one.
    pub(crate) fn is(&self, weight: &Weight) -> bool {
        self.name == weight.name
            && self.shape == weight.shape
            && self.data_type == number(weight.data_type)
    }
}

/// The initializers of a model that are external, in their order.
///
/// # Errors
/// What is wrong with the bytes, in a few words.
pub(crate) fn externals(model: &[u8]) -> Result<Vec<External>, &'static str> {
    const GRAPH: u64 = 7;
    const INITIALIZER: u64 = 5;
    let mut found = Vec::new();
    // A message that is there twice is the sum of both.
    for graph in fields(model).bytes_of(GRAPH) {
        let graph = graph?;
        for tensor in fields(graph).bytes_of(INITIALIZER) {
            let tensor = read(tensor?)?;
            if tensor.is_external || !tensor.locations.is_empty() {
                found.push(tensor);
            }
        }
    }
    Ok(found)
}

fn read(tensor: &[u8]) -> Result<External, &'static str> {
    let mut read = External::default();
    for field in fields(tensor) {
        let (number, value) = field?;
        match (number, value) {
            (1, Value::Number(extent)) => read.shape.push(extent),
            (1, Value::Bytes(packed)) => read.shape.extend(numbers(packed)?),
            (2, Value::Number(data_type)) => read.data_type = data_type,
            (8, Value::Bytes(name)) => read.name = text(name)?,
            (13, Value::Bytes(entry)) => read.locations.extend(location(entry)?),
            (14, Value::Number(place)) => read.is_external = place != 0,
            _ => {}
        }
        if read.shape.len() > MAX_RANK && read.is_external {
            return Err("an initializer has too many dimensions");
        }
    }
    Ok(read)
}

/// The value of an entry `location`.
fn location(entry: &[u8]) -> Result<Option<String>, &'static str> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in fields(entry) {
        match field? {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((key == "location").then_some(value))
}

fn text(bytes: &[u8]) -> Result<String, &'static str> {
    let text = core::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| "a name is no text")
}

fn numbers(mut packed: &[u8]) -> Result<Vec<u64>, &'static str> {
    let mut numbers = Vec::new();
    while !packed.is_empty() {
        if numbers.len() > MAX_RANK {
            return Err("an initializer has too many dimensions");
        }
        numbers.push(varint(&mut packed).ok_or(BROKEN)?);
    }
    Ok(numbers)
}

/// ONNX's number of a data type.
fn number(data_type: DataType) -> u64 {
    match data_type {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}

const BROKEN: &str = "it is no ONNX model";

/// A field's value.
enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
    /// Of a fixed length: none that is looked at.
    Other,
}

/// The fields of a message.
struct Fields<'m>(&'m [u8]);

fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

impl<'m> Fields<'m> {
    /// The values of one field that is a message, text or bytes.
    fn bytes_of(self, wanted: u64) -> impl Iterator<Item = Result<&'m [u8], &'static str>> {
        self.filter_map(move |field| match field {
            Ok((number, Value::Bytes(bytes))) if number == wanted => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn read(&mut self) -> Option<(u64, Value<'m>)> {
        let rest = &mut self.0;
        let key = varint(rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(rest)?),
            1 => take(rest, 8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                Value::Bytes(take(rest, length)?)
            }
            5 => take(rest, 4).map(|_| Value::Other)?,
            // Groups, which ONNX never had.
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Value<'m>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read().ok_or(BROKEN);
        if field.is_err() {
            // Nobody can say where the next one begins.
            self.0 = &[];
        }
        Some(field)
    }
}

fn take<'m>(rest: &mut &'m [u8], length: usize) -> Option<&'m [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// Seven bits a byte, the lowest first, at most ten bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
