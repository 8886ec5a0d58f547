//! The `sesemi` binary: parse, run, and say in one sentence what went wrong.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;
use sesemi_cli::args::{Cli, Command};
use sesemi_cli::error::CliError;
use sesemi_cli::{commands, demo, doctor, endorsements, engines, measure, up};
use sesemi_process::lifecycle::exit_code;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit_code(Err(CliError::Process("the runtime", error))),
    };
    exit_code(runtime.block_on(run(cli.command)))
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Up(args) => up::run(args).await,
        Command::Identity { command } => commands::identity(command),
        Command::Register(who) => commands::register(who).await,
        Command::Model { command } => commands::model(command).await,
        Command::Access { command } => commands::access(*command).await,
        Command::Group { command } => commands::group(command).await,
        Command::Delegate { command } => commands::delegate(command).await,
        Command::Key { command } => commands::key(command).await,
        Command::Infer(args) => commands::infer(args).await,
        Command::Audit { command } => commands::audit(command).await,
        Command::Keyservice { command } => commands::keyservice(*command).await,
        Command::Policy(args) => commands::policy(args),
        Command::Status(args) => commands::status(args).await,
        Command::Measure(args) => measure::run(args).await,
        Command::Engines { command } => engines::run(command),
        Command::Endorsements(args) => endorsements::run(args).await,
        Command::Doctor(args) => doctor::run(&args),
    }
}
