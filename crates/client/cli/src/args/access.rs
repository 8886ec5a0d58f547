//! Arguments of `sesemi access`, `sesemi group` and `sesemi delegate`.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::Who;
use crate::times::moment;

/// What can be done about access.
#[derive(Debug, Subcommand)]
pub enum AccessCommand {
    /// Grant a model to a user or a group, in enclaves that run certain code. Prints the grant's id.
    #[command(after_help = "Examples:\n  \
        sesemi access grant OWNER/breast-cancer@1 USER --identity owner.identity\n  \
        sesemi access grant OWNER/breast-cancer@stable --group clinic --expires 2027-01-31 \\\n    \
        --note trial --identity owner.identity\n  \
        sesemi access grant OWNER/breast-cancer USER --code OLD --code NEW --identity owner.identity")]
    Grant(GrantArgs),
    /// End grants. Requests are served until the leases that are out have ended.
    #[command(after_help = "Example:\n  sesemi access revoke 17 23 --identity owner.identity")]
    Revoke {
        /// The grants' ids, as `access grant` and `access list` print them.
        #[arg(required = true, value_name = "ID")]
        grants: Vec<u64>,
        /// Whose models [default: your own].
        #[arg(long, value_name = "ID")]
        owner: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// List grants: of your models, of those of an owner who delegated that to you, or to you.
    #[command(after_help = "Examples:\n  \
        sesemi access list --model OWNER/breast-cancer --identity owner.identity\n  \
        sesemi access list --to-me --identity user.identity")]
    List {
        /// Only of this model, as OWNER/NAME.
        #[arg(long, value_name = "MODEL", conflicts_with_all = ["owner", "to_me"])]
        model: Option<String>,
        /// Whose models [default: your own].
        #[arg(long, value_name = "ID", conflicts_with = "to_me")]
        owner: Option<String>,
        /// The grants that let you use models.
        #[arg(long)]
        to_me: bool,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Say why a request would be served or refused now: which grant allows it, or which condition fails.
    #[command(after_help = "Examples:\n  \
        sesemi access explain OWNER/breast-cancer@stable --identity user.identity\n  \
        sesemi access explain OWNER/breast-cancer@1 --user USER --key model/2 --identity owner.identity")]
    Explain(ExplainArgs),
}

/// Arguments of `access grant`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("subject").required(true).args(["user", "group"])))]
pub struct GrantArgs {
    /// The model: OWNER/NAME@VERSION, OWNER/NAME@ALIAS for requests that name the alias, or OWNER/NAME for all versions.
    pub model: String,
    /// The user's id.
    pub user: Option<String>,
    /// A group of the owner's, instead of a user.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Code identity of the enclaves; may be given several times [default: SeMIRT's in the stack].
    #[arg(long, value_name = "DIGEST")]
    pub code: Vec<String>,
    /// When it ends: 2027-01-31 (its first moment, UTC), 2027-01-31T12:00:00Z, or from now 30d, 12h, 15m [default: when revoked].
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub expires: Option<u64>,
    /// For people, at most 256 bytes.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Who grants, and where.
    #[command(flatten)]
    pub who: Who,
}

/// Arguments of `access explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The model, as OWNER/NAME@VERSION or OWNER/NAME@ALIAS.
    pub model: String,
    /// The user who would ask [default: you].
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// In which code [default: SeMIRT's in the stack].
    #[arg(long, value_name = "DIGEST")]
    pub code: Option<String>,
    /// With which request key: model/EPOCH or all/EPOCH [default: any].
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Who asks, and where.
    #[command(flatten)]
    pub who: Who,
}

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Put a user into a group, which exists from then on.
    #[command(after_help = "Example:\n  sesemi group add clinic USER --identity owner.identity")]
    Add {
        /// The group's name.
        group: String,
        /// The user's id.
        user: String,
        /// Whose group [default: your own].
        #[arg(long, value_name = "ID")]
        owner: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Take a user out of a group.
    #[command(after_help = "Example:\n  sesemi group remove clinic USER --identity owner.identity")]
    Remove {
        /// The group's name.
        group: String,
        /// The user's id.
        user: String,
        /// Whose group [default: your own].
        #[arg(long, value_name = "ID")]
        owner: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// List groups and their members.
    #[command(after_help = "Example:\n  sesemi group list --identity owner.identity")]
    List {
        /// Whose groups [default: your own].
        #[arg(long, value_name = "ID")]
        owner: Option<String>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Grant in code that you approve, revoke, and change groups that have no grants in other code.
    Grantor,
    /// Read your part of the log and your grants.
    Auditor,
}

/// What can be done with delegations.
#[derive(Debug, Subcommand)]
pub enum DelegateCommand {
    /// Give somebody a role in your namespace, in place of what it had in that role. It cannot be passed on, and reads no key.
    #[command(after_help = "Examples:\n  \
        sesemi delegate add PRINCIPAL --role grantor --expires 30d --identity owner.identity\n  \
        sesemi delegate add PRINCIPAL --role grantor --code OLD --code NEW --identity owner.identity\n  \
        sesemi delegate add PRINCIPAL --role auditor --identity owner.identity")]
    Add {
        /// To whom: an id.
        to: String,
        /// Which role.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Code identity of the enclaves in which a grantor may let models be used; may be given several times [default:
        /// SeMIRT's in the stack].
        #[arg(long, value_name = "DIGEST")]
        code: Vec<String>,
        /// When it ends: 2027-01-31, 2027-01-31T12:00:00Z, or from now 30d, 12h [default: when ended].
        #[arg(long, value_name = "TIME", value_parser = moment)]
        expires: Option<u64>,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// Take a role back. Grants that were made with it stay; revoke those by themselves.
    #[command(
        after_help = "Example:\n  sesemi delegate end PRINCIPAL --role grantor --identity owner.identity"
    )]
    End {
        /// From whom: an id.
        to: String,
        /// Which role.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
    /// List who has a role in your namespace.
    #[command(after_help = "Example:\n  sesemi delegate list --identity owner.identity")]
    List {
        /// Who, and where.
        #[command(flatten)]
        who: Who,
    },
}
