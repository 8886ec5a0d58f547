//! `sesemi-bench`: measures inside one process what SeSeMI's parts cost, and prints every sample as JSON.
//!
//! It is what `cargo xtask bench` builds and runs; people call that, which adds machine and commit and makes figures of
//! the samples. Samples come out raw because a median can be taken of samples, but not the other way round.
//!
//! Attestation and releases run on one core and in a runtime of one thread: both sides of a connection take turns, so that a figure is
//! the work of the two and nothing is hidden in another core. (The channel has its TEE asked on a second thread, and waits
//! for it.) The wall clock says what a caller waits on an idle core; CPU time says the same on a busy machine.

#![forbid(unsafe_code)]
#![allow(clippy::arithmetic_side_effects)]

mod attest;
mod enclave;
mod error;
mod figures;
mod keyservice;
mod service;
mod serving;
mod stopwatch;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde::Serialize;
use sesemi_process::{WipingAllocator, keep_what_is_freed, share_one_arena};
use sesemi_testkit::in_one_line;

use crate::error::BenchError;

/// The product's: what it costs is part of what is measured.
#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Measures what SeSeMI's parts cost. `cargo xtask bench` runs it.
#[derive(Parser)]
#[command(name = "sesemi-bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What attestation costs: its pieces, whole channels, and key releases.
    Attest {
        /// How often each is measured, one round after the other.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// No new round begins after so many seconds; one is always measured.
        #[arg(long, value_name = "SECONDS")]
        limit: u64,
    },
    /// What KeyService does with many grants: releases, durable commands, starts, room.
    Keyservice {
        /// How many grants.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_100..))]
        grants: u32,
        /// How often each is measured.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    #[command(flatten)]
    Serving(serving::Serving),
    /// Says where the library of ONNX Runtime is, or null.
    #[command(hide = true)]
    Library,
    /// Starts an engine in a process of its own; used by `cold`.
    #[command(hide = true)]
    Bound(serving::BoundArgs),
    /// Launches instances; used by all that measure them.
    #[command(hide = true)]
    Launcher(serving::LauncherArgs),
    /// Opens a state in a process of its own; used by `keyservice`.
    #[command(hide = true)]
    KeyserviceStart {
        #[arg(long)]
        machine: PathBuf,
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        work: bool,
    },
}

fn main() -> ExitCode {
    // As the servers do: the engine that is measured alone has the same allocator, and the same of it.
    let _ = share_one_arena() && keep_what_is_freed();
    let done = match Cli::parse().what {
        What::Attest { runs, limit } => attest(runs, Duration::from_secs(limit)),
        What::Keyservice { grants, rounds } => {
            keyservice::run(grants as usize, rounds as usize).and_then(|report| print(&report))
        }
        What::Serving(what) => serving::run(what).and_then(|report| print(&report)),
        What::Library => serving::library().and_then(|library| print(&library)),
        What::Bound(args) => serving::bound(&args).and_then(|pieces| print(&pieces)),
        What::Launcher(args) => serving::launcher(&args),
        What::KeyserviceStart {
            machine,
            state,
            work,
        } => keyservice::start::child(&machine, &state, work),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn attest(runs: u32, limit: Duration) -> Result<(), BenchError> {
    stay_on_this_core()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(attest::run(runs, limit))?;
    print(&report)
}

fn print(report: &impl Serialize) -> Result<(), BenchError> {
    let json = serde_json::to_string(report).map_err(std::io::Error::other)?;
    writeln!(std::io::stdout(), "{json}")?;
    Ok(())
}

/// Threads that are started later stay on it too.
fn stay_on_this_core() -> std::io::Result<()> {
    let mut this = CpuSet::new();
    this.set(sched_getcpu());
    Ok(sched_setaffinity(None, &this)?)
}
