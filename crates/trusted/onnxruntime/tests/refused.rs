//! Models that do not load, and forms whose list of weights lies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use sesemi_compile::{CompiledForm, compile_for_onnxruntime, split_weights, whole};
use sesemi_onnx::messages::{
    AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_type, data_location, data_type,
};
use sesemi_onnxruntime::blocks_for;
use sesemi_paper_models::Network;
use sesemi_protocol::cbor;
use sesemi_protocol::package::{InstructionSet, ModelFormat, WEIGHTS, Weight, WeightList};
use sesemi_semirt::engine::{Engine as _, EngineError, LoadedModel, has_instructions};
use support::{engine, load, model, node, value};

const TINY: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

fn refused(loaded: Result<Box<dyn LoadedModel>, EngineError>) -> String {
    match loaded {
        Err(error @ (EngineError::Load(_) | EngineError::Manifest(_))) => error.to_string(),
        Err(other) => panic!("refused as {other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn what_is_no_model_is_refused_and_the_next_one_loads() {
    let Some(engine) = engine() else { return };
    for bytes in [
        &b""[..],
        b"garbage",
        &TINY[..TINY.len() / 2],
        &[0xff; 4096],
        b"ORTM\0\0\0\0",
    ] {
        refused(load(engine, TINY, &whole(bytes)));
        load(engine, TINY, &whole(TINY)).unwrap();
    }
}

#[test]
fn a_compiled_form_with_a_byte_changed_loads_or_is_refused_and_never_ends_the_process() {
    let Some(engine) = engine() else { return };
    let form = compile_for_onnxruntime(engine, TINY, false).unwrap();
    let mut refusals = 0;
    for part in [1, 2] {
        let step = form.parts[part].len() / 97 + 1;
        for place in (0..form.parts[part].len()).step_by(step) {
            let mut broken = form.clone();
            broken.parts[part][place] ^= 0x41;
            refusals += usize::from(load(engine, TINY, &broken).is_err());
        }
    }
    assert!(refusals > 20, "{refusals}");
    load(engine, TINY, &form).unwrap();
}

/// A form whose list was changed after it was checked.
fn with_list(form: &CompiledForm, change: impl FnOnce(&mut Vec<Weight>)) -> CompiledForm {
    let mut list = WeightList::decode(&form.parts[1], form.parts[0].len() as u64).unwrap();
    change(&mut list.weights);
    let mut form = form.clone();
    form.parts[1] = cbor::encode(&list).unwrap().to_vec();
    form
}

#[test]
fn a_list_that_lies_is_refused() {
    let Some(engine) = engine() else { return };
    let form = compile_for_onnxruntime(engine, TINY, false).unwrap();
    let last = WeightList::decode(&form.parts[1], form.parts[0].len() as u64)
        .unwrap()
        .weights
        .len()
        - 1;
    assert!(last > 0, "the model has several weights");
    type Lie<'l> = (&'l str, &'l dyn Fn(&mut Vec<Weight>));
    let lies: [Lie<'_>; 9] = [
        ("beyond", &|it| it[last].offset += 64),
        ("far beyond", &|it| it[last].offset = u64::MAX - 63),
        ("overlap", &|it| it[last].offset = it[last - 1].offset),
        ("longer", &|it| it[last].length += 4),
        ("shorter", &|it| it[last].length -= 4),
        ("another type", &|it| {
            it[last].data_type = sesemi_protocol::tensor::DataType::Int8
        }),
        ("one is missing", &|it| drop(it.remove(0))),
        ("one is there twice", &|it| {
            it[last].name = it[0].name.clone()
        }),
        ("none", &Vec::clear),
    ];
    for (lie, change) in lies {
        let loaded = load(engine, TINY, &with_list(&form, change));
        assert!(loaded.is_err(), "{lie}");
    }
    // Whatever fits the bytes must still fit the graph.
    let renamed = with_list(&form, |it| it[last].name.push('x'));
    assert!(load(engine, TINY, &renamed).is_err(), "renamed");
    let reshaped = with_list(&form, |it| it[last].shape.push(1));
    assert!(load(engine, TINY, &reshaped).is_err(), "reshaped");
    let mut cut = form.clone();
    cut.parts[0].truncate(form.parts[0].len() - 64);
    refused(load(engine, TINY, &cut));
    load(engine, TINY, &form).unwrap();
}

#[test]
fn weights_come_from_the_package_and_from_no_file() {
    let Some(engine) = engine() else { return };
    let file = tempfile("weights");
    let entry = |key: &str, value: &str| StringStringEntryProto::new(key, value);
    for location in [
        file.to_str().unwrap(),
        "shm/x",
        "../etc/hostname",
        "null",
        ".",
    ] {
        let weight = TensorProto {
            dims: vec![64],
            data_type: Some(data_type::FLOAT),
            name: Some("w".into()),
            external_data: vec![entry("location", location), entry("length", "256")],
            data_location: Some(data_location::EXTERNAL),
            ..Default::default()
        };
        let onnx = model(GraphProto {
            node: vec![node("Add", &["x", "w"], "y")],
            initializer: vec![weight],
            input: vec![value("x", data_type::FLOAT, &[64])],
            output: vec![value("y", data_type::FLOAT, &[64])],
            ..Default::default()
        });
        refused(load(engine, &onnx, &whole(&onnx)));
        let with_weights = CompiledForm {
            format: ModelFormat::OnnxWithWeights,
            parts: vec![vec![0; 256], onnx.clone()],
            ..whole(&onnx)
        };
        refused(load(engine, &onnx, &with_weights));
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_constant_comes_from_no_file_either() {
    let Some(engine) = engine() else { return };
    let file = tempfile("constant");
    let constant = |tensor: TensorProto| {
        let value = AttributeProto {
            name: Some("value".into()),
            r#type: Some(attribute_type::TENSOR),
            t: Some(Box::new(tensor)),
            ..Default::default()
        };
        let node_of = NodeProto {
            attribute: vec![value],
            ..node("Constant", &[], "w")
        };
        model(GraphProto {
            node: vec![node_of, node("Add", &["x", "w"], "y")],
            input: vec![value_of("x")],
            output: vec![value_of("y")],
            ..Default::default()
        })
    };
    let inside = constant(TensorProto::floats("w", &[64], &[1.0; 64]));
    load(engine, &inside, &whole(&inside)).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto::new(key, value);
    for location in [file.to_str().unwrap(), "null", WEIGHTS] {
        let outside = constant(TensorProto {
            raw_data: None,
            external_data: vec![entry("location", location), entry("length", "256")],
            data_location: Some(data_location::EXTERNAL),
            ..TensorProto::floats("w", &[64], &[1.0; 64])
        });
        let with_weights = CompiledForm {
            format: ModelFormat::OnnxWithWeights,
            parts: vec![vec![0; 256], outside.clone()],
            ..whole(&outside)
        };
        for form in [whole(&outside), with_weights] {
            let why = refused(load(engine, &outside, &form));
            assert!(why.contains("other files"), "{why}");
        }
    }
    std::fs::remove_file(file).unwrap();
}

fn value_of(name: &str) -> ValueInfoProto {
    value(name, data_type::FLOAT, &[64])
}

#[test]
fn weights_in_blocks_are_taken_only_by_the_processors_they_were_made_for() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    if blocks_for().is_none() {
        eprintln!("skipped: this processor has no blocks");
        return;
    }
    assert_eq!(Some(form.instruction_set), blocks_for());
    let (wide, narrow) = (InstructionSet::X86Avx512, InstructionSet::X86Avx2);
    for instruction_set in [InstructionSet::Any, wide, narrow] {
        let labelled = CompiledForm {
            instruction_set,
            ..form.clone()
        };
        let loaded = load(engine, &onnx, &labelled);
        if Some(instruction_set) == blocks_for() {
            loaded.unwrap();
        } else {
            let why = refused(loaded);
            assert!(why.contains("blocks"), "{why}");
        }
    }
}

/// A file that would do as weights.
fn tempfile(name: &str) -> std::path::PathBuf {
    let name = format!("sesemi-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, [0; 256]).unwrap();
    path
}

#[test]
fn a_form_with_other_parts_or_for_other_processors_is_refused() {
    let Some(engine) = engine() else { return };
    let split = split_weights(TINY).unwrap();
    let compiled = compile_for_onnxruntime(engine, TINY, false).unwrap();
    for form in [split, compiled] {
        for parts in [vec![], vec![form.parts[0].clone()]] {
            let form = CompiledForm {
                parts,
                ..form.clone()
            };
            assert!(refused(load(engine, TINY, &form)).contains("parts"));
        }
    }
    let (inputs, outputs) = sesemi_compile::specs(TINY).unwrap();
    let takes = |format, instruction_set| {
        let form = CompiledForm {
            format,
            instruction_set,
            ..whole(TINY)
        };
        let parts = form.parts();
        let forms = [form.content(&parts)];
        let manifest =
            sesemi_protocol::package::Manifest::describing(inputs.clone(), outputs.clone(), &forms);
        engine.takes(&manifest.forms[0])
    };
    let compiled = ModelFormat::OnnxRuntimeCompiled;
    assert!(takes(compiled, InstructionSet::Any));
    assert!(takes(ModelFormat::Onnx, InstructionSet::Any));
    let (wide, narrow) = (InstructionSet::X86Avx512, InstructionSet::X86Avx2);
    assert_eq!(takes(compiled, wide), has_instructions(wide));
    // Blocks are as wide as the processor's vectors, and not narrower.
    assert_eq!(
        takes(compiled, narrow),
        has_instructions(narrow) && !has_instructions(wide)
    );
}

#[test]
fn a_model_that_is_not_what_its_manifest_says_is_refused() {
    let Some(engine) = engine() else { return };
    let with = |inputs: &[(&str, i64)], output: (&str, i64)| {
        let float = |(name, extent): &(&str, i64)| value(name, data_type::FLOAT, &[-1, *extent]);
        model(GraphProto {
            input: inputs.iter().map(float).collect(),
            output: vec![float(&output)],
            ..Default::default()
        })
    };
    let (features, probabilities) = (("features", 30), ("probabilities", 2));
    load(engine, &with(&[features], probabilities), &whole(TINY)).unwrap();
    for said in [
        with(&[("features", 31)], probabilities),
        with(&[("features", -1)], probabilities),
        with(&[("other", 30)], probabilities),
        with(&[], probabilities),
        with(&[features, ("other", 1)], probabilities),
        with(&[features], ("features", 30)),
        with(&[features], ("probabilities", 3)),
    ] {
        let why = refused(load(engine, &said, &whole(TINY)));
        assert!(why.contains("manifest"), "{why}");
    }
}
