//! BYTES: texts, or any bytes, in and out of ONNX Runtime, whose strings are copies; and what is no text is refused before them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use sesemi_compile::{
    CompileError, Tolerance, check, compile_for_onnxruntime, sample_inputs, specs, split_weights,
    whole,
};
use sesemi_onnx::messages::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    attribute_type, data_type,
};
use sesemi_protocol::package::Manifest;
use sesemi_protocol::tensor::{DataType, Tensor};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine as _, EngineError};
use support::{engine, load, model, node, value};

/// What ends at a zero, or is no UTF-8, or too long for a string's own place, would come out otherwise.
fn awkward() -> [Vec<u8>; 6] {
    [
        vec![],
        b"good".to_vec(),
        b"a\0b\0".to_vec(),
        "\u{e9}\u{1f600}".into(),
        vec![0xff, 0xfe, 0x80],
        (0..100_000u32).map(|it| (it % 251) as u8).collect(),
    ]
}

/// `y` is `x` turned round, `same` is `x` itself.
fn turning() -> Vec<u8> {
    model(GraphProto {
        node: vec![
            node("Transpose", &["x"], "y"),
            node("Identity", &["x"], "same"),
        ],
        input: vec![value("x", data_type::STRING, &[-1, 3])],
        output: vec![
            value("y", data_type::STRING, &[3, -1]),
            value("same", data_type::STRING, &[-1, 3]),
        ],
        ..Default::default()
    })
}

/// An operator of ONNX's domain for classical models.
fn encoder(input: &str, output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        domain: Some("ai.onnx.ml".into()),
        attribute,
        ..node("LabelEncoder", &[input], output)
    }
}

/// The words that are known, and the number of each.
const WORDS: [(&str, i64); 3] = [("bad", -1), ("good", 1), ("", 7)];

/// `number` is the number of each word of `words`, 0 for one that is not known, and `again` the word of each number.
fn numbering() -> Vec<u8> {
    let words = |name: &str| AttributeProto {
        name: Some(name.into()),
        r#type: Some(attribute_type::STRINGS),
        strings: WORDS.iter().map(|(word, _)| (*word).into()).collect(),
        ..Default::default()
    };
    let numbers: Vec<i64> = WORDS.iter().map(|(_, number)| *number).collect();
    let there = vec![
        words("keys_strings"),
        AttributeProto::ints("values_int64s", &numbers),
        AttributeProto::int("default_int64", 0),
    ];
    let back = vec![
        AttributeProto::ints("keys_int64s", &numbers),
        words("values_strings"),
        AttributeProto::string("default_string", "unknown"),
    ];
    let onnx = model(GraphProto {
        node: vec![
            encoder("words", "number", there),
            encoder("number", "again", back),
        ],
        input: vec![value("words", data_type::STRING, &[-1])],
        output: vec![
            value("number", data_type::INT64, &[-1]),
            value("again", data_type::STRING, &[-1]),
        ],
        ..Default::default()
    });
    let mut read: ModelProto = sesemi_onnx::read(onnx).unwrap();
    read.opset_import.push(OperatorSetIdProto {
        domain: Some("ai.onnx.ml".into()),
        version: Some(2),
    });
    sesemi_onnx::write(&read).unwrap()
}

#[test]
fn texts_go_in_and_come_out_whatever_their_bytes_are() {
    let Some(engine) = engine() else { return };
    let onnx = turning();
    let model = load(engine, &onnx, &whole(&onnx)).unwrap();
    let mut execution = model.execution().unwrap();
    let all = awkward();
    for rows in [2usize, 1, 0, 2] {
        let given = &all[..rows * 3];
        let input = Tensor::bytes("x", &[rows as u64, 3], given).unwrap();
        let outputs = execution.run(&[input.view()], &[]).unwrap();
        let turned: Vec<&[u8]> = (0..3)
            .flat_map(|column| (0..rows).map(move |row| row * 3 + column))
            .map(|place| given[place].as_slice())
            .collect();
        assert_eq!(outputs[0].data_type, DataType::Bytes);
        assert_eq!(outputs[0].shape, [3, rows as u64]);
        assert_eq!(outputs[0].to_bytes().unwrap(), turned);
        assert_eq!(outputs[1].to_bytes().unwrap(), given);
        assert_eq!(outputs[1].data, input.data);
        let alone = execution.run(&[input.view()], &["same".into()]).unwrap();
        assert_eq!(alone, outputs[1..]);
    }
}

#[test]
fn words_become_the_numbers_that_the_model_gives_them_and_words_again_in_every_form() {
    let Some(engine) = engine() else { return };
    let onnx = numbering();
    let (inputs, outputs) = specs(&onnx).unwrap();
    assert_eq!(inputs[0].describe(), "BYTES [?]");
    assert_eq!(outputs[1].describe(), "BYTES [?]");
    let forms = [
        whole(&onnx),
        split_weights(&onnx).unwrap(),
        compile_for_onnxruntime(engine, &onnx, false).unwrap(),
    ];
    for form in forms {
        let model = load(engine, &onnx, &form).unwrap();
        let mut execution = model.execution().unwrap();
        let words = ["good", "", "never seen", "bad", "good\0"];
        let input = Tensor::bytes("words", &[5], &words).unwrap();
        let outputs = execution.run(&[input.view()], &[]).unwrap();
        let (numbers, _) = outputs[0].data.as_chunks::<8>();
        let numbers: Vec<i64> = numbers.iter().map(|it| i64::from_le_bytes(*it)).collect();
        assert_eq!(numbers, [1, 7, 0, -1, 0]);
        let again = ["good", "", "unknown", "bad", "unknown"].map(str::as_bytes);
        assert_eq!(outputs[1].to_bytes().unwrap(), again);
        let samples: Vec<_> = (0..3).map(|seed| sample_inputs(&inputs, seed)).collect();
        check(engine, &onnx, &form, &samples, Tolerance::default()).unwrap();
    }
}

