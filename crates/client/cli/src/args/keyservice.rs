//! Arguments of `sesemi keyservice`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Who;
use crate::connection::ConnectionArgs;

/// What can be done with a KeyService.
#[derive(Debug, Subcommand)]
pub enum KeyserviceCommand {
    /// Name the custodians, who hold the recovery shares and approve upgrades. Once, and before any key is deposited.
    #[command(after_help = "Example (any two of the three recover the service):\n  \
        sesemi keyservice init --custodian A --custodian B --custodian C --threshold 2 \\\n    \
        --identity operator.identity")]
    Init {
        /// A custodian's id; 2 to 16 of them, each registered.
        #[arg(long = "custodian", required = true, value_name = "ID")]
        custodians: Vec<String>,
        /// How many of them act together: 2 to all.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(2..=16))]
        threshold: u8,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Fetch your recovery share, as a custodian. Keep it offline: enough of them open the service's state.
    #[command(
        after_help = "Example:\n  sesemi keyservice share --out my.share --identity custodian.identity"
    )]
    Share {
        /// The new file; only you can read it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Show what a KeyService is: its evidence, its policy, its log, its custodians, its approved upgrades.
    #[command(after_help = "Example:\n  sesemi keyservice status --admin http://127.0.0.1:7401")]
    Status {
        /// Its address for health and metrics, as http://HOST:PORT [default: that of the stack].
        #[arg(long, value_name = "URL")]
        admin: Option<String>,
        /// The service.
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a running service's state to a file. It is sealed: whoever has it learns no key.
    #[command(after_help = "Example:\n  \
        sesemi keyservice backup --admin http://127.0.0.1:7401 --out keyservice.backup")]
    Backup {
        /// Its address for health and metrics, as http://HOST:PORT [default: that of the stack].
        #[arg(long, value_name = "URL")]
        admin: Option<String>,
        /// The file; it is replaced once the copy is whole.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The service.
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a state folder from a backup. Clients who saw more than the backup holds will refuse the service.
    #[command(
        after_help = "Example:\n  sesemi keyservice restore keyservice.backup --state new-state"
    )]
    Restore {
        /// What `backup` wrote.
        backup: PathBuf,
        /// The new state folder.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Folder of the binaries [default: that of this one].
        #[arg(long, env = "SESEMI_BIN_DIR", value_name = "DIR")]
        bin_dir: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hand recovery shares to a service that cannot open its state: on another machine, or after its code changed.
    #[command(after_help = "Example:\n  sesemi keyservice recover --share my.share")]
    Recover {
        /// A custodian's share; may be given several times. Custodians may also run this one after the other.
        #[arg(long = "share", required = true, value_name = "FILE")]
        shares: Vec<PathBuf>,
        /// The service. Its evidence and its code are verified before any share is sent.
        #[command(flatten)]
        connection: ConnectionArgs,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Approve, as a custodian, that the service is handed over to other code.
    #[command(after_help = "Example (the same policy as now):\n  \
        sesemi keyservice approve-upgrade --code DIGEST --identity custodian.identity")]
    ApproveUpgrade {
        /// The successor's code identity; `sesemi measure` prints it.
        #[arg(long, value_name = "DIGEST")]
        code: String,
        /// The successor's policy, as `sesemi policy` prints its digest [default: the policy of this connection].
        #[arg(long, value_name = "DIGEST")]
        successor_policy: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}
