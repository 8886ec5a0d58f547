//! Arguments of `sesemi model`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{CompileArgs, IsolationArgs, Who};

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Make the forms of an ONNX model that engines load fast, check them against the original, and measure what they need.
    ///
    /// ONNX Runtime's form is made for processors like this one; the portable form is for all others, and is there if one of the
    /// engines runs it here, else a note says that it is not. Nothing is sent anywhere. `sesemi model push` takes the folder.
    #[command(after_help = "Examples:\n  \
        sesemi model compile resnet101.onnx --out resnet101 --budget-mib 512\n  \
        sesemi model compile det.onnx --out det --shape x=1x3x320x320 --tolerance 0.01\n  \
        sesemi model compile embed.onnx --out embed --shape input_ids=1x128 --range input_ids=0..30522\n  \
        sesemi model compile model.onnx --out model --engine rten --prepack off --json")]
    Compile(CompileArgs),
    /// Show a model's inputs, outputs and forms, of an ONNX file or a compiled folder.
    #[command(after_help = "Examples:\n  \
        sesemi model inspect models/breast-cancer/breast-cancer.onnx\n  \
        sesemi model inspect resnet101 --json")]
    Inspect {
        /// The ONNX file or the folder.
        path: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Encrypt a model, upload it, and register its key.
    #[command(
        after_help = "Example:\n  sesemi model push models/breast-cancer/breast-cancer.onnx \\\n    \
        --name breast-cancer --model-version 1 --identity owner.identity\n\n\
        All forms of a compiled model:\n  \
        sesemi model push resnet101 --name resnet101 --identity owner.identity\n\n\
        One request at a time, nothing kept between two, answers every 50 ms:\n  \
        sesemi model push model.onnx --name scans --isolation sequential --response-quantum-ms 50 \\\n    \
        --identity owner.identity"
    )]
    Push(PushArgs),
    /// Withdraw a version for good: its key is forgotten, its number is never used again.
    ///
    /// Requests for it are served until the leases that are out have ended.
    #[command(
        after_help = "Example:\n  sesemi model retire OWNER/breast-cancer@1 --identity owner.identity"
    )]
    Retire {
        /// The version, as OWNER/NAME@VERSION.
        model: String,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Point an alias to a version, or move it there. Requests that are under way finish on the version that they began with.
    #[command(
        after_help = "Example:\n  sesemi model alias OWNER/breast-cancer@2 stable --identity owner.identity"
    )]
    Alias {
        /// The version, as OWNER/NAME@VERSION.
        model: String,
        /// The alias: begins with a letter.
        alias: String,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Take an alias away.
    #[command(
        after_help = "Example:\n  sesemi model unalias OWNER/breast-cancer@stable --identity owner.identity"
    )]
    Unalias {
        /// The alias, as OWNER/NAME@ALIAS.
        model: String,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Set for how long released keys of a model may be used: the time that a revocation takes at most.
    #[command(after_help = "Examples:\n  \
        sesemi model lease OWNER/breast-cancer --seconds 10 --identity owner.identity\n  \
        sesemi model lease OWNER/breast-cancer --identity owner.identity")]
    Lease {
        /// The model, as OWNER/NAME.
        model: String,
        /// The time, 1 to 3600 seconds [default: the service's own].
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u32>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// List models with their versions, isolation and aliases.
    #[command(after_help = "Example:\n  sesemi model list --identity owner.identity")]
    List {
        /// Whose [default: your own].
        #[arg(long, value_name = "ID")]
        owner: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}

/// Arguments of `model push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The ONNX file, with all weights inside, or the folder that `sesemi model compile` made.
    pub file: PathBuf,
    /// The model's name: a-z, 0-9, '.', '_' and '-'.
    #[arg(long)]
    pub name: String,
    /// The version, from 1. A version never changes; push the next one instead.
    #[arg(long, default_value_t = 1)]
    pub model_version: u32,
    /// How far requests for this version are kept apart, at least [default: shared, no quantum]. It never changes either.
    #[command(flatten)]
    pub isolation: IsolationArgs,
    /// Who pushes, and where.
    #[command(flatten)]
    pub who: Who,
}
