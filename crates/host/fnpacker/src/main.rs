//! The `sesemi-fnpacker` program: flags to configuration, signals to shutdown, and nothing else.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sesemi_fnpacker::settings::{Settings, SettingsError};
use sesemi_fnpacker::{Config, Listening, serve_local};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const EXAMPLES: &str = "\
Examples:
  Two endpoints of 512 MiB on a simulated TEE, on a port of the system's choice:
    sesemi-fnpacker serve --listen 127.0.0.1:0 --log-dir logs \\
        --launcher './simtee run --state simtee --' --image ./sesemi-semirt \\
        --image-arg=serve --image-arg=--config --image-arg=/etc/sesemi/semirt.toml

  Eight endpoints that share memory for four, configured by a file, one value overridden:
    sesemi-fnpacker serve --config fnpacker.toml --user-memory-mib 2048

  The same file's keys are the flags' names:
    image = \"/usr/bin/sesemi-semirt\"
    image-arg = [\"serve\", \"--config\", \"/etc/sesemi/semirt.toml\"]
    image-env = { SESEMI_LOG = \"info\" }
    endpoints = 8
    log-dir = \"/var/log/sesemi\"

  The same, and OpenWhisk's own clients can make actions of the image and invoke them:
    sesemi-fnpacker serve --config fnpacker.toml --openwhisk-listen 127.0.0.1:3233 --openwhisk-auth openwhisk.auth
    wsk --apihost http://127.0.0.1:3233 --auth \"$(cat openwhisk.auth)\" action create a --docker semirt

A request:
  curl --data-binary @request.cose -H 'sesemi-model: my-model' http://127.0.0.1:8080/v1/infer

Flags win over environment variables, which win over the file. SESEMI_LOG filters the log on stderr (default: info).";

/// Packs many models onto a pool of function endpoints. Sees ciphertext only.
#[derive(Parser)]
#[command(name = "sesemi-fnpacker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway with the embedded serverless platform behind it
    #[command(after_help = EXAMPLES)]
    Serve {
        /// TOML file with any of the settings below
        #[arg(long, value_name = "FILE", env = "SESEMI_FNPACKER_CONFIG")]
        config: Option<PathBuf>,
        /// Stop when the process that started this one ends, however it ends
        #[arg(long)]
        die_with_parent: bool,
        #[command(flatten)]
        settings: Box<Settings>,
    },
}

fn main() -> ExitCode {
    let Command::Serve {
        config: file,
        die_with_parent,
        settings,
    } = Cli::parse().command;
    if die_with_parent
        && let Err(error) =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
    {
        eprintln!("error: cannot watch the parent process: {error}");
        return ExitCode::FAILURE;
    }
    let config = match configure(file, *settings) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let filter = EnvFilter::try_from_env("SESEMI_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Told on standard error, where it cannot be written either, it would be a panic.
        .log_internal_errors(false)
        .init();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { error, hint }) => {
            tracing::error!(error, hint, "the gateway does not run");
            ExitCode::FAILURE
        }
    }
}

fn configure(file: Option<PathBuf>, settings: Settings) -> Result<Config, SettingsError> {
    let settings = match file {
        Some(file) => settings.over(Settings::read(&file)?),
        None => settings,
    };
    Ok(settings.into_config()?)
}

struct Failed {
    error: String,
    hint: &'static str,
}

fn run(config: Config) -> Result<(), Failed> {
    let system = |error: std::io::Error| Failed {
        error: error.to_string(),
        hint: "the system refused a resource",
    };
    let version = env!("CARGO_PKG_VERSION");
    // Ends last: what the others record at their end is still written.
    let _traces = sesemi_traces::server(config.traces.as_ref(), "sesemi-fnpacker", version)
        .map_err(|error| Failed {
            error: error.to_string(),
            hint: "correct --traces, or leave it out",
        })?;
    let runtime = tokio::runtime::Runtime::new().map_err(system)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let shutdown = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let served = serve_local(config, announce, shutdown).await;
        served.map_err(|error| Failed {
            hint: error.hint(),
            error: error.to_string(),
        })
    })
}

/// One line on stdout for whoever started this. If nobody reads it, that is no reason to stop.
fn announce(listening: Listening) {
    let mut line =
        serde_json::json!({"event": "listening", "address": listening.gateway.to_string()});
    if let (Some(address), Some(line)) = (listening.openwhisk, line.as_object_mut()) {
        line.insert("openwhisk".to_owned(), address.to_string().into());
    }
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
