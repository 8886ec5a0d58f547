//! What is a model by its framing, and what is not.

use super::*;

const MODEL_FILE: &[u8] =
    include_bytes!("../../../../../../models/breast-cancer/breast-cancer.onnx");
const EVERY_FIELD: &[u8] = include_bytes!("../../../../../client/onnx/tests/every-field.onnx");
const BROKEN: Result<(), FramingError> = Err(FramingError::Field("ModelProto"));

/// A field with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(content);
    bytes
}

/// A model with this graph.
fn model(graph: &[u8]) -> Vec<u8> {
    [&[0x08, 10], field(7, graph).as_slice()].concat()
}

/// A model with this initializer.
fn with_tensor(tensor: &[u8]) -> Vec<u8> {
    model(&field(5, tensor))
}

#[test]
fn models_of_this_repository_pass() {
    assert_eq!(check(MODEL_FILE), Ok(()));
    assert_eq!(check(&model(&[])), Ok(()));
}

#[test]
fn every_field_of_onnx_is_of_the_kind_that_the_tables_say() {
    // Its values are made up, so that its tensors have other data than their shapes; their framing is right.
    assert!(matches!(
        check(EVERY_FIELD),
        Ok(()) | Err(FramingError::Tensor)
    ));
}

#[test]
fn a_number_without_an_end_is_refused() {
    // This kept RTen's reader busy for ever.
    let endless = [&[0x08][..], &[0x80; 10], &[0]].concat();
    assert_eq!(check(&endless), BROKEN);
    assert_eq!(check(&[0x80; 64]), BROKEN);
    // The tenth byte has one bit; nine bytes and it are 64.
    let widest = [&[0x08][..], &[0xff; 9], &[1], &[0x3a, 0]].concat();
    assert_eq!(check(&widest), Ok(()));
    let wider = [&[0x08][..], &[0xff; 9], &[2], &[0x3a, 0]].concat();
    assert_eq!(check(&wider), BROKEN);
    // Nor in a packed list of numbers (`int64_data`).
    assert!(check(&with_tensor(&field(7, &[0x80; 16]))).is_err());
}

#[test]
fn a_length_that_the_message_around_it_does_not_hold_is_refused() {
    // RTen's reader allocated what this says: 2^62 bytes.
    let long = [0x12, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    assert_eq!(check(&long), BROKEN);
    // The graph has two bytes, and a node in it says that it has more, which the file would have.
    let beyond = [0x08, 10, 0x3a, 2, 0x0a, 4, 0x12, 0, 0x12, 0];
    assert_eq!(check(&beyond), Err(FramingError::Field("GraphProto")));
}

#[test]
fn graphs_nested_beyond_the_bound_are_refused_and_those_within_pass() {
    let nested = |depth: usize| {
        let mut graph = Vec::new();
        for _ in 0..depth {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        model(&graph)
    };
    assert_eq!(check(&nested(33)), Ok(()));
    assert_eq!(check(&nested(34)), Err(FramingError::TooDeep));
    // This overflowed the stack of RTen's reader.
    assert_eq!(check(&nested(3000)), Err(FramingError::TooDeep));
    let mut types = Vec::new();
    for _ in 0..3000 {
        types = field(4, &field(1, &types));
    }
    let model = model(&field(11, &field(2, &types)));
    assert_eq!(check(&model), Err(FramingError::TooDeep));
}

#[test]
fn fields_of_another_kind_groups_and_field_zero_are_refused() {
    for wrong in [
        &[0x0a, 0][..],       // the version, as a text
        &[0x38, 1],           // the graph, as a number
        &[0x3b, 0x3c],        // a group
        &[0x02, 0],           // field 0
        &[0x08, 10, 0x12, 1], // cut short
    ] {
        assert_eq!(check(wrong), BROKEN, "{wrong:x?}");
    }
    let packed = with_tensor(&field(4, &[0; 7]));
    assert_eq!(check(&packed), Err(FramingError::Field("TensorProto")));
    let name = model(&field(2, &[0xff]));
    assert_eq!(check(&name), Err(FramingError::Text("GraphProto")));
}

#[test]
fn a_tensor_whose_shape_its_data_does_not_fill_is_refused() {
    let floats = |dims: &[u8], raw: usize| {
        let data_type = [0x10, 1];
        with_tensor(&[dims, &data_type, &field(9, &vec![0; raw])].concat())
    };
    assert_eq!(check(&floats(&[0x08, 3], 12)), Ok(()));
    assert_eq!(check(&floats(&[0x08, 3, 0x08, 0], 0)), Ok(()));
    assert_eq!(check(&floats(&[0x08, 3], 8)), Err(FramingError::Tensor));
    assert_eq!(check(&floats(&[], 8)), Err(FramingError::Tensor));
    // 2^40 elements of no data, and extents that overflow although one of them is 0.
    let large = [0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    assert_eq!(check(&with_tensor(&large)), Err(FramingError::Tensor));
    let overflow = [&large[..], &large, &[0x08, 0]].concat();
    assert_eq!(check(&with_tensor(&overflow)), Err(FramingError::Tensor));
    let negative = [&[0x08][..], &[0xff; 9], &[1]].concat();
    assert_eq!(check(&with_tensor(&negative)), Err(FramingError::Tensor));
}

#[test]
fn what_is_no_model_is_refused() {
    for bytes in [&b""[..], b"garbage", b"RTEN", &[0x08, 10], &[0x3a, 0]] {
        assert!(check(bytes).is_err());
    }
    let twice = [model(&[]), field(7, &[])].concat();
    assert_eq!(check(&twice), Err(FramingError::Not("graph")));
    for end in 0..MODEL_FILE.len() {
        assert!(check(&MODEL_FILE[..end]).is_err() || end > MODEL_FILE.len() - 64);
    }
}
