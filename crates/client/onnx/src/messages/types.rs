//! Types of values, and shapes.

/// The type of a value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// What kind of type.
    #[prost(oneof = "TypeValue", tags = "1, 4, 5, 7, 8, 9")]
    pub value: Option<TypeValue>,
    /// What the value means, such as `IMAGE`.
    #[prost(string, optional, tag = "6")]
    pub denotation: Option<String>,
}

/// The kinds of types.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum TypeValue {
    /// A tensor.
    #[prost(message, tag = "1")]
    TensorType(TensorType),
    /// A list.
    #[prost(message, tag = "4")]
    SequenceType(Box<SequenceType>),
    /// A map.
    #[prost(message, tag = "5")]
    MapType(Box<MapType>),
    /// A type of another domain.
    #[prost(message, tag = "7")]
    OpaqueType(OpaqueType),
    /// A sparse tensor.
    #[prost(message, tag = "8")]
    SparseTensorType(SparseTensorType),
    /// A value or none.
    #[prost(message, tag = "9")]
    OptionalType(Box<OptionalType>),
}

/// The type of tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorType {
    /// The type of an element: a number of [`data_type`](super::data_type).
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// The shape; none if also the rank is open.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// The type of sparse tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseTensorType {
    /// The type of an element: a number of [`data_type`](super::data_type).
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    /// The shape; none if also the rank is open.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// The type of lists.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SequenceType {
    /// The type of an element.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// The type of maps.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MapType {
    /// The type of a key: a number of [`data_type`](super::data_type), of an integer or a text.
    #[prost(int32, optional, tag = "1")]
    pub key_type: Option<i32>,
    /// The type of a value.
    #[prost(message, optional, boxed, tag = "2")]
    pub value_type: Option<Box<TypeProto>>,
}

/// The type of values that may be missing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OptionalType {
    /// The type of the value.
    #[prost(message, optional, boxed, tag = "1")]
    pub elem_type: Option<Box<TypeProto>>,
}

/// A type that ONNX itself does not know.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OpaqueType {
    /// The type's domain.
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    /// The type's name.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
}

/// The shape of a tensor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// Its dimensions, the outermost first.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dimension>,
}

/// One dimension of a shape.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dimension {
    /// The size; none if it is open and has no name.
    #[prost(oneof = "DimensionValue", tags = "1, 2")]
    pub value: Option<DimensionValue>,
    /// What the dimension means, such as `DATA_BATCH`.
    #[prost(string, optional, tag = "3")]
    pub denotation: Option<String>,
}

/// The size of a dimension.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum DimensionValue {
    /// A number.
    #[prost(int64, tag = "1")]
    DimValue(i64),
    /// A name for a size that an input decides.
    #[prost(string, tag = "2")]
    DimParam(String),
}
