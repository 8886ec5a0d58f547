//! Results and samples: what is compared, and on what.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};
use sesemi_protocol::package::{Dimension, TensorSpec};
use sesemi_protocol::tensor::{DataType, Tensor};

use crate::CompileError;

/// How far two results of one computation may be apart. Engines add in another order, so results differ in their last digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// At most this.
    pub absolute: f64,
    /// Or this part of the value.
    pub relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self {
            absolute: 1e-3,
            relative: 1e-3,
        }
    }
}

/// The largest difference between two results. Integers and booleans must be the same, infinities as well; no number is no number.
///
/// # Errors
/// [`CompileError::Differs`] if it is above the tolerance, or names, types or shapes differ.
pub fn compare(
    expected: &[Tensor],
    found: &[Tensor],
    tolerance: Tolerance,
) -> Result<f64, CompileError> {
    if expected.len() != found.len() {
        return Err(CompileError::Differs("another number of outputs".into()));
    }
    let mut largest = 0f64;
    for (expected, found) in expected.iter().zip(found) {
        let name = &expected.name;
        // Texts are as long as they are.
        let length = |it: &Tensor| it.data_type.size().map(|_| it.data.len());
        let form = |it: &Tensor| (it.name.clone(), it.data_type, it.shape.clone(), length(it));
        if form(expected) != form(found) {
            let differs = format!("output '{name}' has another name, type or shape");
            return Err(CompileError::Differs(differs));
        }
        if expected.data_type == DataType::Bytes {
            same_texts(expected, found)?;
            continue;
        }
        for (place, (expected, found)) in values(expected).zip(values(found)).enumerate() {
            let difference = difference(expected, found, tolerance).ok_or_else(|| {
                CompileError::Differs(format!(
                    "value {place} of output '{name}' is {found} instead of {expected}"
                ))
            })?;
            largest = largest.max(difference);
        }
    }
    Ok(largest)
}

/// How far apart two values of one type are; none if that is too far.
fn difference(expected: Value, found: Value, tolerance: Tolerance) -> Option<f64> {
    let (Value::Float(expected), Value::Float(found)) = (expected, found) else {
        // Indices, labels and masks: the next one is another answer, however near its number.
        return (expected == found).then_some(0.0);
    };
    if expected == found || (expected.is_nan() && found.is_nan()) {
        return Some(0.0);
    }
    // A part of infinity would allow anything.
    if expected.is_infinite() {
        return None;
    }
    let difference = (expected - found).abs();
    let allowed = tolerance.absolute.max(tolerance.relative * expected.abs());
    // Never where one of them is no number.
    (difference <= allowed).then_some(difference)
}

/// An element of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// Of any floating-point type.
    Float(f64),
    /// Of any other, exactly.
    Integer(i128),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(number) => number.fmt(f),
            Self::Integer(number) => number.fmt(f),
        }
    }
}

/// Compares two tensors of BYTES, of which nothing is near another.
fn same_texts(expected: &Tensor, found: &Tensor) -> Result<(), CompileError> {
    let name = &expected.name;
    let differs = |what: String| Err(CompileError::Differs(what));
    let (Some(expected), Some(found)) = (expected.to_bytes(), found.to_bytes()) else {
        return differs(format!("output '{name}' is not what its shape says"));
    };
    let mut pairs = expected.iter().zip(&found).enumerate();
    match pairs.find(|(_, (expected, found))| expected != found) {
        None => Ok(()),
        Some((place, (expected, found))) => {
            let [expected, found] = [expected, found].map(|it| String::from_utf8_lossy(it));
            differs(format!(
                "value {place} of output '{name}' is {found:?} instead of {expected:?}"
            ))
        }
    }
}

