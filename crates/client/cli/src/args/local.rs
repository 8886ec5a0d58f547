//! Arguments of the commands that need no other machine: the local stack, measurements, this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Also write the result as JSON to this file; `-` writes only that, to standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What runs the model. `onnxruntime` needs its library: `sesemi engines install`.
    #[arg(long, value_enum, default_value = "rten")]
    pub engine: EngineArg,
    /// Leave the stack running until Ctrl-C, and print how to talk to it.
    #[arg(long)]
    pub keep: bool,
    /// Folder of the binaries [default: that of this one].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Folder for all state; created if missing, used again if not.
    #[arg(
        long,
        env = "SESEMI_STATE",
        value_name = "DIR",
        default_value = "sesemi-stack"
    )]
    pub state: PathBuf,
    /// Port of KeyService on 127.0.0.1.
    #[arg(long, env = "SESEMI_KEYSERVICE_PORT", default_value_t = 7400)]
    pub keyservice_port: u16,
    /// Port of KeyService's health and metrics.
    #[arg(long, env = "SESEMI_ADMIN_PORT", default_value_t = 7401)]
    pub admin_port: u16,
    /// Port of the gateway.
    #[arg(long, env = "SESEMI_GATEWAY_PORT", default_value_t = 7402)]
    pub gateway_port: u16,
    /// Function endpoints of the gateway's pool.
    #[arg(long, default_value_t = 2)]
    pub endpoints: u16,
    /// Memory of the embedded serverless platform, in MiB.
    #[arg(long, default_value_t = 2048)]
    pub user_memory_mib: u32,
    /// Idle instances end after this many seconds.
    #[arg(long, default_value_t = 180)]
    pub idle_timeout: u32,
    /// How long a request waits for others that it may be run with, in milliseconds, 0 to 1000: see the guide to models [default: no
    /// batches].
    #[arg(long, value_name = "MS", default_value_t = 0, hide_default_value = true,
        value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub batch_window_ms: u16,
    /// Appraisal policy (TOML) that KeyService demands of enclaves' platforms [default: the strictest]. A state folder keeps the
    /// policy that it was founded with.
    #[arg(long, env = "SESEMI_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// What runs the models. `onnxruntime` needs its library: `sesemi engines install`. Each engine is a SeMIRT with a code
    /// identity of its own.
    #[arg(long, env = "SESEMI_ENGINE", value_enum, default_value = "rten")]
    pub engine: EngineArg,
    /// Address of OpenWhisk's REST interface before the stack's serverless platform, for OpenWhisk's own clients; port 0 picks one
    /// [default: there is none].
    #[arg(long, env = "SESEMI_OPENWHISK_LISTEN", value_name = "ADDRESS")]
    pub openwhisk_listen: Option<SocketAddr>,
    /// File with UUID:KEY that such clients must know; made, for its owner alone, if it is not there [default: `openwhisk.auth` in the
    /// state folder].
    #[arg(
        long,
        env = "SESEMI_OPENWHISK_AUTH",
        value_name = "FILE",
        requires = "openwhisk_listen"
    )]
    pub openwhisk_auth: Option<PathBuf>,
    /// Write down everything that the host sees of requests, in the state folder under `tap`.
    #[arg(long)]
    pub tap: bool,
    /// Folder for traces (OTLP/JSON lines): each process makes a file in it; created if missing.
    #[arg(long, env = "SESEMI_TRACES", value_name = "DIR")]
    pub traces: Option<PathBuf>,
    /// Print the facts as one line of JSON once all parts run.
    #[arg(long)]
    pub json: bool,
    /// Folder of the binaries [default: that of this one].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// In the program, pure Rust, nothing to install.
    Rten,
    /// ONNX Runtime: faster, and a shared library.
    Onnxruntime,
}

/// What can be done with the libraries of engines.
#[derive(Debug, Subcommand)]
pub enum EnginesCommand {
    /// Fetch an engine's library with pip, and put it where the other commands look for it.
    ///
    /// Version and SHA-256 are fixed in this program: whatever else comes is refused. It needs Python 3 with pip, and heeds its
    /// settings for package indexes and proxies; no code of the package is run.
    #[command(
        after_help = "Examples:\n  sesemi engines install\n  sesemi engines install --to engines --json"
    )]
    Install {
        /// The engine.
        #[arg(long, value_enum, default_value = "onnxruntime")]
        engine: Installable,
        /// The folder of engines [default: $XDG_DATA_HOME/sesemi/engines].
        #[arg(long, env = "SESEMI_ENGINES", value_name = "DIR")]
        to: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say which engines there are, and which libraries are installed and unchanged.
    #[command(after_help = "Example:\n  sesemi engines list --json")]
    List {
        /// The folder of engines [default: $XDG_DATA_HOME/sesemi/engines].
        #[arg(long, env = "SESEMI_ENGINES", value_name = "DIR")]
        from: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// An engine with a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Installable {
    /// ONNX Runtime.
    Onnxruntime,
}

/// Arguments of `measure`: one source of measurements.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["binary", "sgx_sigstruct", "reference"])))]
pub struct MeasureArgs {
    /// A trusted program, as the simulated TEE will measure it.
    pub binary: Option<PathBuf>,
    /// A shared library that the program is given, as `simtee run --library` gives it; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sgx_sigstruct", "reference"])]
    pub library: Vec<PathBuf>,
    /// What gramine-sgx-sign wrote: NAME.sig, or NAME.manifest.sgx with NAME.sig beside it.
    #[arg(long, value_name = "FILE")]
    pub sgx_sigstruct: Option<PathBuf>,
    /// Reference values of TDX, SEV-SNP or SGX in TOML; docs/guides/attestation.md describes them.
    #[arg(long, value_name = "FILE")]
    pub reference: Option<PathBuf>,
    /// Which TEE the simulator plays.
    #[arg(long, value_enum, default_value = "sgx", conflicts_with_all = ["sgx_sigstruct", "reference"])]
    pub tee: Simulated,
    /// Root certificate (DER) of the simulated platform [default: SESEMI_SIMULATED_ROOT, or the one in the stack's file].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sgx_sigstruct", "reference"])]
    pub simulated_root: Option<PathBuf>,
    /// The stack.toml that `sesemi up` wrote; only its simulated root is used, and only for a binary.
    #[arg(long, env = "SESEMI_STACK", value_name = "FILE")]
    pub stack: Option<PathBuf>,
    /// Folder of simtee [default: that of this binary].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A TEE that the simulator plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Simulated {
    /// An SGX enclave.
    Sgx,
    /// A TDX domain.
    Tdx,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Folder of the binaries [default: that of this one].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
