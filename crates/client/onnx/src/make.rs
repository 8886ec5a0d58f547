//! Short ways to write the messages that every model has.

use bytes::Bytes;

use crate::messages::{
    AttributeProto, Dimension, DimensionValue, StringStringEntryProto, TensorProto,
    TensorShapeProto, TensorType, TypeProto, TypeValue, ValueInfoProto, attribute_type, data_type,
};

impl AttributeProto {
    /// An attribute that is an integer.
    pub fn int(name: &str, value: i64) -> Self {
        Self {
            i: Some(value),
            ..Self::named(name, attribute_type::INT)
        }
    }

    /// An attribute that is a list of integers.
    pub fn ints(name: &str, values: &[i64]) -> Self {
        Self {
            ints: values.to_vec(),
            ..Self::named(name, attribute_type::INTS)
        }
    }

    /// An attribute that is a number.
    pub fn float(name: &str, value: f32) -> Self {
        Self {
            f: Some(value),
            ..Self::named(name, attribute_type::FLOAT)
        }
    }

    /// An attribute that is a text.
    pub fn string(name: &str, value: &str) -> Self {
        Self {
            s: Some(Bytes::copy_from_slice(value.as_bytes())),
            ..Self::named(name, attribute_type::STRING)
        }
    }

    fn named(name: &str, kind: i32) -> Self {
        Self {
            name: Some(name.into()),
            r#type: Some(kind),
            ..Self::default()
        }
    }
}

impl TensorProto {
    /// A tensor of 32-bit floats, in row-major order; as many as `dims` multiply to.
    pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Self {
        let mut raw = Vec::with_capacity(size_of_val(values));
        for value in values {
            raw.extend_from_slice(&value.to_le_bytes());
        }
        Self {
            dims: dims.to_vec(),
            data_type: Some(data_type::FLOAT),
            name: Some(name.into()),
            raw_data: Some(raw.into()),
            ..Self::default()
        }
    }
}

impl ValueInfoProto {
    /// A graph's input or output that is a tensor of 32-bit floats.
    pub fn floats(name: &str, shape: impl IntoIterator<Item = DimensionValue>) -> Self {
        let dim = shape.into_iter().map(|value| Dimension {
            value: Some(value),
            denotation: None,
        });
        let tensor = TensorType {
            elem_type: Some(data_type::FLOAT),
            shape: Some(TensorShapeProto { dim: dim.collect() }),
        };
        Self {
            name: Some(name.into()),
            r#type: Some(TypeProto {
                denotation: None,
                value: Some(TypeValue::TensorType(tensor)),
            }),
            ..Self::default()
        }
    }
}

impl StringStringEntryProto {
    /// A key and its value.
    pub fn new(key: &str, value: &str) -> Self {
        Self {
            key: Some(key.into()),
            value: Some(value.into()),
        }
    }
}