/// The values of a tensor, none of BYTES.
fn values(tensor: &Tensor) -> impl Iterator<Item = Value> {
    let data_type = tensor.data_type;
    // Of BYTES there is no chunk as long as all of it and its lengths.
    let size = data_type.size().unwrap_or(usize::MAX);
    let elements = tensor.data.chunks_exact(size);
    elements.map(move |bytes| {
        let mut wide = [0u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        let bits = u64::from_le_bytes(wide);
        match data_type {
            DataType::Bool
            | DataType::Uint8
            | DataType::Uint16
            | DataType::Uint32
            | DataType::Uint64
            | DataType::Bytes => Value::Integer(bits.into()),
            DataType::Int8 => Value::Integer((bits as u8 as i8).into()),
            DataType::Int16 => Value::Integer((bits as u16 as i16).into()),
            DataType::Int32 => Value::Integer((bits as u32 as i32).into()),
            DataType::Int64 => Value::Integer((bits as i64).into()),
            DataType::Fp32 => Value::Float(f32::from_bits(bits as u32).into()),
            DataType::Fp64 => Value::Float(f64::from_bits(bits)),
            DataType::Bf16 => Value::Float(f32::from_bits((bits as u32) << 16).into()),
            DataType::Fp16 => Value::Float(half(bits as u16)),
        }
    })
}

/// IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f64::from(bits & 0x3ff) / 1024.0);
    sign * match exponent {
        0 => fraction * 2f64.powi(-14),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction) * 2f64.powi(i32::from(exponent).saturating_sub(15)),
    }
}

/// What samples are like, where that does not follow from the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// Shapes of inputs, by name; inputs that are not named have 1 for each extent that may vary.
    pub shapes: Vec<(String, Vec<u64>)>,
    /// Values of inputs that are integers, by name, without the last; others are 0 and 1, which is in every vocabulary.
    pub ranges: Vec<(String, Range<i64>)>,
    /// Inputs of BYTES, by name, and a text that is among theirs; one may be there several times. Others have "0" and "1", which also
    /// are numbers.
    pub texts: Vec<(String, String)>,
}

/// Inputs for a try: numbers between -1 and 1, integers of 0 and 1, texts of one of these digits, dynamic dimensions of 1. The same
/// for the same seed.
#[must_use]
pub fn sample_inputs(inputs: &[TensorSpec], seed: u64) -> Vec<Tensor> {
    let smallest = |spec: &TensorSpec| spec.shape.iter().map(|it| fixed(it).unwrap_or(1)).collect();
    let mut next = numbers(seed);
    let mut sample = |spec: &TensorSpec| drawn(spec, smallest(spec), &mut next);
    inputs.iter().map(&mut sample).collect()
}

/// The same, with shapes and values of some inputs chosen.
///
/// # Errors
/// [`CompileError::Model`] if there is no such input, or it has no such shape or values.
pub fn sample_inputs_of(
    inputs: &[TensorSpec],
    choices: &Choices,
    seed: u64,
) -> Result<Vec<Tensor>, CompileError> {
    let wrong = |what: String| CompileError::Model(what);
    let unknown = |name: &str| wrong(format!("there is no input '{name}'"));
    let mut pinned = inputs.to_vec();
    for (name, shape) in &choices.shapes {
        let spec = pinned.iter_mut().find(|spec| spec.name == *name);
        let spec = spec.ok_or_else(|| unknown(name))?;
        if !spec.fits(spec.data_type, shape) {
            let is = spec.describe();
            return Err(wrong(format!(
                "input '{name}' is {is}, which {shape:?} does not fit"
            )));
        }
        spec.shape = shape.iter().copied().map(Dimension::Fixed).collect();
    }
    let mut samples = sample_inputs(&pinned, seed);
    // Other numbers than those that the rest is drawn with.
    let mut next = numbers(!seed);
    for (name, range) in &choices.ranges {
        let sample = samples.iter_mut().find(|sample| sample.name == *name);
        let sample = sample.ok_or_else(|| unknown(name))?;
        let length = drawn_from(range, sample.data_type);
        let length = length.ok_or_else(|| {
            let data_type = sample.data_type.as_str();
            wrong(format!(
                "input '{name}', which is of type {data_type}, has no values of {range:?}"
            ))
        })?;
        let size = sample.data_type.size().unwrap_or(usize::MAX);
        for element in sample.data.chunks_exact_mut(size) {
            let above = next().checked_rem(length).unwrap_or(0);
            let value = range.start.wrapping_add_unsigned(above);
            for (to, from) in element.iter_mut().zip(value.to_le_bytes()) {
                *to = from;
            }
        }
    }
    for (name, _) in &choices.texts {
        let sample = samples.iter_mut().find(|sample| sample.name == *name);
        let sample = sample.ok_or_else(|| unknown(name))?;
        let of_it = choices.texts.iter().filter(|(of, _)| of == name);
        let texts: Vec<&str> = of_it.map(|(_, text)| text.as_str()).collect();
        let elements = sample.to_bytes().map(|elements| elements.len());
        let elements = elements.ok_or_else(|| wrong(format!("input '{name}' takes no texts")))?;
        let drawn = |_| {
            let place = next().checked_rem(texts.len() as u64).unwrap_or(0);
            texts.get(place as usize).copied().unwrap_or_default()
        };
        let drawn: Vec<&str> = (0..elements).map(drawn).collect();
        let made = Tensor::bytes(name, &sample.shape, &drawn);
        *sample = made.map_err(|e| wrong(format!("input '{name}': {e}")))?;
    }
    Ok(samples)
}

