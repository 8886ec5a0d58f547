//! Tensors as JSON, as requests and answers of the Open Inference Protocol have them: `{"name", "shape", "datatype", "data"}`, the data
//! flat or nested, in row-major order.
//!
//! BYTES are JSON strings, which can only be UTF-8. Other bytes are written in base64 with `"parameters": {"content_type": "base64"}`,
//! for the whole tensor, as MLServer and its clients do; the protocol itself has no way but its binary extension. FP16 and BF16
//! are numbers, which that protocol leaves to its binary extension as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use half::{bf16, f16};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sesemi::{DataType, Tensor};

use crate::error::CliError;

/// What BYTES that are no UTF-8 are written in.
const BASE64: &str = "base64";

/// A request, as far as `sesemi infer` takes one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default, rename = "id")]
    _id: Option<String>,
    inputs: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: String,
    shape: Vec<u64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Vec<Value>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    content_type: Option<String>,
}

/// The inputs of a request: `{"inputs": [..]}`.
///
/// # Errors
/// [`CliError::Input`], with the input at fault.
pub fn inputs(text: &str) -> Result<Vec<Tensor>, CliError> {
    let request: Request = serde_json::from_str(text)
        .map_err(|e| CliError::Input(format!("the inputs are no request: {e}")))?;
    request.inputs.into_iter().map(tensor).collect()
}

fn tensor(described: Described) -> Result<Tensor, CliError> {
    let name = described.name;
    let wrong = |why: String| CliError::Input(format!("input '{name}': {why}"));
    let mut types = DataType::ALL.into_iter();
    let data_type = types.find(|it| it.as_str() == described.datatype);
    let data_type =
        data_type.ok_or_else(|| wrong(format!("there is no type '{}'", described.datatype)))?;
    let is_base64 = match described.parameters.content_type.as_deref() {
        None => false,
        Some(BASE64) if data_type == DataType::Bytes => true,
        Some(other) => return Err(wrong(format!("there is no content type '{other}' for it"))),
    };
    let mut values = Vec::new();
    if described.data.iter().any(Value::is_array) {
        let nested = flatten(described.data, &described.shape, &mut values);
        nested.ok_or_else(|| wrong("its data is not nested as its shape is".into()))?;
    } else {
        values = described.data;
    }
    let made = match data_type {
        DataType::Bytes => {
            let elements = values.into_iter().map(|value| element(value, is_base64));
            let elements: Vec<_> = elements.collect::<Result<_, _>>().map_err(&wrong)?;
            Tensor::bytes(&name, &described.shape, &elements)
        }
        _ => Tensor::new(
            &name,
            data_type,
            &described.shape,
            numbers(data_type, values).map_err(&wrong)?,
        ),
    };
    made.map_err(|e| wrong(e.to_string()))
}

/// Data that is nested as its shape is; the values follow each other.
fn flatten(data: Vec<Value>, shape: &[u64], values: &mut Vec<Value>) -> Option<()> {
    let (extent, rest) = shape.split_first()?;
    if data.len() as u64 != *extent {
        return None;
    }
    if rest.is_empty() {
        values.extend(data);
        return Some(());
    }
    for value in data {
        let Value::Array(inner) = value else {
            return None;
        };
        flatten(inner, rest, values)?;
    }
    Some(())
}

fn element(value: Value, is_base64: bool) -> Result<Vec<u8>, String> {
    match value {
        Value::String(text) if is_base64 => {
            let decoded = STANDARD.decode(text);
            decoded.map_err(|e| format!("an element is not in base64: {e}"))
        }
        Value::String(text) => Ok(text.into_bytes()),
        other => Err(format!("an element of BYTES is a text, not {other}")),
    }
}

fn numbers(data_type: DataType, values: Vec<Value>) -> Result<Vec<u8>, String> {
    match data_type {
        DataType::Bool => each(values, |it: bool| Ok([it.into()])),
        DataType::Uint8 => each(values, |it: u8| Ok(it.to_le_bytes())),
        DataType::Uint16 => each(values, |it: u16| Ok(it.to_le_bytes())),
        DataType::Uint32 => each(values, |it: u32| Ok(it.to_le_bytes())),
        DataType::Uint64 => each(values, |it: u64| Ok(it.to_le_bytes())),
        DataType::Int8 => each(values, |it: i8| Ok(it.to_le_bytes())),
        DataType::Int16 => each(values, |it: i16| Ok(it.to_le_bytes())),
        DataType::Int32 => each(values, |it: i32| Ok(it.to_le_bytes())),
        DataType::Int64 => each(values, |it: i64| Ok(it.to_le_bytes())),
        DataType::Fp64 => each(values, |Real(it)| Ok(it.to_le_bytes())),
        DataType::Fp32 => each(values, |Real(it)| {
            let near = it as f32;
            fits(near.is_finite(), it).map(|()| near.to_le_bytes())
        }),
        DataType::Fp16 => each(values, |Real(it)| {
            let near = f16::from_f64(it);
            fits(near.is_finite(), it).map(|()| near.to_le_bytes())
        }),
        DataType::Bf16 => each(values, |Real(it)| {
            let near = bf16::from_f64(it);
            fits(near.is_finite(), it).map(|()| near.to_le_bytes())
        }),
        DataType::Bytes => Err("texts are no numbers".into()),
    }
}

