//! `cargo xtask bench`: runs what is to be measured and writes a [`Measurement`].

pub(crate) mod attest;
pub(crate) mod keyservice;
pub(crate) mod serving;
mod table;

use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io, process};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::binaries::BENCH;
use crate::measurement::{self, Figure, Measurement};
use crate::{Outcome, build, demo, output, workspace};

/// What `sesemi demo` times, in milliseconds. Each is a key of its JSON file.
const TIMES: [&str; 3] = ["cold_ms", "warm_ms", "hot_ms_p50"];

/// The command `cargo xtask bench demo`: the median of several runs.
pub(crate) fn demo(json: &Path, runs: u32) -> Outcome<()> {
    let (machine, commit) = (measurement::machine()?, measurement::commit()?);
    let built = build::build()?;
    let result_file = built
        .folder
        .join(format!("xtask-bench-demo-{}.json", process::id()));
    let results = (1..=runs).map(|run| {
        eprintln!("demo, run {run} of {runs}");
        one_run(&built, &result_file)
    });
    let results: Vec<Value> = results.collect::<Outcome<_>>()?;
    let measurement = Measurement {
        machine,
        commit,
        tee: tee_of(&results)?,
        engines: Vec::new(),
        threads: None,
        command: format!("cargo xtask bench demo --json FILE --runs {runs}"),
        figures: TIMES
            .into_iter()
            .map(|key| figure(key, &results))
            .collect::<Outcome<_>>()?,
    };
    output::write_json(json, &measurement)
}

fn one_run(built: &build::Built, result_file: &Path) -> Outcome<Value> {
    // What the demo tells people goes to standard error, so that our own output stays clean.
    let mut command = demo::command(built);
    command
        .arg("--json")
        .arg(result_file)
        .stdout(Stdio::from(io::stderr()));
    let run = workspace::run("the demo", &mut command);
    let text = fs::read_to_string(result_file);
    // Also after a failure: the file is ours, and the next run must not read an old one.
    let _ = fs::remove_file(result_file);
    run?;
    let text = text.map_err(|error| format!("the demo left no result: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("the demo's result is not JSON: {error}"))
}

/// The TEE that all runs ran in. A run with wrong predictions is no measurement.
fn tee_of(results: &[Value]) -> Outcome<String> {
    if results
        .iter()
        .any(|result| result["predictions_match_plaintext"] != true)
    {
        return Err("a run of the demo did not predict what the plain model predicts, so it was not measured".into());
    }
    let tee = results.first().and_then(|result| result["tee"].as_str());
    let tee = tee.ok_or("the demo's result does not say which TEE it ran in")?;
    if results.iter().any(|result| result["tee"] != tee) {
        return Err("the runs of the demo did not all run in the same TEE".into());
    }
    Ok(tee.into())
}

fn figure(key: &str, results: &[Value]) -> Outcome<Figure> {
    let samples: Option<Vec<f64>> = results.iter().map(|result| result[key].as_f64()).collect();
    let figure = samples.and_then(|samples| Figure::of(&format!("demo.{key}"), "ms", &samples));
    figure.ok_or_else(|| format!("the demo's result has no number {key}"))
}

/// Builds and runs `sesemi-bench` with these arguments, the first of which is the command's name, and makes of its report the
/// figures, the TEE's name and the number of threads. What the program tells people goes to this terminal.
fn measured<R: DeserializeOwned>(
    arguments: &[&str],
    read: impl FnOnce(R) -> Outcome<(Vec<Figure>, String, Option<u32>)>,
) -> Outcome<Measurement> {
    // Before it is built: what is measured is what was there when the command was given.
    let (machine, commit) = (measurement::machine()?, measurement::commit()?);
    let program = build::build_tool(&BENCH)?;
    let mut command = Command::new(program);
    let (figures, tee, threads) = read(samples(command.args(arguments))?)?;
    let (what, how) = arguments.split_first().ok_or("no command was given")?;
    Ok(Measurement {
        machine,
        commit,
        tee,
        engines: Vec::new(),
        threads,
        command: format!("cargo xtask bench {what} --json FILE {}", how.join(" ")),
        figures,
    })
}

/// Runs a program that prints a report.
fn samples<R: DeserializeOwned>(command: &mut Command) -> Outcome<R> {
    let name = BENCH.name;
    let done = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{name} failed ({}), see above", done.status));
    }
    serde_json::from_slice(&done.stdout)
        .map_err(|error| format!("{name} printed something else than its samples: {error}"))
}

/// Prints a measurement for people, and writes it into the file, if there is one.
fn tell(measurement: &Measurement, in_words: &str, json: Option<&Path>) -> Outcome<()> {
    output::print(in_words)?;
    match json {
        Some(file) => output::write_json(file, measurement),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(cold_ms: f64) -> Value {
        json!({"tee": "simulated", "predictions_match_plaintext": true, "cold_ms": cold_ms})
    }

    #[test]
    fn a_figure_is_the_median_of_the_runs() {
        let figure = figure("cold_ms", &[result(3.0), result(1.0), result(2.5)]).unwrap();
        assert_eq!(
            (figure.name.as_str(), figure.value, figure.spread),
            ("demo.cold_ms", 2.5, 2.0)
        );
    }

    #[test]
    fn a_missing_figure_is_named() {
        let problem = figure("warm_ms", &[result(3.0)]).unwrap_err();
        assert_eq!(problem, "the demo's result has no number warm_ms");
    }

    #[test]
    fn wrong_predictions_are_not_measured() {
        let wrong = json!({"tee": "simulated", "predictions_match_plaintext": false});
        assert!(tee_of(&[result(1.0), wrong]).is_err());
        assert!(tee_of(&[json!({"tee": "simulated"})]).is_err());
        assert_eq!(tee_of(&[result(1.0), result(2.0)]).unwrap(), "simulated");
    }

    #[test]
    fn runs_in_different_tees_are_not_mixed() {
        let other = json!({"tee": "sgx", "predictions_match_plaintext": true});
        assert!(tee_of(&[result(1.0), other]).is_err());
    }
}
