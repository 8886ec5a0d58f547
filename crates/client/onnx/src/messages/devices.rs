//! Devices over which a model may be spread.

/// A group of devices.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeviceConfigurationProto {
    /// The configuration's name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// How many devices.
    #[prost(int32, optional, tag = "2")]
    pub num_devices: Option<i32>,
    /// Their names.
    #[prost(string, repeated, tag = "3")]
    pub device: Vec<String>,
}

/// How a node is spread over the devices of a configuration.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NodeDeviceConfigurationProto {
    /// The name of the configuration.
    #[prost(string, optional, tag = "1")]
    pub configuration_id: Option<String>,
    /// How the node's inputs and outputs are cut.
    #[prost(message, repeated, tag = "2")]
    pub sharding_spec: Vec<ShardingSpecProto>,
    /// The node's stage in a pipeline.
    #[prost(int32, optional, tag = "3")]
    pub pipeline_stage: Option<i32>,
}

/// How a tensor is cut.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ShardingSpecProto {
    /// The tensor's name.
    #[prost(string, optional, tag = "1")]
    pub tensor_name: Option<String>,
    /// The devices, or groups of them, that have the pieces.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub device: Vec<i64>,
    /// The groups among them.
    #[prost(message, repeated, tag = "3")]
    pub index_to_device_group_map: Vec<IntIntListEntryProto>,
    /// How each axis is cut.
    #[prost(message, repeated, tag = "4")]
    pub sharded_dim: Vec<ShardedDimProto>,
}

/// A number and its list of numbers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct IntIntListEntryProto {
    /// The number.
    #[prost(int64, optional, tag = "1")]
    pub key: Option<i64>,
    /// The list.
    #[prost(int64, repeated, packed = "false", tag = "2")]
    pub value: Vec<i64>,
}

/// How an axis is cut.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ShardedDimProto {
    /// The axis.
    #[prost(int64, optional, tag = "1")]
    pub axis: Option<i64>,
    /// The cuts; more than one if axes were made into one.
    #[prost(message, repeated, tag = "2")]
    pub simple_sharding: Vec<SimpleShardedDimProto>,
}

/// A size that is divided into equal pieces.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SimpleShardedDimProto {
    /// The size.
    #[prost(oneof = "ShardingDim", tags = "1, 2")]
    pub dim: Option<ShardingDim>,
    /// How many pieces.
    #[prost(int64, optional, tag = "3")]
    pub num_shards: Option<i64>,
}

/// A size that is divided.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum ShardingDim {
    /// A number.
    #[prost(int64, tag = "1")]
    DimValue(i64),
    /// A name for a size that an input decides.
    #[prost(string, tag = "2")]
    DimParam(String),
}
