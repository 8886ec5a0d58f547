//! `cargo xtask bench hot|cold|warm|memory|throughput|soak`: how fast SeMIRT serves, with each engine that is there.
//!
//! SeMIRT is built as it is deployed. The program that measures has every engine in it, also one that is a shared library, so it is
//! dynamic here.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use super::table::{Explanations, Report, in_words};
use crate::binaries::BENCH_WITH_ENGINES;
use crate::measurement::{self, Measurement};
use crate::{Outcome, build};

/// An engine, as `sesemi-bench` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The embedded engine.
    Rten,
    /// ONNX Runtime; its library is installed by `sesemi engines install`.
    Onnxruntime,
}

impl Engine {
    /// As it is written on a command line.
    fn name(self) -> Outcome<String> {
        let value = self.to_possible_value().ok_or("an engine has no name")?;
        Ok(value.get_name().to_owned())
    }

    /// SeMIRT with this engine.
    fn program(self) -> &'static str {
        match self {
            Self::Rten => "sesemi-semirt",
            Self::Onnxruntime => "sesemi-semirt-onnxruntime",
        }
    }
}

/// What every measurement of serving can be told.
#[derive(Debug, Args)]
pub(crate) struct Setting {
    /// Where to write the result; without it there is only the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// With this engine only [default: all that are installed].
    #[arg(long, value_name = "NAME")]
    engine: Vec<Engine>,
    /// With this model only: tiny, mobilenetv1, densenet121, resnet101 [default: all that the figure is about].
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// How often to measure each.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// For each model, begin no round after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    limit: u64,
    /// Threads of the engine, in SeMIRT and alone.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
}

/// The command `what`, with `more` arguments of its own.
pub(crate) fn run(what: &str, setting: &Setting, more: &[String]) -> Outcome<()> {
    let (machine, commit) = (measurement::machine()?, measurement::commit()?);
    let program = build::build_tool(&BENCH_WITH_ENGINES)?;
    let library = library(&program)?;
    let engines = engines(setting, library.is_some())?;
    let how = arguments(setting, more);
    let mut measured = Measurement {
        machine,
        commit,
        tee: String::new(),
        engines: Vec::new(),
        threads: Some(setting.threads),
        command: repeats(what, &engines, &how)?,
        figures: Vec::new(),
    };
    let mut explanations = Explanations::new();
    for engine in engines {
        let mut command = Command::new(&program);
        command.arg(what).args(&how);
        command.args(["--engine", &engine.name()?, "--semirt"]);
        command.arg(build::build_one(engine.program())?);
        let report: Report = super::samples(&mut command)?;
        measured.figures.extend(report.figures()?);
        explanations.append(&mut report.explanations());
        measured.engines.extend(report.engine);
        (measured.tee, measured.threads) = (report.tee, report.threads);
    }
    let json = setting.json.as_deref();
    super::tell(&measured, &in_words(&measured, &explanations), json)
}

/// The command that measures the same again, also where more engines are installed.
fn repeats(what: &str, engines: &[Engine], how: &[String]) -> Outcome<String> {
    let mut command = format!("cargo xtask bench {what} --json FILE {}", how.join(" "));
    for engine in engines {
        command.push_str(&format!(" --engine {}", engine.name()?));
    }
    Ok(command)
}

/// What `sesemi-bench` is told for every engine.
fn arguments(setting: &Setting, more: &[String]) -> Vec<String> {
    let numbers = [
        ("--runs", setting.runs.to_string()),
        ("--limit", setting.limit.to_string()),
        ("--threads", setting.threads.to_string()),
    ];
    let models = setting.model.iter().map(|model| ("--model", model.clone()));
    let all = numbers.into_iter().chain(models);
    all.flat_map(|(name, value)| [name.to_owned(), value])
        .chain(more.iter().cloned())
        .collect()
}

/// The engines to measure with. One that was named must be there.
fn engines(setting: &Setting, library: bool) -> Outcome<Vec<Engine>> {
    let missing = "ONNX Runtime is not installed; `sesemi engines install` does that";
    match (setting.engine.as_slice(), library) {
        ([], true) => Ok(vec![Engine::Rten, Engine::Onnxruntime]),
        ([], false) => {
            eprintln!("note: {missing}: measuring with rten alone");
            Ok(vec![Engine::Rten])
        }
        (named, false) if named.contains(&Engine::Onnxruntime) => Err(missing.into()),
        (named, _) => Ok(named.to_vec()),
    }
}

/// The library of ONNX Runtime, if it is installed.
fn library(program: &Path) -> Outcome<Option<PathBuf>> {
    super::samples(Command::new(program).arg("library"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(engine: &[Engine]) -> Setting {
        Setting {
            json: None,
            engine: engine.to_vec(),
            model: vec!["tiny".into()],
            runs: 20,
            limit: 600,
            threads: 2,
        }
    }

    #[test]
    fn an_engine_that_is_not_there_is_left_out_unless_it_was_named() {
        let (rten, onnxruntime) = (Engine::Rten, Engine::Onnxruntime);
        let chosen = |named: &[Engine], library| engines(&setting(named), library);
        assert_eq!(chosen(&[], true), Ok(vec![rten, onnxruntime]));
        assert_eq!(chosen(&[], false), Ok(vec![rten]));
        assert_eq!(chosen(&[rten], true), Ok(vec![rten]));
        let missing = chosen(&[onnxruntime], false).unwrap_err();
        assert!(missing.contains("sesemi engines install"), "{missing}");
    }

    #[test]
    fn the_command_that_repeats_it_has_everything_that_was_chosen() {
        let more = ["--requests".to_owned(), "5".to_owned()];
        let how = arguments(&setting(&[]), &more);
        let expected = "cargo xtask bench soak --json FILE --runs 20 --limit 600 --threads 2 --model tiny --requests 5 \
            --engine rten --engine onnxruntime";
        let engines = [Engine::Rten, Engine::Onnxruntime];
        assert_eq!(repeats("soak", &engines, &how).unwrap(), expected);
    }
}
