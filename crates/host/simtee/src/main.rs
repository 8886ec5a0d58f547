//! `simtee`: creates a simulated TEE, measures programs and runs them in it.
//!
//! The main thread starts the enclave and waits for it, because the kernel kills the enclave when the thread that
//! started it ends; another thread forwards signals.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use serde_json::json;
use sesemi_simtee::{Enclave, FMSPC, Image, InitOutcome, Machine, Signaller, StopSignal};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A simulated TEE: processor, quoting enclave and provisioning service in one program.
///
/// It runs programs as simulated enclaves that can quote and seal as on SGX. It does NOT protect them: root can read
/// their memory, and neither EPC size, transition costs nor side channels are simulated. Production roots refuse its
/// quotes.
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
    #[command(after_help = "Example:\n  simtee measure --json ./sesemi-semirt")]
    Measure {
        /// The program: a 64-bit ELF file, statically linked.
        binary: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run a program as a simulated enclave.
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
        /// Stop when the process that started this one ends, however it ends.
        #[arg(long)]
        die_with_parent: bool,
        /// The program: a 64-bit ELF file, statically linked.
        #[arg(last = true, required = true, num_args = 1.., value_names = ["BINARY", "ARGS"])]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init { state, json } => init(&state, json),
        Command::Measure { binary, json } => measure(&binary, json),
        Command::Run {
            state,
            die_with_parent,
            command,
        } => run(&state, die_with_parent, &command),
    };
    result.unwrap_or_else(|error| {
        report(error.as_ref());
        ExitCode::FAILURE
    })
}

fn init(state: &Path, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let (machine, outcome) = Machine::init(state, SystemTime::now())?;
    let (word, sentence) = match outcome {
        InitOutcome::Created => ("created", "created a simulated machine"),
        InitOutcome::Kept => ("kept", "kept the simulated machine that is already there"),
        InitOutcome::Renewed => (
            "renewed",
            "kept the simulated machine that is already there; renewed its collateral",
        ),
    };
    let expires = machine
        .collateral_expires()
        .duration_since(UNIX_EPOCH)?
        .as_secs();
    let (domain, ppid, fmspc) = (
        hex::encode(machine.trust_domain()),
        hex::encode(machine.ppid()),
        hex::encode(FMSPC),
    );
    let public = state.join("public");
    if json {
        print(
            &json!({
                "outcome": word,
                "state": state.to_string_lossy(),
                "public": public.to_string_lossy(),
                "trust_domain": domain,
                "ppid": ppid,
                "fmspc": fmspc,
                "collateral_expires": expires,
                "simulated": true,
            })
            .to_string(),
        )?;
    } else {
        print(&format!(
            "{sentence}: {}\npublic files  {}\ntrust domain  {domain}\nppid          {ppid}",
            state.display(),
            public.display(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(binary: &Path, json: bool) -> Result<ExitCode, Box<dyn Error>> {
    let image = Image::load(binary)?;
    let measurement = image.measurement();
    let (enclave, signer) = (
        hex::encode(measurement.mr_enclave),
        hex::encode(measurement.mr_signer),
    );
    if json {
        print(
            &json!({
                "mr_enclave": enclave,
                "mr_signer": signer,
                "isv_prod_id": measurement.isv_prod_id,
                "isv_svn": measurement.isv_svn,
                "config_id": hex::encode(measurement.config_id),
                "interpreter": image.interpreter(),
                "simulated": true,
            })
            .to_string(),
        )?;
    } else {
        print(&format!(
            "mr_enclave   {enclave}\nmr_signer    {signer}\nisv_prod_id  {}\nisv_svn      {}",
            measurement.isv_prod_id, measurement.isv_svn,
        ))?;
    }
    warn_if_dynamic(&image, binary);
    Ok(ExitCode::SUCCESS)
}

fn run(
    state: &Path,
    die_with_parent: bool,
    command: &[OsString],
) -> Result<ExitCode, Box<dyn Error>> {
    if die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    let (binary, arguments) = command.split_first().ok_or("no program was given")?;
    let machine = Machine::load(state)?;
    if machine.collateral_expires() < SystemTime::now() {
        warn(
            "the collateral has expired and verifiers will refuse this machine's quotes; run `simtee init` to renew it",
        );
    }
    let image = Image::load(Path::new(binary))?;
    warn_if_dynamic(&image, Path::new(binary));
    // From here on a signal waits until there is an enclave to forward it to.
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let mut enclave = image.launch(Arc::new(machine), arguments)?;
    forward(signals, enclave.signaller()?)?;
    let status = enclave.wait()?;
    report_device_failure(&mut enclave);
    Ok(exit_code(status))
}

fn forward(mut signals: Signals, signaller: Signaller) -> std::io::Result<()> {
    let forwarder = std::thread::Builder::new().name("simtee-signals".to_owned());
    forwarder.spawn(move || {
        for signal in signals.forever() {
            let stop = if signal == SIGINT {
                StopSignal::Interrupt
            } else {
                StopSignal::Terminate
            };
            if let Err(error) = signaller.send(stop) {
                report(&error);
            }
        }
    })?;
    Ok(())
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

fn report_device_failure(enclave: &mut Enclave) {
    if let Some(failure) = enclave.device_failure() {
        report(&failure);
    }
}

fn warn_if_dynamic(image: &Image, binary: &Path) {
    if let Some(interpreter) = image.interpreter() {
        warn(&format!(
            "{} is dynamically linked: its interpreter {interpreter} and its libraries are not measured; \
             a simulated enclave should be statically linked",
            binary.display(),
        ));
    }
}

fn print(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// Nothing can be done if the standard error is closed.
fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "simtee: warning: {text}");
}

/// One line: the error, then the chain of its causes.
fn report(error: &dyn Error) {
    let mut text = format!("simtee: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
