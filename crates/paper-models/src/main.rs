//! `sesemi-paper-models`: writes the models of the paper's experiments as ONNX files.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use sesemi_onnx::OnnxError;
use sesemi_paper_models::Network;

/// Makes the models of the paper's experiments: structures as published, weights drawn, the same bytes everywhere.
#[derive(Parser)]
#[command(name = "sesemi-paper-models", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes the models as NAME.onnx, and prints names, sizes in bytes and SHA-256.
    #[command(after_help = "\
Examples:
  sesemi-paper-models write models                          # all three, 228 MB
  sesemi-paper-models write models --model mobilenet-v1 --json")]
    Write {
        /// Where to; made if it is not there. A file of the same name is replaced.
        folder: PathBuf,
        /// Only this one: mobilenet-v1, densenet-121 or resnet-101.
        #[arg(long, value_name = "NAME")]
        model: Option<Network>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Written {
    name: &'static str,
    path: PathBuf,
    bytes: usize,
    sha256: String,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Model(#[from] OnnxError),
    #[error(
        "{network} came out with SHA-256 {sha256} instead of {}: this build computes otherwise, and results for its \
         models are not comparable", network.sha256()
    )]
    Differs { network: Network, sha256: String },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

fn main() -> ExitCode {
    let Command::Write {
        folder,
        model,
        json,
    } = Cli::parse().command;
    let networks = model.map_or(Network::ALL.to_vec(), |network| vec![network]);
    match write_all(&folder, &networks).and_then(|written| print(&written, json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path, networks: &[Network]) -> Result<Vec<Written>, Failure> {
    fs::create_dir_all(folder).map_err(|source| Failure::Write {
        path: folder.into(),
        source,
    })?;
    networks
        .iter()
        .map(|network| write(folder, *network))
        .collect()
}

fn write(folder: &Path, network: Network) -> Result<Written, Failure> {
    let bytes = network.onnx()?;
    let sha256 = hex::encode(digest(&SHA256, &bytes));
    if sha256 != network.sha256() {
        return Err(Failure::Differs { network, sha256 });
    }
    let path = folder.join(format!("{network}.onnx"));
    fs::write(&path, &bytes).map_err(|source| Failure::Write {
        path: path.clone(),
        source,
    })?;
    Ok(Written {
        name: network.name(),
        path,
        bytes: bytes.len(),
        sha256,
    })
}

fn print(written: &[Written], json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, written).map_err(io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    for it in written {
        writeln!(out, "{:<13} {:>10}  {}", it.name, it.bytes, it.sha256)?;
    }
    Ok(())
}
