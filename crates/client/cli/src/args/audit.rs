//! Arguments of `sesemi audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Who;

/// What can be done with KeyService's log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the log: what concerns you, verified up to an end that the service signed.
    #[command(after_help = "Examples:\n  \
        sesemi audit log --identity owner.identity\n  \
        sesemi audit log --of OWNER --after 1000 --identity auditor.identity")]
    Log {
        /// Whose view [default: yours]. For an owner's auditors too.
        #[arg(long, value_name = "ID")]
        of: Option<String>,
        /// Show only what comes after this entry. The chain is verified from the first on all the same.
        #[arg(long, value_name = "ENTRY", default_value_t = 0)]
        after: u64,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Verify an exported log, offline: its chain, the service's signature, and all that you have seen of it.
    #[command(after_help = "Examples:\n  \
        sesemi audit verify audit.jsonl --identity owner.identity\n  \
        sesemi audit verify audit.jsonl --keyservice-id ID --receipt granted.json")]
    Verify(AuditVerifyArgs),
    /// Write the log to a file that can be verified without the service.
    #[command(
        after_help = "Example:\n  sesemi audit export --out audit.jsonl --identity owner.identity"
    )]
    Export {
        /// The new file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Whose view [default: yours].
        #[arg(long, value_name = "ID")]
        of: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// What `sesemi audit export` wrote.
    pub file: PathBuf,
    /// Service id that it must be of.
    #[arg(long, env = "SESEMI_KEYSERVICE_ID", value_name = "ID")]
    pub keyservice_id: Option<String>,
    /// An identity: what was kept beside its file of this service must be on the chain. May be given several times.
    #[arg(long, env = "SESEMI_IDENTITY", value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// What somebody else has seen of the log: a .seen file. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub seen: Vec<PathBuf>,
    /// A receipt: what a command printed with --json. May be given several times.
    #[arg(long, value_name = "FILE")]
    pub receipt: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
