//! `sesemi-crash`: kills KeyService at random instants and compares. `cargo xtask crash` builds and runs it; people call that.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use sesemi_crash::error::CrashError;
use sesemi_crash::findings::Findings;
use sesemi_crash::lab::Programs;
use sesemi_testkit::in_one_line;

/// Kills KeyService at random instants, starts it again, and compares its state with what its clients hold.
#[derive(Parser)]
#[command(name = "sesemi-crash")]
struct Cli {
    /// The folder with `sesemi-keyservice` and `simtee`.
    #[arg(long, value_name = "DIR")]
    bin_dir: PathBuf,
    /// How often to kill it.
    #[arg(long, value_name = "N")]
    kills: u64,
    /// What the run's choices follow from [default: the time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(findings) if findings.clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Findings, CrashError> {
    let io = |source| CrashError::Io("this process".into(), source);
    let programs = Programs::in_folder(&cli.bin_dir);
    let seed = cli.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs())
    });
    eprintln!("seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io)?;
    let mut told = 0;
    let progress = |findings: &Findings| {
        let kills = findings.kills.total();
        if kills / 100 > told {
            told = kills / 100;
            eprintln!(
                "{kills} kills in {:.0} s: {} acknowledged, {} entries verified, {} recovered, {} lost, {} phantom, {} chain breaks",
                findings.seconds,
                findings.acknowledged,
                findings.entries,
                findings.recovered,
                findings.lost,
                findings.phantom,
                findings.chain_breaks
            );
        }
    };
    let findings = runtime.block_on(sesemi_crash::run(&programs, cli.kills, seed, progress))?;
    let json = serde_json::to_string(&findings).map_err(|error| io(error.into()))?;
    writeln!(std::io::stdout(), "{json}").map_err(io)?;
    Ok(findings)
}
