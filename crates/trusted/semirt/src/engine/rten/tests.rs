//! Models on any batch, of every type, whole and with weights apart; and what is refused.

use sesemi_protocol::package::FormContent;

use super::*;

const MODEL: &[u8] = include_bytes!("../../../../../../models/breast-cancer/breast-cancer.onnx");

fn spec(name: &str, extent: u64) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Dynamic, Dimension::Fixed(extent)],
    }
}

fn manifest() -> Manifest {
    let inputs = vec![spec("features", 30)];
    let form = FormContent::portable(ModelFormat::Onnx, &[MODEL]);
    Manifest::describing(inputs, vec![spec("probabilities", 2)], &[form])
}

fn load_bytes(manifest: &Manifest, model: &[u8]) -> Result<Box<dyn LoadedModel>, EngineError> {
    Rten::new(1).load(manifest, &manifest.forms[0], vec![model.to_vec()])
}

fn load(manifest: &Manifest) -> Result<Box<dyn LoadedModel>, EngineError> {
    load_bytes(manifest, MODEL)
}

#[test]
fn a_model_runs_on_any_batch_and_probabilities_sum_to_one() {
    let model = load(&manifest()).unwrap();
    let mut execution = model.execution().unwrap();
    for batch in [1u64, 4] {
        let input =
            Tensor::fp32("features", &[batch, 30], &vec![1.0; batch as usize * 30]).unwrap();
        let outputs = execution.run(&[input.view()], &[]).unwrap();
        assert_eq!(outputs[0].shape, [batch, 2]);
        let values = outputs[0].to_fp32().unwrap();
        assert!(
            values
                .chunks(2)
                .all(|row| (row[0] + row[1] - 1.0).abs() < 1e-5)
        );
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_with_a_sentence() {
    let model = load(&manifest()).unwrap();
    let mut execution = model.execution().unwrap();
    let good = Tensor::fp32("features", &[1, 30], &[1.0; 30]).unwrap();
    let narrow = Tensor::fp32("features", &[1, 29], &[1.0; 29]).unwrap();
    let other = Tensor::fp32("other", &[1], &[1.0]).unwrap();
    for inputs in [
        vec![],
        vec![narrow.view()],
        vec![good.view(), good.view()],
        vec![good.view(), other.view()],
    ] {
        assert!(matches!(
            execution.run(&inputs, &[]),
            Err(EngineError::Input(_))
        ));
    }
    assert!(matches!(
        execution.run(&[good.view()], &["x".into()]),
        Err(EngineError::Input(_))
    ));
    assert!(
        execution
            .run(&[good.view()], &["probabilities".into()])
            .is_ok()
    );
}

#[test]
fn a_model_that_is_not_what_its_manifest_says_is_refused() {
    let wrong = [
        Manifest {
            inputs: vec![spec("features", 31)],
            ..manifest()
        },
        Manifest {
            inputs: vec![spec("other", 30)],
            ..manifest()
        },
        Manifest {
            inputs: vec![],
            ..manifest()
        },
        Manifest {
            outputs: vec![spec("features", 30)],
            ..manifest()
        },
    ];
    for manifest in wrong {
        assert!(
            matches!(load(&manifest), Err(EngineError::Manifest(_))),
            "{manifest:?}"
        );
    }
}

#[test]
fn types_that_rten_does_not_have_are_refused_with_a_sentence_that_says_what_has_them() {
    let refused = [
        (DataType::Bytes, "BYTES"),
        (DataType::Fp16, "FP16"),
        (DataType::Bf16, "BF16"),
        (DataType::Fp64, "FP64"),
        (DataType::Uint64, "UINT64"),
    ];
    for (data_type, name) in refused {
        let mut input = manifest();
        input.inputs[0].data_type = data_type;
        let mut output = manifest();
        output.outputs[0].data_type = data_type;
        let said = [
            (input, format!("input 'features' is {name}, ")),
            (output, format!("output 'probabilities' is {name}, ")),
        ];
        for (manifest, start) in said {
            let Err(EngineError::Load(why)) = load(&manifest) else {
                panic!("a model of {name} was loaded");
            };
            assert!(why.starts_with(&start), "{why}");
            assert!(why.ends_with("ONNX Runtime has all types"), "{why}");
        }
    }
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"garbage", &MODEL[..MODEL.len() / 2]] {
        assert!(load_bytes(&manifest(), bytes).is_err());
    }
}

/// A field of a message in protobuf's wire format: bytes, or a number.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    assert!(value.len() < 128);
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// `y = x + w` for two floats, where `w` is external data at `location` (onnx.proto, IR version 8).
fn sum_with_external_weights(location: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        field(
            13,
            &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat(),
        )
    };
    let weights = [
        number(1, 2),
        number(2, 1),
        field(8, b"w"),
        entry("location", location),
        entry("offset", "0"),
        entry("length", "8"),
        number(14, 1),
    ]
    .concat();
    let shape = field(1, &number(1, 2));
    let tensor = [number(1, 1), field(2, &shape)].concat();
    let value = |name: &str| {
        let of_type = field(2, &field(1, &tensor));
        [field(1, name.as_bytes()), of_type].concat()
    };
    let node = [
        field(1, b"x"),
        field(1, b"w"),
        field(2, b"y"),
        field(4, b"Add"),
    ]
    .concat();
    let graph = [
        field(1, &node),
        field(2, b"g"),
        field(5, &weights),
        field(11, &value("x")),
        field(12, &value("y")),
    ]
    .concat();
    let mut model = number(1, 8);
    model.extend(field(7, &graph));
    model.extend(field(8, &[field(1, b""), number(2, 17)].concat()));
    model
}

#[test]
fn weights_apart_from_the_graph_are_used() {
    let graph = sum_with_external_weights(WEIGHTS);
    let weights: Vec<u8> = [10f32, 20.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let parts = [&weights[..], &graph];
    let form = FormContent::portable(ModelFormat::OnnxWithWeights, &parts);
    let pair = |name: &str| TensorSpec {
        name: name.into(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Fixed(2)],
    };
    let manifest = Manifest::describing(vec![pair("x")], vec![pair("y")], &[form]);
    let parts = vec![weights.clone(), graph.clone()];
    let engine = Rten::new(1);
    let model = engine.load(&manifest, &manifest.forms[0], parts).unwrap();
    let input = Tensor::fp32("x", &[2], &[1.0, 2.0]).unwrap();
    let mut execution = model.execution().unwrap();
    let outputs = execution.run(&[input.view()], &[]).unwrap();
    assert_eq!(outputs[0].to_fp32().unwrap(), [11.0, 22.0]);
    // Another name is none that it was given.
    let elsewhere = sum_with_external_weights("another.data");
    let parts = vec![weights, elsewhere];
    assert!(engine.load(&manifest, &manifest.forms[0], parts).is_err());
}
