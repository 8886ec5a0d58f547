//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::connection::ConnectionArgs;
use crate::endorsements::EndorsementsArgs;

/// SeSeMI: secure serverless model inference on sensitive data.
///
/// Models and inputs are opened only inside a trusted execution environment whose code both the model's owner and the user
/// approved.
#[derive(Debug, Parser)]
#[command(
    name = "sesemi",
    version,
    after_help = "Try it:\n  \
    sesemi demo                    the whole system on this machine, with a simulated TEE\n  \
    sesemi up --state my-stack     the same stack in the foreground, for the other commands"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `sesemi` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the main job end to end on this machine: encrypted model, encrypted inputs, attested key release.
    #[command(after_help = "Example:\n  sesemi demo --json out.json")]
    Demo(DemoArgs),
    /// Run a local stack (simulated TEE) in the foreground until Ctrl-C.
    #[command(after_help = "Example:\n  sesemi up --state my-stack\n\
        Then, in another terminal:\n  \
        export SESEMI_STACK=my-stack/stack.toml\n  \
        sesemi identity new owner.identity")]
    Up(UpArgs),
    /// Make or show an identity of a model owner or user.
    Identity {
        /// What to do.
        #[command(subcommand)]
        command: IdentityCommand,
    },
    /// Make yourself known to KeyService. Every other command does so by itself; users do it before they are granted.
    #[command(after_help = "Example:\n  sesemi register --identity user.identity")]
    Register(Who),
    /// Work with models.
    Model {
        /// What to do.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Grant a user a model of yours, in enclaves that run one code.
    #[command(
        after_help = "Example:\n  sesemi grant OWNER/breast-cancer@1 USER --identity owner.identity"
    )]
    Grant(GrantArgs),
    /// Deposit your request key for a model, for enclaves that run one code.
    #[command(after_help = "Example:\n  sesemi key OWNER/breast-cancer@1 --identity user.identity")]
    Key(KeyArgs),
    /// Send inputs, sealed, to a model and print the outputs.
    #[command(after_help = "Example (one row of a CSV file as input):\n  \
        sesemi infer OWNER/breast-cancer@1 --identity user.identity --csv held-out.csv --rows 3")]
    Infer(InferArgs),
    /// Verify KeyService's evidence and show what it says, and ask the gateway for its state.
    #[command(after_help = "Example:\n  sesemi status --json")]
    Status(StatusArgs),
    /// Print a code identity before anything runs: what owners and users approve.
    ///
    /// From what an SGX signing tool wrote, from reference values of a TDX or SEV-SNP image, or from a program for the
    /// simulated TEE. Nothing is started and nothing is asked over the network.
    #[command(after_help = "Examples:\n  \
        sesemi measure --sgx-sigstruct sesemi-semirt.sig\n  \
        sesemi measure --reference semirt-tdx.toml --json\n  \
        sesemi measure target/x86_64-unknown-linux-gnu/release/sesemi-semirt \\\n    \
        --simulated-root my-stack/platform/public/root.der\n  \
        sesemi measure sesemi-semirt --tee tdx --stack my-stack/stack.toml")]
    Measure(MeasureArgs),
    /// Fetch what TEE makers publish about their platforms, and write the file that verifiers read (--endorsements).
    ///
    /// From a PCCS or Intel for SGX and TDX, from AMD for SEV-SNP. All of it is signed by the makers, so neither the service nor
    /// the way to it needs trust: signatures and dates are checked when evidence is verified. Over https the service must speak
    /// TLS 1.3 and have a certificate that this machine trusts (SSL_CERT_FILE names others). Redirects are not followed.
    #[command(after_help = "Examples:\n  \
        sesemi endorsements --pccs https://api.trustedservices.intel.com \\\n    \
        --tee tdx --fmspc 00906ED50000 --out endorsements.json\n  \
        sesemi endorsements --pccs http://127.0.0.1:8081 --evidence quote.bin --out endorsements.json\n  \
        sesemi endorsements --amd milan --evidence report.bin --out endorsements.json --add")]
    Endorsements(EndorsementsArgs),
    /// Say what this machine offers: which TEE, as host or guest, and which measures of the operating system.
    ///
    /// It looks, and changes nothing. It ends with 0 whatever it finds; read what it says.
    #[command(after_help = "Examples:\n  sesemi doctor\n  sesemi doctor --json | jq .protects")]
    Doctor(DoctorArgs),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Also write the result as JSON to this file; `-` writes only that, to standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
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
    /// Write down everything that the host sees of requests, in the state folder under `tap`.
    #[arg(long)]
    pub tap: bool,
    /// Print the facts as one line of JSON once all parts run.
    #[arg(long)]
    pub json: bool,
    /// Folder of the binaries [default: that of this one].
    #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