/// How many values there are in a range, if there are some, and a type has all of them.
fn drawn_from(range: &Range<i64>, data_type: DataType) -> Option<u64> {
    let length = u64::try_from(range.end.checked_sub(range.start)?).ok()?;
    let last = range.end.checked_sub(1)?;
    let has = integers(data_type)?;
    (length > 0 && has.contains(&range.start) && has.contains(&last)).then_some(length)
}

/// The integers of a type, as far as a range can name them; none of a type that has others, or only two.
fn integers(data_type: DataType) -> Option<RangeInclusive<i64>> {
    Some(match data_type {
        DataType::Uint8 => 0..=u8::MAX.into(),
        DataType::Uint16 => 0..=u16::MAX.into(),
        DataType::Uint32 => 0..=u32::MAX.into(),
        DataType::Uint64 => 0..=i64::MAX,
        DataType::Int8 => i8::MIN.into()..=i8::MAX.into(),
        DataType::Int16 => i16::MIN.into()..=i16::MAX.into(),
        DataType::Int32 => i32::MIN.into()..=i32::MAX.into(),
        DataType::Int64 => i64::MIN..=i64::MAX,
        DataType::Bool | DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => {
            return None;
        }
        DataType::Bytes => return None,
    })
}

fn fixed(dimension: &Dimension) -> Option<u64> {
    match dimension {
        Dimension::Fixed(extent) => Some(*extent),
        Dimension::Dynamic => None,
    }
}

/// Numbers that look like chance. (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014.)
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn drawn(spec: &TensorSpec, shape: Vec<u64>, next: &mut impl FnMut() -> u64) -> Tensor {
    let elements = shape.iter().fold(1u64, |all, one| all.saturating_mul(*one));
    let data = (0..elements).flat_map(|_| element(spec.data_type, next()));
    let data = data.collect();
    Tensor {
        name: spec.name.clone(),
        data_type: spec.data_type,
        shape,
        data,
    }
}

/// The bytes of one element, drawn with these bits.
fn element(data_type: DataType, bits: u64) -> Vec<u8> {
    let number = (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    match data_type {
        DataType::Fp32 => number.to_le_bytes().to_vec(),
        DataType::Fp64 => f64::from(number).to_le_bytes().to_vec(),
        DataType::Bf16 => ((number.to_bits() >> 16) as u16).to_le_bytes().to_vec(),
        // A sign, and an exponent for numbers from 0.5 to 1.
        DataType::Fp16 => ((bits as u16 & 0x83ff) | 0x3800).to_le_bytes().to_vec(),
        // Its length, and the digit.
        DataType::Bytes => vec![1, 0, 0, 0, b'0' | (bits >> 63) as u8],
        _ => {
            let mut bytes = vec![0; data_type.size().unwrap_or(1)];
            if let Some(low) = bytes.first_mut() {
                *low = (bits >> 63) as u8;
            }
            bytes
        }
    }
}
