//! Whether a form computes what the original does, and what it takes to do so.

use std::num::NonZeroU32;

use sesemi_protocol::package::{Form, Manifest, Memory};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::{Engine, LoadedModel, rows};

use crate::{CompileError, CompiledForm, Tolerance, compare, specs, unoptimised, whole};

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
/// The memory that is measured is what the process grew by, so nothing else should run in it meanwhile, and the engine should have
/// started before.
///
/// # Errors
/// As [`check_against`].
pub fn check(
    engine: &dyn Engine,
    original: &[u8],
    form: &CompiledForm,
    samples: &[Vec<Tensor>],
    tolerance: Tolerance,
) -> Result<Checked, CompileError> {
    check_against(engine, engine, original, form, samples, tolerance, None)
}

/// Runs a form in its engine, and the original in another that is trusted to compute what the model means. With a `batch` of so many
/// rows, the samples are also run together, as the rows of one run, and the memory of a run is that of this one.
///
/// The memory that is measured is what the process grew by, for a run at most, so nothing else should run in it meanwhile, and the
/// engine should have started before.
///
/// # Errors
/// [`CompileError::Model`] without samples, [`CompileError::Engine`] or [`CompileError::Original`] if one of them does not load or
/// run, [`CompileError::Differs`] if their results do.
pub fn check_against(
    engine: &dyn Engine,
    reference: &dyn Engine,
    original: &[u8],
    form: &CompiledForm,
    samples: &[Vec<Tensor>],
    tolerance: Tolerance,
    batch: Option<NonZeroU32>,
) -> Result<Checked, CompileError> {
    if samples.is_empty() {
        let nothing = "there is no sample to compare results of; give at least one";
        return Err(CompileError::Model(nothing.into()));
    }
    // The form first: what the original leaves in the allocator would hide what the form takes.
    let before = resident();
    let (model, manifest) = load(engine, original, form)?;
    let loaded = resident().saturating_sub(before);
    reset_peak();
    let together = match batch {
        Some(rows) => run_together(&*model, samples, rows)?,
        None => Vec::new(),
    };
    let found = run_all(&*model, samples)?;
    let run = peak().saturating_sub(before).saturating_sub(loaded);
    drop(model);
    let original_of = |error| match error {
        CompileError::Engine(error) => CompileError::Original(error),
        other => other,
    };
    // ONNX Runtime computes it as it is written, and any other engine in its own way. An engine that takes it as it is written and
    // fails is not asked for less: then nothing would say that the form was compared with something else.
    let mut plain = unoptimised(original)?;
    if !reference.takes(&described(original, &plain)?.1) {
        plain = whole(original);
    }
    let (model, _) = load(reference, original, &plain).map_err(original_of)?;
    let expected = run_all(&*model, samples).map_err(original_of)?;
    let mut difference = 0f64;
    for (expected, found) in expected.iter().zip(&found) {
        difference = difference.max(compare(expected, found, tolerance)?);
    }
    for (together, alone) in together.iter().zip(found.iter().cycle()) {
        let apart = compare(alone, together, tolerance);
        difference = difference.max(apart.map_err(|error| CompileError::Rows(error.to_string()))?);
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

/// Loads a form of a model whose inputs and outputs are those of the original.
///
/// # Errors
/// [`CompileError`] if the original does not say what they are, or the engine does not take the form.
pub fn load(
    engine: &dyn Engine,
    original: &[u8],
    form: &CompiledForm,
) -> Result<(Box<dyn LoadedModel>, Manifest), CompileError> {
    let (manifest, described) = described(original, form)?;
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

/// The manifest of a model that has this form alone, and what it says of the form. Inputs and outputs are those of the original.
///
/// # Errors
/// [`CompileError`] if the original does not say what they are.
pub fn described(original: &[u8], form: &CompiledForm) -> Result<(Manifest, Form), CompileError> {
    let (inputs, outputs) = specs(original)?;
    let parts = form.parts();
    let manifest = Manifest::describing(inputs, outputs, &[form.content(&parts)]);
    let described = manifest.forms.first().cloned();
    let described = described.ok_or_else(|| CompileError::Model("there is no form".into()))?;
    Ok((manifest, described))
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

/// Runs samples, one after the other and again from the first on, as the rows of one run. The outputs of each.
fn run_together(
    model: &dyn LoadedModel,
    samples: &[Vec<Tensor>],
    most: NonZeroU32,
) -> Result<Vec<Vec<Tensor>>, CompileError> {
    let no_rows = || CompileError::Rows("an input has no rows, or others than another one".into());
    let mut rows = Vec::new();
    let mut together = Vec::new();
    for sample in samples.iter().cycle() {
        let own = rows::count(sample.iter().map(|it| &*it.shape)).ok_or_else(no_rows)?;
        let all = rows.iter().fold(own, |sum, rows| sum.saturating_add(*rows));
        if own == 0 || all > u64::from(most.get()) {
            break;
        }
        rows.push(own);
        together.push(sample.iter().map(Tensor::view).collect());
    }
    if rows.len() < 2 {
        let few = format!("a batch of {most} rows does not hold two samples");
        return Err(CompileError::Model(few));
    }
    let joined = rows::join(&together);
    let views: Vec<TensorView<'_>> = joined.iter().map(Tensor::view).collect();
    let outputs = model.execution()?.run(&views, &[])?;
    rows::split(&outputs, &rows)
        .ok_or_else(|| CompileError::Rows("an output has no row for each of the inputs'".into()))
}

/// What this process has in memory, in bytes; 0 where the kernel does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    line_of(&status, "VmRSS:").unwrap_or(0)
}

/// Has the kernel forget what the process had in memory at most until now (proc_pid_clear_refs(5)). If it does not, the peak is that
/// of all its life, and a run is said to take too much rather than too little.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most that this process had in memory since then, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    line_of(&status, "VmHWM:").unwrap_or(0)
}

/// A line of proc_pid_status(5) that counts in units of 1024 bytes, whatever the size of a page.
fn line_of(status: &str, name: &str) -> Option<u64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{line_of, peak, reset_peak, resident};

    #[test]
    fn memory_is_counted_without_asking_how_large_a_page_is() {
        let status = "Name:\tx\nVmHWM:\t   70000 kB\nVmRSS:\t   65536 kB\nRssAnon:\t 1 kB\n";
        assert_eq!(line_of(status, "VmRSS:"), Some(64 << 20));
        assert_eq!(line_of("VmRSS:\t65536 pages\n", "VmRSS:"), None);
        assert_eq!(line_of("", "VmRSS:"), None);
        assert!(resident() > 0);
    }

    #[test]
    fn what_a_run_had_for_a_moment_counts() {
        let before = resident();
        reset_peak();
        drop(std::hint::black_box(vec![1u8; 64 << 20]));
        assert!(peak() >= before + (60 << 20));
    }
}
