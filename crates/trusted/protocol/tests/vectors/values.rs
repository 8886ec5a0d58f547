//! Values that several formats share, as they stand in the vector files.

use std::num::NonZeroU32;

use serde_json::{Value, json};
use sesemi_protocol::envelope::{Path, Report, Route, Steps};
use sesemi_protocol::package::{
    Dimension, Form, FormContent, InstructionSet, Manifest, Memory, ModelFormat, TensorSpec,
};
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{NamedScope, RequestKeyName};
use sesemi_protocol::tensor::{DataType, Tensor};
use sesemi_protocol::{Isolation, ModelVersion, Refusal, RefusalCode, SecretKey, SigningIdentity};

use crate::support::{array, bytes, counting, list, number, parsed, text};

pub(crate) const REFUSAL_CODES: [RefusalCode; 26] = [
    RefusalCode::Malformed,
    RefusalCode::NotAuthentic,
    RefusalCode::UnknownPrincipal,
    RefusalCode::UnknownModel,
    RefusalCode::NotGranted,
    RefusalCode::NoRequestKey,
    RefusalCode::NotAttested,
    RefusalCode::Replayed,
    RefusalCode::AlreadyExists,
    RefusalCode::StaleState,
    RefusalCode::WrongService,
    RefusalCode::ModelUnavailable,
    RefusalCode::InvalidInput,
    RefusalCode::EngineFailed,
    RefusalCode::Busy,
    RefusalCode::DeadlineExceeded,
    RefusalCode::KeyServiceUnavailable,
    RefusalCode::Internal,
    RefusalCode::NotPermitted,
    RefusalCode::NotFound,
    RefusalCode::TooMany,
    RefusalCode::Unwritable,
    RefusalCode::Locked,
    RefusalCode::HandedOver,
    RefusalCode::ClockSkew,
    RefusalCode::CodeNotDelegated,
];

/// Owner of the models in the vectors: the principal of the seed 00 01 02 .. 1f.
pub(crate) fn owner_seed() -> String {
    counting(0, 32)
}

/// User in the vectors: the principal of the seed 20 21 22 .. 3f.
pub(crate) fn user_seed() -> String {
    counting(0x20, 32)
}

/// Whom the owner lets grant in the vectors: the principal of the seed a0 a1 a2 .. bf.
pub(crate) fn grantor_seed() -> String {
    counting(0xa0, 32)
}

/// KeyService in the vectors: the identity of the seed 40 41 42 .. 5f.
pub(crate) fn service_seed() -> String {
    counting(0x40, 32)
}

pub(crate) fn identity(seed: &str) -> SigningIdentity {
    let seed = hex::decode(seed).unwrap().try_into().unwrap();
    SigningIdentity::from_seed(SecretKey::from_bytes(seed)).unwrap()
}

pub(crate) fn key_id(seed: &str) -> String {
    hex::encode(identity(seed).public().key_id())
}

pub(crate) fn model_text(version: u32) -> String {
    format!("{}/breast-cancer@{version}", key_id(&owner_seed()))
}

pub(crate) fn secret(case: &Value, field: &str) -> SecretKey {
    SecretKey::from_bytes(array(case, field))
}

pub(crate) fn route(value: &Value) -> Route {
    Route {
        user: parsed(value, "user"),
        model: parsed(value, "model"),
        request: parsed(value, "request"),
        key: key_name(&value["key"]),
    }
}

pub(crate) fn key_name(value: &Value) -> RequestKeyName {
    RequestKeyName {
        scope: match text(value, "scope") {
            "model" => NamedScope::Model,
            "all_models" => NamedScope::AllModels,
            other => panic!("no scope '{other}'"),
        },
        epoch: number(value, "epoch"),
    }
}

pub(crate) fn version(value: &Value, field: &str) -> ModelVersion {
    ModelVersion::new(number(value, field)).unwrap()
}

/// The isolation among the fields of something.
pub(crate) fn isolation(value: &Value) -> Isolation {
    let value = &value["isolation"];
    let level = parsed(value, "level");
    Isolation::new(level, number(value, "quantum_ms")).unwrap()
}

pub(crate) fn point(value: &Value) -> Point {
    Point {
        sequence: number(value, "sequence"),
        chain: parsed(value, "chain"),
    }
}

pub(crate) fn state_point(value: &Value) -> StatePoint {
    StatePoint {
        service: parsed(value, "service"),
        point: point(&value["point"]),
    }
}

/// A point for a recipe, with a chain that nobody computed.
pub(crate) fn some_point(sequence: u64) -> Value {
    json!({ "sequence": sequence, "chain": counting(0xc0, 32) })
}

/// Before the first entry.
pub(crate) fn start() -> Value {
    json!({ "sequence": 0, "chain": "00".repeat(32) })
}

