//! Whether a form computes what the original does, and what it takes to do so.

use sesemi_protocol::package::{Dimension, Manifest, Memory, ModelFormat, TensorSpec};
use sesemi_protocol::tensor::{DataType, Tensor, TensorView};
use sesemi_semirt::engine::{Engine, LoadedModel};

use crate::{CompileError, CompiledForm, specs};

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

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    /// The largest difference between two values.
    pub difference: f64,
    /// What the form took, as far as the kernel counts it.
    pub memory: Memory,
}

/// Runs the original and a form of it, in the same engine, on sample inputs.
///
/// The memory that is measured is what the process grew by, so nothing else should run in it meanwhile.
///
/// # Errors
/// [`CompileError::Engine`] if one of them does not load or run, [`CompileError::Differs`] if their results do.
pub fn check(
    engine: &dyn Engine,
    original: &[u8],
    form: &CompiledForm,
    samples: &[Vec<Tensor>],
    tolerance: Tolerance,
) -> Result<Checked, CompileError> {
    // The form first: what the original leaves in the allocator would hide what the form takes.
    let before = resident();
    let (model, manifest) = load(engine, original, form)?;
    let loaded = resident().saturating_sub(before);
    let found = run_all(&*model, samples)?;
    let run = resident().saturating_sub(before).saturating_sub(loaded);
    drop(model);
    let whole = CompiledForm {
        format: ModelFormat::Onnx,
        instruction_set: sesemi_protocol::package::InstructionSet::Any,
        parts: vec![original.to_vec()],
        memory: Memory::default(),
        prepack: false,
    };
    let (model, _) = load(engine, original, &whole)?;
    let expected = run_all(&*model, samples)?;
    let mut difference = 0f64;
    for (expected, found) in expected.iter().zip(&found) {
        difference = difference.max(compare(expected, found, tolerance)?);
    }
    let parts = manifest.forms.iter().flat_map(|form| &form.parts).sum();
    Ok(Checked {
        difference,
        memory: Memory {
            loaded: loaded.max(parts),
            run,
        },
    })
}

fn load(
    engine: &dyn Engine,
    original: &[u8],
    form: &CompiledForm,
) -> Result<(Box<dyn LoadedModel>, Manifest), CompileError> {
    let (inputs, outputs) = specs(original)?;
    let parts = form.parts();
    let manifest = Manifest::describing(inputs, outputs, &[form.content(&parts)]);
    let described = manifest.forms.first().cloned();
    let described = described.ok_or_else(|| CompileError::Model("there is no form".into()))?;
    if !engine.takes(&described) {
        return Err(CompileError::Model(format!(
            "{} does not run the form {:?} for {:?} here",
            engine.name(),
            form.format,
            form.instruction_set
        )));
    }
    let model = engine.load(&manifest, &described, form.parts.clone())?;
    Ok((model, manifest))
}

fn run_all(
    model: &dyn LoadedModel,
    samples: &[Vec<Tensor>],
) -> Result<Vec<Vec<Tensor>>, CompileError> {
    let mut execution = model.execution()?;
    let mut run = |inputs: &Vec<Tensor>| {
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        Ok(execution.run(&views, &[])?)
    };
    samples.iter().map(&mut run).collect()
}

/// The largest difference between two results.
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
        if (name, expected.data_type, &expected.shape)
            != (&found.name, found.data_type, &found.shape)
        {
            let differs = format!("output '{name}' has another name, type or shape");
            return Err(CompileError::Differs(differs));
        }
        for (place, (expected, found)) in values(expected).zip(values(found)).enumerate() {
            let difference = if expected == found || (expected.is_nan() && found.is_nan()) {
                0.0
            } else {
                (expected - found).abs()
            };
            let allowed = tolerance.absolute.max(tolerance.relative * expected.abs());
            // Also where it is no number.
            if !matches!(difference.partial_cmp(&allowed), Some(order) if order.is_le()) {
                return Err(CompileError::Differs(format!(
                    "value {place} of output '{name}' is {found} instead of {expected}"
                )));
            }
            largest = largest.max(difference);
        }
    }
    Ok(largest)
}

/// The values of a tensor as numbers. (Integers above 2^53 are rounded.)
fn values(tensor: &Tensor) -> impl Iterator<Item = f64> {
    let data_type = tensor.data_type;
    let elements = tensor.data.chunks_exact(data_type.size());
    elements.map(move |bytes| {
        let mut wide = [0u8; 8];
        for (to, from) in wide.iter_mut().zip(bytes) {
            *to = *from;
        }
        let bits = u64::from_le_bytes(wide);
        match data_type {
            DataType::Bool | DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => bits as f64,
            DataType::Uint64 => bits as f64,
            DataType::Int8 => f64::from(bits as u8 as i8),
            DataType::Int16 => f64::from(bits as u16 as i16),
            DataType::Int32 => f64::from(bits as u32 as i32),
            DataType::Int64 => bits as i64 as f64,
            DataType::Fp32 => f64::from(f32::from_bits(bits as u32)),
            DataType::Fp64 => f64::from_bits(bits),
            DataType::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
            DataType::Fp16 => half(bits as u16),
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

/// Inputs for a try: numbers between -1 and 1, integers of 0 and 1 (so that they are in every vocabulary), dynamic dimensions of
/// 1. The same for the same seed.
#[must_use]
pub fn sample_inputs(inputs: &[TensorSpec], seed: u64) -> Vec<Tensor> {
    let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        // splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let extent = |dimension: &Dimension| match dimension {
        Dimension::Fixed(extent) => *extent,
        Dimension::Dynamic => 1,
    };
    let sample = |spec: &TensorSpec| {
        let shape: Vec<u64> = spec.shape.iter().map(extent).collect();
        let elements = shape.iter().fold(1u64, |all, one| all.saturating_mul(*one));
        let data = (0..elements).flat_map(|_| element(spec.data_type, next()));
        let data = data.collect();
        Tensor {
            name: spec.name.clone(),
            data_type: spec.data_type,
            shape,
            data,
        }
    };
    inputs.iter().map(sample).collect()
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
        _ => {
            let mut bytes = vec![0; data_type.size()];
            if let Some(low) = bytes.first_mut() {
                *low = (bits >> 63) as u8;
            }
            bytes
        }
    }
}

/// What this process has in memory, in bytes; 0 where the kernel does not say.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(4096)
}
