//! Every data type of requests, shapes that vary, several inputs and outputs, and inputs that do not fit.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use sesemi_compile::whole;
use sesemi_onnx::messages::{GraphProto, TensorProto, data_type};
use sesemi_protocol::tensor::{DataType, Tensor, TensorView};
use sesemi_semirt::engine::EngineError;
use support::{engine, load, model, node, value};

/// All but BYTES, which have tests of their own: `texts.rs`.
const TYPES: [(DataType, i32); 13] = [
    (DataType::Bool, data_type::BOOL),
    (DataType::Uint8, data_type::UINT8),
    (DataType::Uint16, data_type::UINT16),
    (DataType::Uint32, data_type::UINT32),
    (DataType::Uint64, data_type::UINT64),
    (DataType::Int8, data_type::INT8),
    (DataType::Int16, data_type::INT16),
    (DataType::Int32, data_type::INT32),
    (DataType::Int64, data_type::INT64),
    (DataType::Fp16, data_type::FLOAT16),
    (DataType::Fp32, data_type::FLOAT),
    (DataType::Fp64, data_type::DOUBLE),
    (DataType::Bf16, data_type::BFLOAT16),
];

/// `y` is `x` turned round, `same` is `x` itself.
fn turning(elem_type: i32) -> Vec<u8> {
    model(GraphProto {
        node: vec![
            node("Transpose", &["x"], "y"),
            node("Identity", &["x"], "same"),
        ],
        input: vec![value("x", elem_type, &[-1, 3])],
        output: vec![
            value("y", elem_type, &[3, -1]),
            value("same", elem_type, &[-1, 3]),
        ],
        ..Default::default()
    })
}

fn tensor(data_type: DataType, rows: u64) -> Tensor {
    let length = rows as usize * 3 * data_type.size().unwrap();
    let limit = if data_type == DataType::Bool { 2 } else { 251 };
    Tensor {
        name: "x".into(),
        data_type,
        shape: vec![rows, 3],
        data: (0..length).map(|it| (it % limit) as u8).collect(),
    }
}

fn turned(tensor: &Tensor) -> Vec<u8> {
    let (rows, size) = (tensor.shape[0] as usize, tensor.data_type.size().unwrap());
    let element = |row: usize, column: usize| {
        let start = (row * 3 + column) * size;
        tensor.data[start..start + size].to_vec()
    };
    (0..3)
        .flat_map(|column| (0..rows).flat_map(move |row| element(row, column)))
        .collect()
}

#[test]
fn every_data_type_of_requests_is_among_those_that_are_tried() {
    let tried = |it: &DataType| TYPES.iter().any(|(tried, _)| tried == it);
    let mut rest = DataType::ALL.into_iter().filter(|it| !tried(it));
    assert_eq!((rest.next(), rest.next()), (Some(DataType::Bytes), None));
}

#[test]
fn every_data_type_goes_in_and_comes_out_for_every_number_of_rows() {
    let Some(engine) = engine() else { return };
    for (data_type, elem_type) in TYPES {
        let onnx = turning(elem_type);
        let model = load(engine, &onnx, &whole(&onnx)).unwrap();
        let mut execution = model.execution().unwrap();
        for rows in [1, 5, 2, 0] {
            let input = tensor(data_type, rows);
            let outputs = execution.run(&[input.view()], &[]).unwrap();
            assert_eq!(outputs[0].shape, [3, rows]);
            assert_eq!(outputs[0].data_type, data_type);
            assert_eq!(outputs[0].data, turned(&input), "{data_type:?}");
            assert_eq!(outputs[1].data, input.data, "{data_type:?}");
        }
    }
}

#[test]
fn an_input_that_lies_askew_in_its_request_is_read_as_well() {
    let Some(engine) = engine() else { return };
    for (data_type, elem_type) in TYPES {
        let onnx = turning(elem_type);
        let model = load(engine, &onnx, &whole(&onnx)).unwrap();
        let mut execution = model.execution().unwrap();
        let input = tensor(data_type, 4);
        for shift in 0..8 {
            let mut request = vec![0; shift];
            request.extend_from_slice(&input.data);
            let view = TensorView {
                data: &request[shift..],
                ..input.view()
            };
            let outputs = execution.run(&[view], &["y".into()]).unwrap();
            assert_eq!(outputs.len(), 1);
            assert_eq!(outputs[0].data, turned(&input), "{data_type:?} {shift}");
            assert_eq!(
                request[shift..],
                input.data,
                "the request is not written to"
            );
        }
    }
}