#[test]
fn a_model_of_texts_that_computes_something_else_is_noticed() {
    let Some(engine) = engine() else { return };
    let gives = |word: &str| {
        model(GraphProto {
            node: vec![node("Identity", &["w"], "y"), node("Identity", &["x"], "z")],
            initializer: vec![TensorProto {
                dims: vec![1],
                data_type: Some(data_type::STRING),
                name: Some("w".into()),
                string_data: vec![word.to_owned().into()],
                ..Default::default()
            }],
            input: vec![value("x", data_type::STRING, &[1])],
            output: vec![
                value("y", data_type::STRING, &[1]),
                value("w", data_type::STRING, &[1]),
                value("z", data_type::STRING, &[1]),
            ],
            ..Default::default()
        })
    };
    let onnx = gives("a word that is longer than the place that a string has in itself");
    let (inputs, _) = specs(&onnx).unwrap();
    let samples = [sample_inputs(&inputs, 1)];
    let compare =
        |other: &[u8]| check(engine, &onnx, &whole(other), &samples, Tolerance::default());
    let differs = compare(&gives("word")).unwrap_err();
    assert!(matches!(differs, CompileError::Differs(_)), "{differs}");
    compare(&onnx).unwrap();
    // Outputs are wiped after each run, and constants must not be.
    let forms = [
        whole(&onnx),
        split_weights(&onnx).unwrap(),
        compile_for_onnxruntime(engine, &onnx, false).unwrap(),
    ];
    for form in forms {
        let model = load(engine, &onnx, &form).unwrap();
        let mut execution = model.execution().unwrap();
        let x = Tensor::bytes("x", &[1], &["x"]).unwrap();
        let first = execution.run(&[x.view()], &[]).unwrap();
        assert!(first[0].to_bytes().unwrap()[0].starts_with(b"a word that is longer"));
        assert_eq!(first[1].data, first[0].data);
        assert_eq!(first[2].data, x.data);
        for _ in 0..3 {
            assert_eq!(execution.run(&[x.view()], &[]).unwrap(), first);
        }
    }
}

#[test]
fn bytes_that_are_no_texts_of_the_shape_are_refused_and_the_next_run_is_right() {
    let Some(engine) = engine() else { return };
    let onnx = turning();
    let model = load(engine, &onnx, &whole(&onnx)).unwrap();
    let mut execution = model.execution().unwrap();
    let good = Tensor::bytes("x", &[1, 3], &["a", "bc", ""]).unwrap();
    let with = |data: &[u8]| Tensor {
        data: data.to_vec(),
        ..good.clone()
    };
    let cut = with(&good.data[..good.data.len() - 1]);
    let longer = with(&[&good.data[..], &[0]].concat());
    let one_more = with(&[&good.data[..], &[0; 4]].concat());
    let claims_more = with(&[&good.data[..11], &[0xff, 0xff, 0xff, 0xff]].concat());
    let as_numbers = Tensor {
        data_type: DataType::Uint8,
        data: vec![0; 3],
        ..good.clone()
    };
    let endless = Tensor {
        shape: vec![u64::MAX, 3],
        ..good.clone()
    };
    for bad in [cut, longer, one_more, claims_more, as_numbers, endless] {
        let refused = execution.run(&[bad.view()], &[]);
        assert!(matches!(refused, Err(EngineError::Input(_))), "{refused:?}");
        let outputs = execution.run(&[good.view()], &[]).unwrap();
        assert_eq!(outputs[1].data, good.data);
    }
}

#[test]
fn a_model_of_texts_whose_manifest_says_numbers_is_refused_and_the_other_way_round() {
    let Some(engine) = engine() else { return };
    let (texts, mut numbers) = (turning(), specs(&turning()).unwrap());
    for spec in numbers.0.iter_mut().chain(&mut numbers.1) {
        spec.data_type = DataType::Uint64;
    }
    let form = whole(&texts);
    let parts = form.parts();
    let manifest = Manifest::describing(numbers.0, numbers.1, &[form.content(&parts)]);
    let refused = engine.load(&manifest, &manifest.forms[0], vec![texts.clone()]);
    assert!(matches!(refused.err(), Some(EngineError::Manifest(_))));
    let graph = GraphProto {
        node: vec![node("Identity", &["x"], "y")],
        input: vec![value("x", data_type::INT64, &[1])],
        output: vec![value("y", data_type::INT64, &[1])],
        ..Default::default()
    };
    let onnx = model(graph);
    let (mut inputs, outputs) = specs(&onnx).unwrap();
    inputs[0].data_type = DataType::Bytes;
    let form = whole(&onnx);
    let parts = form.parts();
    let manifest = Manifest::describing(inputs, outputs, &[form.content(&parts)]);
    let refused = engine.load(&manifest, &manifest.forms[0], vec![onnx.clone()]);
    assert!(matches!(refused.err(), Some(EngineError::Manifest(_))));
}

#[test]
fn rten_refuses_a_model_of_texts_and_says_which_engine_runs_it() {
    let onnx = turning();
    let Err(EngineError::Load(why)) = load(&Rten::new(1), &onnx, &whole(&onnx)) else {
        panic!("RTen loaded a model of texts");
    };
    assert!(why.starts_with("input 'x' is BYTES, and RTen has"), "{why}");
    assert!(why.contains("ONNX Runtime"), "{why}");
}
