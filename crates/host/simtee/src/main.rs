//! `simtee`: creates a simulated TEE, measures programs, runs them in it, serves its collateral, and makes it misbehave.

mod cli;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sesemi_simtee::Tee;

use crate::cli::fault::FaultCommand;
use crate::cli::{fault, machine, output, run, serve};

/// A simulated TEE: processor, quoting enclave and provisioning service in one program.
///
/// It runs programs as simulated enclaves that can quote and seal as on SGX, or as trust domains that can quote as on
/// TDX. It does NOT protect them: root can read their memory, and neither EPC size, transition costs nor side channels
/// are simulated. Production roots refuse its quotes.
#[derive(Parser)]
#[command(
    name = "simtee",
    version,
    after_help = "Example:\n  simtee init --state ./simtee-state\n  simtee run --state ./simtee-state -- ./program"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a simulated machine, or keep the one that is there.
    ///
    /// Keys of an existing machine are never replaced; its collateral is renewed when it has expired or soon will.
    #[command(after_help = "Example:\n  simtee init --state ./simtee-state")]
    Init {
        /// The directory of the machine's state; verifiers read its `public` subdirectory.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the measurement that a program will have.
    ///
    /// As an SGX enclave it is the SHA-256 of the file (MRENCLAVE), as a TDX trust domain the SHA-384 (MRTD, with all RTMRs
    /// zero). With libraries it is a digest over those of the program and of each library: see spec/simtee.md.
    #[command(
        after_help = "Example:\n  simtee measure --json ./sesemi-semirt\n  simtee measure --tee tdx ./sesemi-semirt"
    )]
    Measure {
        /// The kind of TEE.
        #[arg(long, value_enum, default_value_t)]
        tee: Tee,
        /// A shared library that the program is given; may be repeated. It is measured with the program.
        #[arg(long, value_name = "FILE")]
        library: Vec<PathBuf>,
        /// The program: a 64-bit ELF file, statically linked.
        binary: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a program as a simulated enclave or trust domain.
    ///
    /// The program's standard input is the device socket. SIGTERM and SIGINT are forwarded to it, and its exit code (128
    /// plus the signal's number, if a signal ended it) becomes simtee's.
    #[command(
        after_help = "Example:\n  simtee run --state platform -- ./sesemi-keyservice serve --state keys \\\n    --simulated-root platform/public/root.der --endorsements platform/public/collateral.json"
    )]
    Run {
        /// The directory of the machine's state.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// The kind of TEE. A trust domain gets quotes, but no sealing key: TDX has none.
        #[arg(long, value_enum, default_value_t)]
        tee: Tee,
        /// The security version of the program (ISVSVN), 1 if absent. In real SGX its signer sets it in the SIGSTRUCT. A
        /// program gets the sealing keys by signer of its own version and of older ones.
        #[arg(long, value_name = "N")]
        isv_svn: Option<u16>,
        /// A shared library that the program is given, the first as descriptor 3, the next as 4 and so on; may be repeated. Its
        /// content and name become part of the measurement.
        #[arg(long, value_name = "FILE")]
        library: Vec<PathBuf>,
        /// Stop when the process that started this one ends, however it ends.
        #[arg(long)]
        die_with_parent: bool,
        /// The program: a 64-bit ELF file, statically linked.
        #[arg(last = true, required = true, num_args = 1.., value_names = ["BINARY", "ARGS"])]
        command: Vec<OsString>,
    },
    /// Make a machine misbehave, so that tests can see who notices.
    ///
    /// A fault stays until `clear`; several add up. The public files are written anew, and what runs on the machine shows
    /// the fault with its next quote.
    #[command(
        after_help = "Example:\n  simtee fault --state ./simtee-state platform-revoked\n  simtee fault --state ./simtee-state tcb-status out-of-date\n  simtee fault --state ./simtee-state clock-offset -3000000\n  simtee fault --state ./simtee-state clear"
    )]
    Fault {
        /// The directory of the machine's state.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(subcommand)]
        command: FaultCommand,
    },
    /// Serve the collateral over HTTP, as a provisioning certification service (PCCS, version 4 of the API) does.
    ///
    /// Prints {"event":"listening","address":"IP:PORT"} when it is ready, and ends on SIGTERM or SIGINT.
    #[command(
        after_help = "Example:\n  simtee serve --state ./simtee-state --listen 127.0.0.1:8081\n  curl 'http://127.0.0.1:8081/tdx/certification/v4/qe/identity'"
    )]
    Serve {
        /// The directory of the machine's state.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Where to listen; port 0 takes one that is free.
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Stop when the process that started this one ends, however it ends.
        #[arg(long)]
        die_with_parent: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init { state, json } => machine::init(&state, json),
        Command::Measure {
            tee,
            library,
            binary,
            json,
        } => machine::measure(tee, &binary, &library, json),
        Command::Run {
            state,
            tee,
            isv_svn,
            library,
            die_with_parent,
            command,
        } => run::run(&state, tee, isv_svn, &library, die_with_parent, &command),
        Command::Fault {
            state,
            json,
            command,
        } => fault::fault(&state, json, command),
        Command::Serve {
            state,
            listen,
            die_with_parent,
        } => serve::serve(&state, listen, die_with_parent),
    };
    result.unwrap_or_else(|error| {
        output::report(error.as_ref());
        ExitCode::FAILURE
    })
}
