//! `sesemi-compile`: does one [`Job`], which it reads as JSON from its standard input, and says what came of it. `sesemi model
//! compile` starts one for each step.

#![forbid(unsafe_code)]

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sesemi_compile::{
    Checked, CompileError, CompiledForm, Done, Job, JobForm, Refused, Said, Tolerance,
    check_against, compile_for_onnxruntime, part_names, sample_inputs_of, specs, split_weights,
};
use sesemi_onnxruntime::{Library, OnnxRuntime};
use sesemi_protocol::causes::in_one_line;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine, framing};

/// Longest job, in bytes.
const MAX_JOB: u64 = 1024 * 1024;
/// How often a run is timed, at most, and for how long.
const RUNS: usize = 9;
const TIMED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let said: Said = job();
    let Ok(line) = serde_json::to_string(&said) else {
        return ExitCode::FAILURE;
    };
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn job() -> Said {
    let mut text = String::new();
    let mut input = std::io::stdin().take(MAX_JOB);
    input.read_to_string(&mut text).map_err(in_one_line)?;
    let job: Job = serde_json::from_str(&text).map_err(in_one_line)?;
    let onnx = std::fs::read(&job.model).map_err(in_one_line)?;
    framing::check(&onnx).map_err(in_one_line)?;
    // A process has one ONNX Runtime, whether it runs the form or only the original.
    let library = job.onnxruntime.as_ref().or(job.reference.as_ref());
    let onnxruntime = library.map(|path| {
        let library = Library::load(path).map_err(in_one_line)?;
        let engine = OnnxRuntime::starting(library, job.threads).map_err(in_one_line)?;
        // Waits for its start: what it takes would otherwise count as the model's memory, or not, as it happens.
        engine.environment().map_err(in_one_line)?;
        Ok::<_, String>(engine)
    });
    let onnxruntime = onnxruntime.transpose()?;
    let rten = Rten::new(job.threads);
    let engine: &dyn Engine = match (&job.onnxruntime, &onnxruntime) {
        (Some(_), Some(engine)) => engine,
        _ => &rten,
    };
    let reference: &dyn Engine = match (&job.reference, &onnxruntime) {
        (Some(_), Some(engine)) => engine,
        _ => engine,
    };
    let mut form = match (job.form, &onnxruntime) {
        (JobForm::Portable, _) => split_weights(&onnx).map_err(in_one_line)?,
        (JobForm::Compiled, Some(engine)) => {
            compile_for_onnxruntime(engine, &onnx, job.prepack).map_err(in_one_line)?
        }
        (JobForm::Compiled, None) => {
            return Err("the compiled form needs ONNX Runtime".to_owned().into());
        }
    };
    form.prepack = job.prepack;
    finish(&job, &onnx, form, engine, reference)
}

fn finish(
    job: &Job,
    onnx: &[u8],
    form: CompiledForm,
    engine: &dyn Engine,
    reference: &dyn Engine,
) -> Said {
    let (inputs, _) = specs(onnx).map_err(in_one_line)?;
    // Rows that are all the same would not show that they are mixed.
    let least = if job.batch.is_some() { 2 } else { 1 };
    let samples: Vec<Vec<Tensor>> = (0..job.samples.max(least))
        .map(|seed| sample_inputs_of(&inputs, &job.choices, seed.into()))
        .collect::<Result<_, _>>()
        .map_err(in_one_line)?;
    let tolerance = Tolerance {
        absolute: job.tolerance,
        relative: job.tolerance,
    };
    let checked = check_against(
        engine, reference, onnx, &form, &samples, tolerance, job.batch,
    );
    let Checked { difference, memory } = checked.map_err(|error| Refused {
        differs: matches!(error, CompileError::Differs(_) | CompileError::Rows(_)),
        why: in_one_line(error),
    })?;
    let (load_ms, run_ms) = times(engine, onnx, &form, samples.first())?;
    for (name, part) in part_names(form.format).iter().zip(&form.parts) {
        std::fs::write(job.folder.join(name), part).map_err(in_one_line)?;
    }
    Ok(Done {
        instruction_set: form.instruction_set.as_str().into(),
        loaded_bytes: memory.loaded,
        run_bytes: memory.run,
        difference,
        load_ms,
        run_ms,
    })
}

/// How long a load takes, and a run that is not the first, in milliseconds.
fn times(
    engine: &dyn Engine,
    onnx: &[u8],
    form: &CompiledForm,
    inputs: Option<&Vec<Tensor>>,
) -> Result<(f64, f64), String> {
    let started = Instant::now();
    let (model, _) = sesemi_compile::load(engine, onnx, form).map_err(in_one_line)?;
    let load = started.elapsed();
    let views: Vec<TensorView<'_>> = inputs.into_iter().flatten().map(Tensor::view).collect();
    let mut execution = model.execution().map_err(in_one_line)?;
    execution.run(&views, &[]).map_err(in_one_line)?;
    let started = Instant::now();
    let mut runs = Vec::with_capacity(RUNS);
    while runs.is_empty() || (runs.len() < RUNS && started.elapsed() < TIMED) {
        let begun = Instant::now();
        execution.run(&views, &[]).map_err(in_one_line)?;
        runs.push(begun.elapsed());
    }
    runs.sort_unstable();
    let median = runs.get(runs.len() / 2).copied().unwrap_or_default();
    Ok((load.as_secs_f64() * 1e3, median.as_secs_f64() * 1e3))
}