/// A point of the vectors' service for a recipe.
pub(crate) fn state_at(point: Value) -> Value {
    json!({ "service": key_id(&service_seed()), "point": point })
}

pub(crate) fn data_type(name: &str) -> DataType {
    let found = DataType::ALL.into_iter().find(|t| t.as_str() == name);
    found.unwrap_or_else(|| panic!("no data type '{name}'"))
}

pub(crate) fn tensors(case: &Value, field: &str) -> Vec<Tensor> {
    let tensor = |value| Tensor {
        name: text(value, "name").to_owned(),
        data_type: data_type(text(value, "data_type")),
        shape: list(value, "shape")
            .iter()
            .map(|extent| extent.as_u64().unwrap())
            .collect(),
        data: bytes(value, "data"),
    };
    list(case, field).iter().map(tensor).collect()
}

/// An FP32 tensor for a recipe.
pub(crate) fn fp32(name: &str, shape: &[u64], values: &[f32]) -> Value {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    json!({ "name": name, "data_type": "FP32", "shape": shape, "data": hex::encode(data) })
}

pub(crate) fn refusal(value: &Value) -> Refusal {
    let code = REFUSAL_CODES
        .into_iter()
        .find(|code| code.as_str() == text(value, "code"));
    Refusal {
        code: code.unwrap(),
        detail: text(value, "detail").to_owned(),
    }
}

pub(crate) fn report(value: &Value) -> Report {
    let path = [Path::Cold, Path::Warm, Path::Hot]
        .into_iter()
        .find(|path| path.as_str() == text(value, "path"));
    Report {
        path: path.unwrap(),
        steps: Steps {
            queue_us: number(value, "queue_us"),
            key_us: number(value, "key_us"),
            fetch_us: number(value, "fetch_us"),
            decrypt_us: number(value, "decrypt_us"),
            load_us: number(value, "load_us"),
            open_us: number(value, "open_us"),
            run_us: number(value, "run_us"),
        },
        version: version(value, "version"),
    }
}

/// A form with its parts, as [`sesemi_protocol::package::FormContent`] borrows them.
pub(crate) struct OwnedForm {
    pub(crate) form: Form,
    pub(crate) parts: Vec<Vec<u8>>,
}

/// The forms of a package.
pub(crate) fn forms(case: &Value) -> Vec<OwnedForm> {
    let form = |value: &Value, parts: &[Vec<u8>]| Form {
        format: match text(value, "format") {
            "onnx" => ModelFormat::Onnx,
            "onnx-with-weights" => ModelFormat::OnnxWithWeights,
            "onnxruntime-compiled" => ModelFormat::OnnxRuntimeCompiled,
            other => panic!("no format '{other}'"),
        },
        instruction_set: match text(value, "instruction_set") {
            "any" => InstructionSet::Any,
            "x86-64-avx2" => InstructionSet::X86Avx2,
            "x86-64-avx512" => InstructionSet::X86Avx512,
            other => panic!("no instruction set '{other}'"),
        },
        parts: parts.iter().map(|part| part.len() as u64).collect(),
        memory: Memory {
            loaded: number(&value["memory"], "loaded"),
            run: number(&value["memory"], "run"),
        },
        prepack: value["prepack"].as_bool().unwrap(),
    };
    let owned = |value: &Value| {
        let parts: Vec<Vec<u8>> = list(value, "parts").iter().map(part).collect();
        let form = form(value, &parts);
        OwnedForm { form, parts }
    };
    list(case, "forms").iter().map(owned).collect()
}

/// A part in full, or by its rule.
fn part(value: &Value) -> Vec<u8> {
    if let Some(digits) = value.as_str() {
        return hex::decode(digits).unwrap();
    }
    let (length, start): (u64, u64) = (number(value, "length"), number(value, "start"));
    let modulus: u64 = number(value, "modulus");
    (0..length)
        .map(|i| u8::try_from((i + start) % modulus).unwrap())
        .collect()
}

/// The manifest of a package with these forms.
pub(crate) fn manifest(case: &Value, forms: &[FormContent<'_>]) -> Manifest {
    let batch = case["batch"].as_u64();
    let batch = batch.map(|rows| NonZeroU32::new(rows.try_into().unwrap()).unwrap());
    Manifest::describing(specs(case, "inputs"), specs(case, "outputs"), forms).with_batch(batch)
}

fn specs(value: &Value, field: &str) -> Vec<TensorSpec> {
    let dimension = |value: &Value| match value {
        Value::Null => Dimension::Dynamic,
        fixed => Dimension::Fixed(fixed.as_u64().unwrap()),
    };
    let spec = |value| TensorSpec {
        name: text(value, "name").to_owned(),
        data_type: data_type(text(value, "data_type")),
        shape: list(value, "shape").iter().map(dimension).collect(),
    };
    list(value, field).iter().map(spec).collect()
}