#[test]
fn several_inputs_and_outputs_are_matched_by_name_in_any_order() {
    let Some(engine) = engine() else { return };
    let onnx = model(GraphProto {
        node: vec![
            node("Sub", &["a", "b"], "less"),
            node("Add", &["a", "b"], "more"),
        ],
        input: vec![
            value("a", data_type::FLOAT, &[2]),
            value("b", data_type::FLOAT, &[2]),
        ],
        output: vec![
            value("less", data_type::FLOAT, &[2]),
            value("more", data_type::FLOAT, &[2]),
        ],
        ..Default::default()
    });
    let model = load(engine, &onnx, &whole(&onnx)).unwrap();
    let mut execution = model.execution().unwrap();
    let a = Tensor::fp32("a", &[2], &[5.0, 6.0]).unwrap();
    let b = Tensor::fp32("b", &[2], &[1.0, 2.0]).unwrap();
    let inputs = [b.view(), a.view()];
    let both = execution.run(&inputs, &[]).unwrap();
    assert_eq!(both[0].to_fp32().unwrap(), [4.0, 4.0]);
    assert_eq!(both[1].to_fp32().unwrap(), [6.0, 8.0]);
    let wanted = ["more".to_owned(), "less".to_owned()];
    let swapped = execution.run(&inputs, &wanted).unwrap();
    assert_eq!(swapped, [both[1].clone(), both[0].clone()]);
    let twice = ["more".to_owned(), "more".to_owned()];
    assert!(matches!(
        execution.run(&inputs, &twice),
        Err(EngineError::Input(_))
    ));
}

#[test]
fn inputs_that_do_not_fit_are_refused_and_the_next_run_is_right() {
    let Some(engine) = engine() else { return };
    let onnx = turning(data_type::BOOL);
    let model = load(engine, &onnx, &whole(&onnx)).unwrap();
    let mut execution = model.execution().unwrap();
    let good = tensor(DataType::Bool, 2);
    let mut neither = good.clone();
    neither.data[3] = 2;
    let other_type = tensor(DataType::Uint8, 2);
    let other_shape = Tensor {
        shape: vec![3, 2],
        ..good.clone()
    };
    let short = Tensor {
        data: vec![0; 5],
        ..good.clone()
    };
    let endless = Tensor {
        shape: vec![u64::MAX, 3],
        ..good.clone()
    };
    for bad in [neither, other_type, other_shape, short, endless] {
        let refused = execution.run(&[bad.view()], &[]);
        assert!(matches!(refused, Err(EngineError::Input(_))), "{refused:?}");
        let outputs = execution.run(&[good.view()], &[]).unwrap();
        assert_eq!(outputs[0].data, turned(&good));
    }
    assert!(execution.run(&[], &[]).is_err());
    assert!(execution.run(&[good.view(), good.view()], &[]).is_err());
    assert!(execution.run(&[good.view()], &["z".into()]).is_err());
}

#[test]
fn an_input_that_no_shape_of_the_graph_allows_is_an_error_of_the_run() {
    let Some(engine) = engine() else { return };
    // The manifest allows any two lengths, the operator only equal ones.
    let any = |name| {
        let mut any = value(name, data_type::FLOAT, &[-1]);
        if let Some(sesemi_onnx::messages::TypeValue::TensorType(tensor)) =
            any.r#type.as_mut().and_then(|it| it.value.as_mut())
        {
            tensor.shape.as_mut().unwrap().dim[0].value = None;
        }
        any
    };
    let onnx = model(GraphProto {
        node: vec![node("Add", &["a", "b"], "sum")],
        input: vec![any("a"), any("b")],
        output: vec![any("sum")],
        ..Default::default()
    });
    let model = load(engine, &onnx, &whole(&onnx)).unwrap();
    let mut execution = model.execution().unwrap();
    let three = Tensor::fp32("a", &[3], &[1.0; 3]).unwrap();
    let two = Tensor::fp32("b", &[2], &[1.0; 2]).unwrap();
    let failed = execution.run(&[three.view(), two.view()], &[]);
    assert!(matches!(failed, Err(EngineError::Run(_))), "{failed:?}");
    let fits = Tensor::fp32("b", &[3], &[1.0; 3]).unwrap();
    let outputs = execution.run(&[three.view(), fits.view()], &[]).unwrap();
    assert_eq!(outputs[0].to_fp32().unwrap(), [2.0; 3]);
}

