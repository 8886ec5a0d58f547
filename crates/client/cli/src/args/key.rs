//! Arguments of `sesemi key`.

use clap::{ArgGroup, Args, Subcommand};

use super::{IsolationArgs, Who};
use crate::times::moment;

/// Which models' requests a key seals.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("scope").required(true).args(["model", "all_models"])))]
pub struct ScopeArgs {
    /// The model, as OWNER/NAME: the key is for all of its versions.
    pub model: Option<String>,
    /// A key for every model that has none of its own.
    #[arg(long)]
    pub all_models: bool,
}

/// What can be done with request keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Deposit your request key, for enclaves that run certain code. Again, with other code, sets the approved code anew.
    #[command(after_help = "Examples:\n  \
        sesemi key deposit OWNER/breast-cancer --identity user.identity\n  \
        sesemi key deposit --all-models --code OLD --code NEW --identity user.identity\n  \
        sesemi key deposit OWNER/scans --isolation dedicated-user --identity user.identity")]
    Deposit {
        /// Which models.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Code that may open your requests; may be given several times, and replaces what you approved before [default:
        /// SeMIRT's in the stack].
        #[arg(long, value_name = "DIGEST")]
        code: Vec<String>,
        /// Number of the key [default: that of your newest of this scope, or 1]. Needed after every key of a scope has ended.
        #[arg(long, value_name = "NUMBER")]
        epoch: Option<u32>,
        /// How far requests that this key seals are kept apart [default: as before with this key; else as with the newest that has
        /// not ended of this scope, or else of all models; or shared].
        #[command(flatten)]
        isolation: IsolationArgs,
        /// Who deposits, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Replace a key by a new one. Requests that were sealed with earlier ones are served for a while yet.
    #[command(after_help = "Example:\n  \
        sesemi key rotate OWNER/breast-cancer --until 1h --identity user.identity")]
    Rotate {
        /// Which models.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Until when earlier keys are accepted: 2027-01-31, 2027-01-31T12:00:00Z, or from now 1h, 5m.
        #[arg(long, value_name = "TIME", value_parser = moment, default_value = "1h")]
        until: u64,
        /// Code that may open your requests; may be given several times [default: the code that is approved now].
        #[arg(long, value_name = "DIGEST")]
        code: Vec<String>,
        /// How far requests that the new key seals are kept apart [default: as with the key before it].
        #[command(flatten)]
        isolation: IsolationArgs,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// End a key, at once or later. It never comes back.
    #[command(after_help = "Example:\n  \
        sesemi key end OWNER/breast-cancer --epoch 1 --identity user.identity")]
    End {
        /// Which models.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Number of the key, as `key list` shows it.
        #[arg(long, value_name = "NUMBER")]
        epoch: u32,
        /// When: 2027-01-31, 2027-01-31T12:00:00Z, or from now 1h [default: at once].
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<u64>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// List your request keys, without the keys.
    #[command(after_help = "Example:\n  sesemi key list --identity user.identity")]
    List {
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}