fn fits(fits: bool, number: f64) -> Result<(), String> {
    let too_large = || format!("{number} is too large for its type");
    (fits || !number.is_finite())
        .then_some(())
        .ok_or_else(too_large)
}

fn each<T: DeserializeOwned, const N: usize>(
    values: Vec<Value>,
    bytes: impl Fn(T) -> Result<[u8; N], String>,
) -> Result<Vec<u8>, String> {
    let mut data = Vec::with_capacity(values.len() * N);
    for value in values {
        let value = serde_json::from_value(value).map_err(|e| e.to_string())?;
        data.extend(bytes(value)?);
    }
    Ok(data)
}

/// A tensor as an answer has it.
#[must_use]
pub fn described(tensor: &Tensor) -> Value {
    let mut described = json!({
        "name": tensor.name, "datatype": tensor.data_type.as_str(), "shape": tensor.shape, "data": values(tensor),
    });
    if let (true, Some(fields)) = (is_in_base64(tensor), described.as_object_mut()) {
        let content_type = Some(BASE64.to_owned());
        fields.insert("parameters".into(), json!(Parameters { content_type }));
    }
    described
}

/// The values of a tensor in row-major order.
#[must_use]
pub fn values(tensor: &Tensor) -> Value {
    let bytes = &tensor.data;
    match tensor.data_type {
        DataType::Bool => all(bytes, |[it]| it != 0),
        DataType::Uint8 => all(bytes, u8::from_le_bytes),
        DataType::Uint16 => all(bytes, u16::from_le_bytes),
        DataType::Uint32 => all(bytes, u32::from_le_bytes),
        DataType::Uint64 => all(bytes, u64::from_le_bytes),
        DataType::Int8 => all(bytes, i8::from_le_bytes),
        DataType::Int16 => all(bytes, i16::from_le_bytes),
        DataType::Int32 => all(bytes, i32::from_le_bytes),
        DataType::Int64 => all(bytes, i64::from_le_bytes),
        DataType::Fp16 => all(bytes, |it| number(f16::from_le_bytes(it).to_f32())),
        DataType::Fp32 => all(bytes, |it| number(f32::from_le_bytes(it))),
        DataType::Fp64 => all(bytes, |it| number(f64::from_le_bytes(it))),
        DataType::Bf16 => all(bytes, |it| number(bf16::from_le_bytes(it).to_f32())),
        DataType::Bytes => {
            let in_base64 = is_in_base64(tensor);
            let elements = tensor.to_bytes().unwrap_or_default().into_iter();
            let text = |element: &[u8]| match in_base64 {
                true => STANDARD.encode(element),
                false => String::from_utf8_lossy(element).into_owned(),
            };
            elements.map(text).collect()
        }
    }
}

fn all<T: Into<Value>, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Value {
    let (elements, _) = bytes.as_chunks::<N>();
    elements.iter().map(|element| value(*element)).collect()
}

/// A number, or what JSON has no number for as a text, by the names of protocol buffers' JSON (`"NaN"`, `"Infinity"`, `"-Infinity"`).
fn number(number: impl Into<f64> + Into<Value> + Copy) -> Value {
    let wide: f64 = number.into();
    match NO_NUMBERS.iter().find(|(_, it)| same(*it, wide)) {
        Some((name, _)) => (*name).into(),
        None => number.into(),
    }
}

const NO_NUMBERS: [(&str, f64); 3] = [
    ("NaN", f64::NAN),
    ("Infinity", f64::INFINITY),
    ("-Infinity", f64::NEG_INFINITY),
];

fn same(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan())
}

/// A number as [`number`] writes it.
struct Real(f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let found = match value.as_str() {
            None => value.as_f64(),
            Some(name) => {
                let mut all = NO_NUMBERS.iter();
                all.find(|(it, _)| *it == name).map(|(_, it)| *it)
            }
        };
        let wrong = || serde::de::Error::custom(format!("{value} is no number"));
        found.map(Self).ok_or_else(wrong)
    }
}

