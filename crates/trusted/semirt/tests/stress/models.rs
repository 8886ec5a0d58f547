//! Ten models whose results can be computed by hand, their packages in a folder, and the keys of all.
//!
//! Each is one matrix of small whole numbers, and so are the inputs: sums of their products are exact in any order, and a
//! result can be compared for equality.

use std::num::NonZeroU32;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use sesemi_onnx::messages::{
    DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto, data_location, data_type,
};
use sesemi_protocol::package::{
    self, Dimension, FormContent, Manifest, ModelFormat, TensorSpec, WEIGHTS,
};
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::{
    Digest, ModelName, ModelRef, ModelVersion, PrincipalId, SecretKey, SystemEntropy,
};

pub(crate) const MODELS: usize = 10;
pub(crate) const USERS: usize = 20;
/// Requests that are run together, at most.
const MOST_ROWS: u32 = 8;
/// Inputs and outputs of a model: 36 MiB of weights.
pub(crate) const ROWS: usize = 1536;
pub(crate) const COLUMNS: usize = 6144;
const WEIGHT_BYTES: u64 = (ROWS * COLUMNS * 4) as u64;

/// What a model needs beside its weights, and a load beside what is loaded: a package's head and ciphertext on its way.
const BESIDE: u64 = 1 << 20;
const ON_ITS_WAY: u64 = 32 << 20;

/// The packages, and what it takes to use them.
pub(crate) struct World {
    folder: tempfile::TempDir,
    manifests: Vec<Digest>,
}

impl World {
    /// Writes the packages of all models.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manifests = (0..MODELS).map(|number| write(folder.path(), number));
        Self {
            manifests: manifests.collect(),
            folder,
        }
    }

    pub(crate) fn store(&self) -> Arc<LocalFileSystem> {
        Arc::new(LocalFileSystem::new_with_prefix(self.folder.path()).unwrap())
    }

    /// Memory for so many models.
    pub(crate) fn budget(&self, models: u64) -> u64 {
        models * (WEIGHT_BYTES + BESIDE) + ON_ITS_WAY
    }

    pub(crate) fn manifest(&self, model: usize) -> Digest {
        self.manifests[model]
    }
}

pub(crate) fn user(number: usize) -> PrincipalId {
    PrincipalId([number as u8 + 1; 32])
}

/// Which of the users it is.
pub(crate) fn number_of(user: &PrincipalId) -> usize {
    usize::from(user.0[0]) - 1
}

pub(crate) fn request_key(user: usize) -> SecretKey {
    SecretKey::from_bytes([user as u8 + 101; 32])
}

pub(crate) fn model_key(model: usize) -> SecretKey {
    SecretKey::from_bytes([model as u8 + 201; 32])
}

pub(crate) fn model(number: usize) -> ModelRef {
    ModelRef::new(
        PrincipalId([99; 32]),
        ModelName::new("matrix").unwrap(),
        ModelVersion::new(number as u32 + 1).unwrap(),
    )
}

/// A weight: from -3 to 3, another pattern in each model.
fn weight(model: usize, row: usize, column: usize) -> f32 {
    ((row * (model + 2) + column * (2 * model + 3)) % 7) as f32 - 3.0
}

/// What a model makes of an input, in one column.
pub(crate) fn expected(model: usize, input: &[f32], column: usize) -> f32 {
    let rows = input.iter().enumerate();
    rows.map(|(row, value)| value * weight(model, row, column))
        .sum()
}

fn write(folder: &std::path::Path, number: usize) -> Digest {
    let mut weights = Vec::with_capacity(WEIGHT_BYTES as usize);
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            weights.extend(weight(number, row, column).to_le_bytes());
        }
    }
    let graph = graph();
    let parts = [&weights[..], &graph];
    let form = FormContent::portable(ModelFormat::OnnxWithWeights, &parts);
    let spec = |name: &str, extent: usize| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent as u64)],
    };
    let inputs = vec![spec("x", ROWS)];
    let manifest = Manifest::describing(inputs, vec![spec("y", COLUMNS)], &[form])
        .with_batch(NonZeroU32::new(MOST_ROWS));
    let (name, key) = (model(number), model_key(number));
    let sealed = package::seal(&key, &name, &manifest, &[form], &SystemEntropy::new()).unwrap();
    let path = folder.join(package::object_path(&name));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, sealed).unwrap();
    package::manifest_digest(&manifest).unwrap()
}

/// y = x W, with W in the other part.
fn graph() -> Vec<u8> {
    let shape = |extent: usize| {
        let rows = DimensionValue::DimParam("rows".into());
        [rows, DimensionValue::DimValue(extent as i64)]
    };
    let weights = TensorProto {
        dims: vec![ROWS as i64, COLUMNS as i64],
        data_type: Some(data_type::FLOAT),
        name: Some("w".into()),
        data_location: Some(data_location::EXTERNAL),
        external_data: vec![
            StringStringEntryProto::new("location", WEIGHTS),
            StringStringEntryProto::new("offset", "0"),
            StringStringEntryProto::new("length", &WEIGHT_BYTES.to_string()),
        ],
        ..TensorProto::default()
    };
    let node = NodeProto {
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        name: Some("product".into()),
        op_type: Some("MatMul".into()),
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("matrix".into()),
        node: vec![node],
        initializer: vec![weights],
        input: vec![ValueInfoProto::floats("x", shape(ROWS))],
        output: vec![ValueInfoProto::floats("y", shape(COLUMNS))],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    sesemi_onnx::write(&model).unwrap()
}
