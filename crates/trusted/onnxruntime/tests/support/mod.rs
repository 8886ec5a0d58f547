//! One engine for all tests of a program, because a process can have only one; models that fit into a few lines.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::path::PathBuf;
use std::sync::LazyLock;

use sesemi_compile::{CompiledForm, described};
use sesemi_onnx::messages::{
    DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorType, TypeProto, TypeValue, ValueInfoProto,
};
use sesemi_onnxruntime::{Library, OnnxRuntime};
use sesemi_semirt::engine::{Engine, EngineError, LoadedModel};

/// The library: `SESEMI_TEST_ONNXRUNTIME`, or the one that is installed, or one that is installed now. None where it cannot be had,
/// which is said, unless `SESEMI_REQUIRE_ONNXRUNTIME` is 1: then a test fails instead of being skipped.
pub(crate) fn library() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("SESEMI_TEST_ONNXRUNTIME") {
        return Some(path.into());
    }
    let folder = sesemi_engines::default_folder().unwrap();
    // Another library than the pinned one is no reason to skip.
    sesemi_engines::optional(sesemi_engines::ONNXRUNTIME.install(&folder)).unwrap()
}

/// An engine with two threads; none where there is no library, which is said.
pub(crate) fn engine() -> Option<&'static OnnxRuntime> {
    static ENGINE: LazyLock<Option<OnnxRuntime>> = LazyLock::new(|| {
        let library = Library::load(&library()?).unwrap();
        Some(OnnxRuntime::starting(library, 2).unwrap())
    });
    if ENGINE.is_none() {
        eprintln!("skipped: no ONNX Runtime");
    }
    ENGINE.as_ref()
}

/// Loads a form of a model whose inputs and outputs are those of `onnx`, also one that the engine says it does not take.
pub(crate) fn load(
    engine: &dyn Engine,
    onnx: &[u8],
    form: &CompiledForm,
) -> Result<Box<dyn LoadedModel>, EngineError> {
    let (manifest, described) = described(onnx, form).unwrap();
    engine.load(&manifest, &described, form.parts.clone())
}

/// A value of a graph; dimensions below 0 are open.
pub(crate) fn value(name: &str, elem_type: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|extent| sesemi_onnx::messages::Dimension {
        value: Some(if *extent < 0 {
            DimensionValue::DimParam("n".into())
        } else {
            DimensionValue::DimValue(*extent)
        }),
        denotation: None,
    });
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            value: Some(TypeValue::TensorType(TensorType {
                elem_type: Some(elem_type),
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            })),
            denotation: None,
        }),
        ..Default::default()
    }
}

/// A node without attributes.
pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: Some(operator.into()),
        input: inputs.iter().map(|it| (*it).to_owned()).collect(),
        output: vec![output.into()],
        ..Default::default()
    }
}

/// The bytes of a model of this graph.
pub(crate) fn model(graph: GraphProto) -> Vec<u8> {
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        graph: Some(GraphProto {
            name: Some("g".into()),
            ..graph
        }),
        ..Default::default()
    };
    sesemi_onnx::write(&model).unwrap()
}
