//! What a tensor says of itself: name, type, shape, and where its elements are.

use sesemi_protocol::limits::MAX_RANK;
use sesemi_protocol::package::Weight;
use sesemi_protocol::tensor::DataType;

use super::wire::varint;
use super::{BROKEN, Value, fields};

/// A tensor without its elements.
#[derive(Default)]
pub(super) struct Tensor<'m> {
    pub(super) name: &'m [u8],
    data_type: u64,
    shape: [u64; MAX_RANK],
    /// How many dimensions it has, of which those that fit are in `shape`.
    rank: usize,
    is_external: bool,
    has_elements: bool,
    /// Entries about external data.
    entries: usize,
    locations: usize,
    location: &'m [u8],
    has_other_entries: bool,
}

impl<'m> Tensor<'m> {
    pub(super) fn read(tensor: &'m [u8]) -> Result<Self, &'static str> {
        let mut read = Self::default();
        for field in fields(tensor) {
            match field? {
                (1, Value::Number(extent)) => read.dimension(extent),
                (1, Value::Bytes(packed)) => read.dimensions(packed)?,
                (2, Value::Number(data_type)) => read.data_type = data_type,
                (8, Value::Bytes(name)) => read.name = name,
                (13, Value::Bytes(entry)) => read.entry(entry)?,
                (14, Value::Number(place)) => {
                    read.is_external = match place {
                        0 => false,
                        1 => true,
                        // Readers do not agree on what else means.
                        _ => return Err(BROKEN),
                    }
                }
                // Elements, in all ways.
                (4..=7 | 9..=11, _) => read.has_elements = true,
                _ => {}
            }
        }
        Ok(read)
    }

    fn dimension(&mut self, extent: u64) {
        if let Some(place) = self.shape.get_mut(self.rank) {
            *place = extent;
        }
        self.rank = self.rank.saturating_add(1);
    }

    fn dimensions(&mut self, mut packed: &[u8]) -> Result<(), &'static str> {
        while !packed.is_empty() {
            self.dimension(varint(&mut packed).ok_or(BROKEN)?);
        }
        Ok(())
    }

    /// An entry about external data: a key and its value.
    fn entry(&mut self, entry: &'m [u8]) -> Result<(), &'static str> {
        let (mut key, mut value) = (&b""[..], &b""[..]);
        for field in fields(entry) {
            match field? {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        self.entries = self.entries.saturating_add(1);
        match key {
            b"location" => {
                self.locations = self.locations.saturating_add(1);
                self.location = value;
            }
            b"offset" | b"length" => {}
            // ONNX Runtime knows more, for what it prepared for itself.
            _ => self.has_other_entries = true,
        }
        Ok(())
    }

    /// Whether nothing says that its elements are elsewhere.
    pub(super) fn is_inline(&self) -> bool {
        !self.is_external && self.entries == 0
    }

    /// Whether its elements are at this location and nowhere else.
    pub(super) fn is_at(&self, location: &str) -> bool {
        self.is_external
            && !self.has_elements
            && !self.has_other_entries
            && self.locations == 1
            && self.location == location.as_bytes()
    }

    /// Whether a weight of a list is this one.
    pub(super) fn is(&self, weight: &Weight) -> bool {
        self.name == weight.name.as_bytes()
            && self.shape.get(..self.rank) == Some(weight.shape.as_slice())
            && self.data_type == number(weight.data_type)
    }
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
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}
