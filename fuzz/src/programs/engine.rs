//! What reaches SeMIRT's engine: requests from users, and models from owners.

use std::cell::RefCell;

use sesemi_cli::demo::data;
use sesemi_protocol::package::{Dimension, Manifest, TensorSpec};
use sesemi_protocol::tensor::{DataType, TensorView};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine as _, Execution, check_request, framing};

use crate::input::Input;

/// A tensor that an input describes, whether or not it is consistent.
struct Described<'a> {
    name: String,
    data_type: DataType,
    shape: Vec<u64>,
    data: &'a [u8],
}

impl<'a> Described<'a> {
    fn read(input: &mut Input<'a>) -> Self {
        let data_type = DataType::ALL[usize::from(input.byte()) % DataType::ALL.len()];
        let name = input.text();
        let rank = input.byte() % 5;
        // Small extents, so that many of the tensors are consistent.
        let shape: Vec<u64> = (0..rank).map(|_| u64::from(input.byte())).collect();
        let elements = shape.iter().product::<u64>();
        let size = match data_type.size() {
            Some(size) => elements * size as u64,
            None => u64::from(input.byte()),
        };
        let data = input.bytes(usize::try_from(size).unwrap());
        Self {
            name,
            data_type,
            shape,
            data,
        }
    }

    fn view(&self) -> TensorView<'_> {
        TensorView {
            name: &self.name,
            data_type: self.data_type,
            shape: &self.shape,
            data: self.data,
        }
    }
}

/// Checks described inputs against a described manifest. What is accepted fits it, each input once.
pub fn model_input(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = input.byte() % 4;
    let specs: Vec<TensorSpec> = (0..count).map(|_| spec(&mut input)).collect();
    let (inputs, outputs) = specs.split_at(specs.len() / 2 + specs.len() % 2);
    let manifest = Manifest::describing(inputs.to_vec(), outputs.to_vec(), &[]);
    let count = input.byte() % 4;
    let given: Vec<_> = (0..count).map(|_| Described::read(&mut input)).collect();
    let views: Vec<_> = given.iter().map(Described::view).collect();
    let wanted: Vec<String> = (0..input.byte() % 3).map(|_| input.text()).collect();
    if check_request(&manifest, &views, &wanted).is_err() {
        return;
    }
    for spec in &manifest.inputs {
        let mut named = views.iter().filter(|view| view.name == spec.name);
        let only = named.next().unwrap();
        assert!(named.next().is_none());
        assert!(spec.fits(only.data_type, only.shape));
    }
    let known = |specs: &[TensorSpec], name: &str| specs.iter().any(|spec| spec.name == name);
    assert!(views.iter().all(|view| known(&manifest.inputs, view.name)));
    assert!(wanted.iter().all(|name| known(&manifest.outputs, name)));
}

fn spec(input: &mut Input<'_>) -> TensorSpec {
    let data_type = DataType::ALL[usize::from(input.byte()) % DataType::ALL.len()];
    let name = input.text();
    let dimension = |extent: u8| match extent {
        0xff => Dimension::Dynamic,
        extent => Dimension::Fixed(extent.into()),
    };
    let shape = (0..input.byte() % 5)
        .map(|_| dimension(input.byte()))
        .collect();
    TensorSpec {
        name,
        data_type,
        shape,
    }
}

thread_local! {
    /// The demo's model, ready to run.
    static DEMO: RefCell<Box<dyn Execution>> = RefCell::new({
        let engine = Rten::new(1);
        let manifest = data::manifest();
        let parts = vec![data::MODEL.to_vec()];
        let model = engine.load(&manifest, &manifest.forms[0], parts).unwrap();
        model.execution().unwrap()
    });
}

/// Loads bytes as a model. Whatever they are, the engine comes back with a model or an error.
pub fn engine_model(bytes: &[u8]) {
    let manifest = data::manifest();
    let engine = Rten::new(1);
    let loaded = engine.load(&manifest, &manifest.forms[0], vec![bytes.to_vec()]);
    // Nothing is a model whose framing is not that of ONNX.
    assert!(loaded.is_err() || framing::check(bytes).is_ok());
}

/// Runs a real model on described inputs. Whatever it gives is consistent and what the manifest promises.
pub fn engine_input(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = 1 + input.byte() % 2;
    let given: Vec<_> = (0..count).map(|_| Described::read(&mut input)).collect();
    let views: Vec<_> = given.iter().map(Described::view).collect();
    if views.iter().any(|view| view.check().is_err()) {
        // Nothing else leaves an envelope.
        return;
    }
    let wanted: Vec<String> = (0..input.byte() % 3).map(|_| input.text()).collect();
    let Ok(outputs) = DEMO.with_borrow_mut(|demo| demo.run(&views, &wanted)) else {
        return;
    };
    for output in outputs {
        output.view().check().unwrap();
        let manifest = data::manifest();
        let spec = &manifest.outputs[0];
        assert_eq!(output.name, spec.name);
        assert!(spec.fits(output.data_type, &output.shape));
    }
}

fn described(data_type: u8, name: &str, shape: &[u8]) -> Vec<u8> {
    let mut bytes = vec![data_type, name.len() as u8];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(shape.len() as u8);
    bytes.extend_from_slice(shape);
    bytes
}

const FP32: u8 = 10;

pub(crate) fn model_input_seeds() -> Vec<Vec<u8>> {
    let specs = [described(FP32, "x", &[0xff, 3]), described(FP32, "y", &[2])].concat();
    let tensor = [described(FP32, "x", &[1, 3]), vec![0; 12]].concat();
    let accepted = [&[2], &specs[..], &[1], &tensor, &[1, 1, b'y']].concat();
    let twice = [&[2], &specs[..], &[2], &tensor, &tensor].concat();
    vec![accepted, twice, specs]
}

pub(crate) fn model_seeds() -> Vec<Vec<u8>> {
    // What RTen's own reader never came back from: a number without an end, a length that the file does not hold, and graphs
    // nested until the stack ends.
    let endless = [&[0x08][..], &[0x80; 10], &[0]].concat();
    let long = vec![0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    let mut graph = Vec::new();
    for _ in 0..3000 {
        for field in [0x32, 0x2a, 0x0a] {
            graph = delimited(field, &graph);
        }
    }
    let nested = [&[0x08, 10], delimited(0x3a, &graph).as_slice()].concat();
    vec![data::MODEL.to_vec(), endless, long, nested]
}

/// A field of a protobuf message that has a length.
fn delimited(key: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![key];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

pub(crate) fn engine_seeds() -> Vec<Vec<u8>> {
    let tensor = |rows: u8, number: f32| {
        let values = vec![number; usize::from(rows) * data::FEATURES];
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        [vec![0], described(FP32, "features", &[rows, 30]), data].concat()
    };
    let wanted = [&[1, 13], b"probabilities".as_slice()].concat();
    vec![
        tensor(1, 0.5),
        tensor(3, f32::NAN),
        tensor(0, 0.0),
        [tensor(1, f32::MAX), wanted].concat(),
    ]
}
