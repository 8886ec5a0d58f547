//! The command line.

mod access;
mod audit;
mod compile;
mod isolation;
mod key;
mod keyservice;
mod local;
mod model;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use access::{AccessCommand, DelegateCommand, ExplainArgs, GrantArgs, GroupCommand, RoleArg};
pub use audit::{AuditCommand, AuditVerifyArgs};
pub use compile::{CompileArgs, CompileEngine, Prepack};
pub use isolation::{IsolationArgs, LevelArg};
pub use key::{KeyCommand, ScopeArgs};
pub use keyservice::KeyserviceCommand;
pub use local::{
    DemoArgs, DoctorArgs, EngineArg, EnginesCommand, Installable, MeasureArgs, Simulated, UpArgs,
};
pub use model::{ModelCommand, PushArgs};

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
    /// Push models, retire versions, move aliases.
    Model {
        /// What to do.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Grant models to users and groups, revoke, list, and explain.
    Access {
        /// What to do.
        #[command(subcommand)]
        command: Box<AccessCommand>,
    },
    /// Groups of users, whom models are granted to together.
    Group {
        /// What to do.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Let others grant your models, or read your part of the log. No role reads keys.
    Delegate {
        /// What to do.
        #[command(subcommand)]
        command: DelegateCommand,
    },
    /// Deposit, rotate and end the keys that your requests are sealed with.
    Key {
        /// What to do.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Send inputs, sealed, to a model and print the outputs.
    ///
    /// From a CSV file of numbers, row by row, or from a JSON file with inputs of any types and shapes. Texts (BYTES) are JSON strings;
    /// a tensor with other bytes than UTF-8 has all its elements in base64, and "parameters": {"content_type": "base64"}.
    #[command(after_help = "Examples:\n  \
        sesemi infer OWNER/breast-cancer@1 --identity user.identity --csv held-out.csv --rows 3\n  \
        sesemi infer OWNER/reviews@1 --identity user.identity --inputs reviews.json\n\
        where reviews.json is as in requests of the Open Inference Protocol:\n  \
        {\"inputs\": [{\"name\": \"review\", \"datatype\": \"BYTES\", \"shape\": [2], \"data\": [\"good\", \"bad\"]}]}")]
    Infer(InferArgs),
    /// Read KeyService's log, export it, and verify an export offline.
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Found, look at, back up, recover and upgrade a KeyService.
    Keyservice {
        /// What to do.
        #[command(subcommand)]
        command: Box<KeyserviceCommand>,
    },
    /// Print the digest of an appraisal policy: what custodians approve, and clients compare.
    #[command(
        after_help = "Examples:\n  sesemi policy deploy/policies/keyservice-cloud.toml\n  sesemi policy"
    )]
    Policy(PolicyArgs),
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
        sesemi measure sesemi-semirt --tee tdx --stack my-stack/stack.toml\n  \
        sesemi measure sesemi-semirt-onnxruntime --library libonnxruntime.so --stack my-stack/stack.toml")]
    Measure(MeasureArgs),
    /// Libraries of inference engines: fetch them, and see which are there.
    Engines {
        /// What to do.
        #[command(subcommand)]
        command: EnginesCommand,
    },
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

/// Whose identity, and which system.
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

/// Arguments of `infer`.
#[derive(Debug, Args)]
pub struct InferArgs {
    /// The model, as OWNER/NAME@VERSION or OWNER/NAME@ALIAS.
    pub model: String,
    /// A CSV file with a header; each row is one input. The columns' order is the features' order. A column named `label`
    /// is not sent, and shown beside the answer.
    #[arg(long, value_name = "FILE", required_unless_present = "inputs")]
    pub csv: Option<PathBuf>,
    /// A JSON file with all inputs of one request: {"inputs": [{"name", "datatype", "shape", "data"}]}. With --json the outputs are
    /// printed in the same form, so that one of them can be an input of the next request.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "rows", "input"])]
    pub inputs: Option<PathBuf>,
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

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// The policy (TOML) [default: the one that KeyService has without a file].
    pub file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push((path, sub.clone()));
            }
        }
    }

    #[test]
    fn every_command_shows_an_example_that_it_understands() {
        Cli::command().debug_assert();
        let mut found = Vec::new();
        leaves(&Cli::command(), "sesemi", &mut found);
        assert!(found.len() >= 30, "{}", found.len());
        for (path, command) in found {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            assert!(help.contains(&path), "{path} shows no example");
            let joined = help.replace("\\\n", " ");
            for line in joined.lines().map(str::trim) {
                if !line.starts_with(&path) {
                    continue;
                }
                let line = line.split(['|', '#']).next().unwrap();
                let words = line.split_whitespace();
                // Where the identity comes from is up to the environment in some examples.
                let parsed = Cli::try_parse_from(words);
                let wrong = parsed
                    .err()
                    .filter(|e| e.kind() != clap::error::ErrorKind::MissingRequiredArgument);
                assert!(wrong.is_none(), "{line}\n{}", wrong.unwrap());
            }
        }
    }

    #[test]
    fn every_command_speaks_json() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "sesemi", &mut found);
        for (path, command) in found {
            let json = command.get_arguments().any(|arg| arg.get_id() == "json");
            assert!(json, "{path}");
        }
    }
}