#[test]
fn an_output_that_is_a_constant_is_the_same_in_every_run() {
    let Some(engine) = engine() else { return };
    let values: Vec<f32> = (0..64).map(|it| it as f32).collect();
    let onnx = model(GraphProto {
        node: vec![node("Identity", &["w"], "y"), node("Neg", &["x"], "z")],
        initializer: vec![TensorProto::floats("w", &[64], &values)],
        input: vec![value("x", data_type::FLOAT, &[1])],
        output: vec![
            value("y", data_type::FLOAT, &[64]),
            value("w", data_type::FLOAT, &[64]),
            value("z", data_type::FLOAT, &[1]),
        ],
        ..Default::default()
    });
    let forms = [
        whole(&onnx),
        sesemi_compile::split_weights(&onnx).unwrap(),
        sesemi_compile::compile_for_onnxruntime(engine, &onnx, false).unwrap(),
    ];
    for form in forms {
        let model = load(engine, &onnx, &form).unwrap();
        let mut execution = model.execution().unwrap();
        let x = Tensor::fp32("x", &[1], &[1.0]).unwrap();
        for _ in 0..3 {
            let outputs = execution.run(&[x.view()], &[]).unwrap();
            assert_eq!(outputs[0].to_fp32().unwrap(), values);
            assert_eq!(outputs[1].to_fp32().unwrap(), values);
        }
    }
}

/// `state` is what came before: half of it is added to `x`, and goes out as `sum` and as the next state.
fn remembering() -> Vec<u8> {
    let floats = |name| value(name, data_type::FLOAT, &[1, 2]);
    model(GraphProto {
        node: vec![
            node("Mul", &["state", "half"], "faded"),
            node("Add", &["x", "faded"], "next_state"),
            node("ReduceSum", &["next_state"], "sum"),
        ],
        initializer: vec![TensorProto::floats("half", &[], &[0.5])],
        input: vec![floats("x"), floats("state")],
        output: vec![
            value("sum", data_type::FLOAT, &[1, 1]),
            floats("next_state"),
        ],
        ..Default::default()
    })
}

#[test]
fn a_state_that_the_client_hands_back_is_carried_from_request_to_request() {
    use sesemi_semirt::engine::{Engine, rten::Rten};
    let rten = Rten::new(1);
    let fast: Option<&dyn Engine> = engine().map(|it| it as _);
    let onnx = remembering();
    for engine in fast.into_iter().chain([&rten as &dyn Engine]) {
        let model = load(engine, &onnx, &whole(&onnx)).unwrap();
        // Executions hold no state: any of them takes the next request.
        let mut executions = [model.execution().unwrap(), model.execution().unwrap()];
        let mut state = Tensor::fp32("state", &[1, 2], &[0.0; 2]).unwrap();
        let mut sums = Vec::new();
        for (place, x) in [[1.0, 2.0], [0.0, 0.0], [4.0, 0.0]].into_iter().enumerate() {
            let x = Tensor::fp32("x", &[1, 2], &x).unwrap();
            let execution = &mut executions[place % 2];
            let outputs = execution.run(&[x.view(), state.view()], &[]).unwrap();
            sums.extend(outputs[0].to_fp32().unwrap());
            // The output of one request is the input of the next, by another name.
            state = Tensor {
                name: "state".into(),
                ..outputs[1].clone()
            };
        }
        // 1 + 2; half of it; 4 + 0.25, and 0.5.
        assert_eq!(sums, [3.0, 1.5, 4.75], "{}", engine.name());
        assert_eq!(state.to_fp32().unwrap(), [4.25, 0.5]);
    }
}