/// What can be done with identities.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Make a new identity in a file that only you can read.
    #[command(after_help = "Example:\n  sesemi identity new owner.identity")]
    New {
        /// The new file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the id of an identity.
    #[command(after_help = "Example:\n  sesemi identity show owner.identity")]
    Show {
        /// The identity's file.
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Encrypt an ONNX model, upload it, and register its key.
    #[command(
        after_help = "Example:\n  sesemi model push models/breast-cancer/breast-cancer.onnx \\\n    \
        --name breast-cancer --model-version 1 --identity owner.identity"
    )]
    Push(PushArgs),
}

/// Whose identity, and which stack.
#[derive(Debug, Args)]
pub struct Who {
    /// Your identity's file.
    #[arg(long, env = "SESEMI_IDENTITY", value_name = "FILE")]
    pub identity: PathBuf,
    /// The system to talk to.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `model push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The ONNX file, with all weights inside.
    pub file: PathBuf,
    /// The model's name: a-z, 0-9, '.', '_' and '-'.
    #[arg(long)]
    pub name: String,
    /// The version, from 1. A version never changes; push the next one instead.
    #[arg(long, default_value_t = 1)]
    pub model_version: u32,
    /// Who pushes, and where.
    #[command(flatten)]
    pub who: Who,
}

/// Arguments of `grant`.
#[derive(Debug, Args)]
pub struct GrantArgs {
    /// The model, as OWNER/NAME@VERSION.
    pub model: String,
    /// The user's id.
    pub user: String,
    /// Code identity of the enclaves [default: SeMIRT's in the stack].
    #[arg(long, value_name = "DIGEST")]
    pub code: Option<String>,
    /// Who grants, and where.
    #[command(flatten)]
    pub who: Who,
}

/// Arguments of `key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The model, as OWNER/NAME@VERSION.
    pub model: String,
    /// Code identity of the enclaves that may open your requests; may be given several times, and replaces what you approved
    /// before [default: SeMIRT's in the stack].
    #[arg(long, value_name = "DIGEST")]
    pub code: Vec<String>,
    /// Who deposits, and where.
    #[command(flatten)]
    pub who: Who,
}

/// Arguments of `infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model, as OWNER/NAME@VERSION.
    pub model: String,
    /// A CSV file with a header; each row is one input. The columns' order is the features' order. A column named `label`
    /// is not sent, and shown beside the answer.
    #[arg(long, value_name = "FILE")]
    pub csv: PathBuf,
    /// How many rows to send, each as a request of its own.
    #[arg(long, default_value = "1", value_parser = rows)]
    pub rows: usize,
    /// Name of the model's input.
    #[arg(long, default_value = "features")]
    pub input: String,
    /// Who asks, and where.
    #[command(flatten)]
    pub who: Who,
}

fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a number of rows from 1".into()),
        Ok(rows) => Ok(rows),
    }
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The system to talk to.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `measure`: one source of measurements.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["binary", "sgx_sigstruct", "reference"])))]
pub struct MeasureArgs {
    /// A trusted program, as the simulated TEE will measure it.
    pub binary: Option<PathBuf>,
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