/// Whether a tensor has an element that no JSON string can hold.
fn is_in_base64(tensor: &Tensor) -> bool {
    let elements = tensor.to_bytes().unwrap_or_default();
    let mut elements = elements.iter();
    elements.any(|element| std::str::from_utf8(element).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(datatype: &str, shape: &[u64], data: Value) -> Result<Tensor, CliError> {
        let input = json!({ "name": "x", "datatype": datatype, "shape": shape, "data": data });
        let request = json!({ "inputs": [input] }).to_string();
        inputs(&request).map(|mut inputs| inputs.remove(0))
    }

    #[test]
    fn values_of_every_type_come_back_as_they_were_given() {
        for data_type in DataType::ALL {
            let data = match data_type {
                DataType::Bool => json!([true, false]),
                DataType::Bytes => json!(["good", "\u{e9}\u{0}"]),
                DataType::Uint64 => json!([u64::MAX, 0]),
                DataType::Int64 => json!([i64::MIN, 1]),
                DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                    json!([-1.5, "-Infinity"])
                }
                _ => json!([7, 0]),
            };
            let tensor = one(data_type.as_str(), &[2, 1], data.clone()).unwrap();
            assert_eq!(
                (tensor.data_type, &tensor.shape[..]),
                (data_type, &[2, 1][..])
            );
            assert_eq!(values(&tensor), data, "{data_type:?}");
            let mut answer = described(&tensor);
            assert_eq!(answer["datatype"], data_type.as_str());
            // An output of one request can be an input of the next: a state.
            answer["name"] = json!("state");
            let next = inputs(&json!({ "inputs": [answer] }).to_string()).unwrap();
            assert_eq!(next[0].data, tensor.data);
        }
    }

    #[test]
    fn nested_data_is_flat_data_and_must_have_as_many_values_as_the_shape() {
        let nested = one("INT8", &[2, 2], json!([[1, 2], [3, -4]])).unwrap();
        assert_eq!(nested.data, [1, 2, 3, 0xfc]);
        assert_eq!(one("INT8", &[2, 2], json!([1, 2, 3, -4])).unwrap(), nested);
        let words = one("BYTES", &[1, 2], json!([["a", ""]])).unwrap();
        assert_eq!(words.to_bytes().unwrap(), [&b"a"[..], b""]);
        assert!(one("INT8", &[2, 2], json!([1, 2, 3])).is_err());
        assert!(one("INT8", &[2, 2], json!([[1, 2, 3], [-4]])).is_err());
        assert!(one("INT8", &[2, 2], json!([[1, 2], 3, -4])).is_err());
        let nan = one("FP32", &[1], json!(["NaN"])).unwrap();
        assert!(f32::from_le_bytes(nan.data[..].try_into().unwrap()).is_nan());
        assert_eq!(values(&nan), json!(["NaN"]));
        assert!(one("BYTES", &[3], json!(["a", "b"])).is_err());
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_in_base64_which_is_said_and_read_back() {
        let tensor = Tensor::bytes("x", &[2], &[&[0xff, 0][..], b"text"]).unwrap();
        let described = described(&tensor);
        assert_eq!(described["data"], json!(["/wA=", "dGV4dA=="]));
        assert_eq!(described["parameters"], json!({ "content_type": "base64" }));
        let read = inputs(&json!({ "inputs": [described] }).to_string()).unwrap();
        assert_eq!(read, [tensor]);
    }

    #[test]
    fn what_its_type_cannot_hold_is_refused() {
        let refused = [
            ("UINT8", json!([256])),
            ("UINT8", json!([-1])),
            ("INT64", json!([1.5])),
            ("BOOL", json!([1])),
            ("FP32", json!([1e39])),
            ("FP16", json!([70000])),
            ("FP32", json!(["1"])),
            ("FP64", json!([null])),
            ("BYTES", json!([1])),
            ("STRING", json!(["a"])),
        ];
        for (datatype, data) in refused {
            let why = one(datatype, &[1], data).unwrap_err().to_string();
            assert!(why.starts_with("input 'x': "), "{why}");
        }
        for request in [
            r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["?"], "parameters": {"content_type": "base64"}}]}"#,
            r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"], "parameters": {"content_type": "pd"}}]}"#,
            r#"{"inputs": [], "outputs": []}"#,
            r#"{"inputs": "#,
        ] {
            assert!(inputs(request).is_err(), "{request}");
        }
    }
}
