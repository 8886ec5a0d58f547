//! What a command asks for. Everything is in the namespace of one principal; whoever else is named gains or loses by it.
//!
//! No action holds a secret. A key that comes with a command travels beside it, and the action holds the key's SHA-256: so a
//! signed command can be shown to an auditor as it is, and still proves which key its signer meant.

use minicbor::{Decode, Encode};

use super::delegation::{Delegation, Role};
use crate::id::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelVersion, PrincipalId,
};
use crate::isolation::{Isolation, QuantumError};
use crate::limits::{
    MAX_APPROVED_IDENTITIES, MAX_CUSTODIANS, MAX_LEASE_SECONDS, MAX_NOTE, MAX_REVOKED,
};

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Makes the signer known. The only command whose signer the service does not know yet, so it brings its key along.
    #[n(0)]
    Register {
        /// The signer's Ed25519 public key.
        #[cbor(n(0), with = "minicbor::bytes")]
        public_key: [u8; 32],
    },
    /// An owner registers a new version of a model; the key of its package comes beside the command. A version never changes
    /// afterwards.
    #[n(1)]
    PutModel {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The version.
        #[n(1)]
        version: ModelVersion,
        /// SHA-256 of the key of this version's package.
        #[n(2)]
        key: Digest,
        /// Digest of the manifest inside the package, so that no other package can stand for this version.
        #[n(3)]
        manifest: Digest,
        /// How far requests for this version are kept apart, at least: users may ask for more.
        #[n(4)]
        isolation: Isolation,
    },
    /// An owner withdraws a version for good: its key is forgotten, its number is never used again, and aliases that point
    /// to it are gone.
    #[n(2)]
    RetireModel {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The version.
        #[n(1)]
        version: ModelVersion,
    },
    /// An owner points an alias to a version, whether it pointed to another before or not.
    #[n(3)]
    SetAlias {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The alias.
        #[n(1)]
        alias: AliasName,
        /// The version.
        #[n(2)]
        version: ModelVersion,
    },
    /// An owner takes an alias away.
    #[n(4)]
    RemoveAlias {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The alias.
        #[n(1)]
        alias: AliasName,
    },
    /// An owner sets for how long released keys of a model may be used: the time that a revocation takes at most.
    #[n(5)]
    SetLease {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The time in seconds, 1 to 3600; `None` for the service's own.
        #[n(1)]
        seconds: Option<u32>,
    },
    /// An owner, or somebody it delegated granting to, lets users use a model in enclaves with certain code identities. A
    /// delegate grants in code of its delegation only. The grant's id is the log position of this command.
    #[n(6)]
    Grant {
        /// Whose model.
        #[n(0)]
        owner: PrincipalId,
        /// Which model.
        #[n(1)]
        name: ModelName,
        /// Which versions of it.
        #[n(2)]
        versions: GrantedVersions,
        /// Who may use it.
        #[n(3)]
        subject: Subject,
        /// In which code: at least one.
        #[n(4)]
        codes: Vec<CodeIdentityDigest>,
        /// When the grant ends, in seconds since 1970; `None` if only revocation ends it.
        #[n(5)]
        expires: Option<u64>,
        /// For people.
        #[n(6)]
        note: String,
    },
    /// Ends grants; all of them must be there.
    #[n(7)]
    Revoke {
        /// Whose models.
        #[n(0)]
        owner: PrincipalId,
        /// The grants' ids.
        #[n(1)]
        grants: Vec<u64>,
    },
    /// Puts a user into a group, which exists from then on.
    #[n(8)]
    AddMember {
        /// Whose group.
        #[n(0)]
        owner: PrincipalId,
        /// The group.
        #[n(1)]
        group: GroupName,
        /// The user.
        #[n(2)]
        user: PrincipalId,
    },
    /// Takes a user out of a group.
    #[n(9)]
    RemoveMember {
        /// Whose group.
        #[n(0)]
        owner: PrincipalId,
        /// The group.
        #[n(1)]
        group: GroupName,
        /// The user.
        #[n(2)]
        user: PrincipalId,
    },
    /// An owner gives somebody a role in its namespace. Nobody who has one can pass it on, and no role reads keys. Grants that
    /// were made with an earlier delegation stay as they are.
    #[n(10)]
    Delegate {
        /// To whom.
        #[n(0)]
        to: PrincipalId,
        /// What it may do, and in which code. It takes the place of what this principal had in this role before.
        #[n(1)]
        delegation: Delegation,
        /// When it ends, in seconds since 1970.
        #[n(2)]
        expires: Option<u64>,
    },
    /// An owner takes a role back. Grants that were made with it stay.
    #[n(11)]
    EndDelegation {
        /// From whom.
        #[n(0)]
        to: PrincipalId,
        /// Which role.
        #[n(1)]
        role: Role,
    },
    /// A user deposits the key that its requests are sealed with; the key comes beside the command. Depositing the same key
    /// again sets the approved code and the isolation anew; another key needs a higher epoch.
    #[n(12)]
    PutRequestKey {
        /// Which models' requests it seals.
        #[n(0)]
        scope: KeyScope,
        /// Number of this key among the user's keys of this scope, from 1; requests name it.
        #[n(1)]
        epoch: u32,
        /// SHA-256 of the key.
        #[n(2)]
        key: Digest,
        /// The code that may open the user's requests: at least one.
        #[n(3)]
        codes: Vec<CodeIdentityDigest>,
        /// How far requests that it seals are kept apart from others, at least: a model's owner may ask for more.
        #[n(4)]
        isolation: Isolation,
        /// When earlier epochs of this scope end, in seconds since 1970; `None` leaves them as they are.
        #[n(5)]
        earlier_end: Option<u64>,
    },
    /// A user ends a request key, at once or later. Once it has ended it is forgotten, and never comes back.
    #[n(13)]
    EndRequestKey {
        /// The key's scope.
        #[n(0)]
        scope: KeyScope,
        /// The key's epoch.
        #[n(1)]
        epoch: u32,
        /// When, in seconds since 1970; at once if that has passed.
        #[n(2)]
        at: u64,
    },
    /// Names the custodians of the service, who hold its recovery shares and approve its upgrades. Once, and only before the
    /// first key was deposited.
    #[n(14)]
    NameCustodians {
        /// Who they are: 2 to 16 registered principals, in ascending order.
        #[n(0)]
        custodians: Vec<PrincipalId>,
        /// How many of them recover the service or approve an upgrade together: 2 to all.
        #[n(1)]
        threshold: u8,
    },
    /// A custodian approves that the service is handed over to other code, or goes on under another appraisal policy. Its
    /// newest approval takes the place of an earlier one.
    #[n(15)]
    ApproveUpgrade {
        /// The successor's code.
        #[n(0)]
        code: CodeIdentityDigest,
        /// Digest of the policy by which the successor appraises enclaves.
        #[n(1)]
        policy: Digest,
    },
}

/// Which versions of a model a grant covers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum GrantedVersions {
    /// All, those to come too.
    #[n(0)]
    All,
    /// One.
    #[n(1)]
    Exact(#[n(0)] ModelVersion),
    /// The one that an alias points to, for requests that ask for the alias.
    #[n(2)]
    Alias(#[n(0)] AliasName),
}

/// Whom a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Subject {
    /// One user.
    #[n(0)]
    User(#[n(0)] PrincipalId),
    /// The members of a group of the model's owner.
    #[n(1)]
    Group(#[n(0)] GroupName),
}

/// Which models' requests a request key seals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum KeyScope {
    /// Requests for any model.
    #[n(0)]
    AllModels,
    /// Requests for all versions of one model.
    #[n(1)]
    Model(#[n(0)] ModelId),
}

/// What is wrong with an action, whatever the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// An approval of no code at all, or of very much, is a mistake.
    #[error("approve 1 to {MAX_APPROVED_IDENTITIES} code identities, each once")]
    Codes,
    /// The note is too long, or could play tricks on a terminal.
    #[error("a note is at most {MAX_NOTE} bytes, without control characters")]
    Note,
    /// The lease is out of range.
    #[error("a lease is 1 to {MAX_LEASE_SECONDS} seconds")]
    Lease,
    /// Nothing, too much or the same twice is revoked.
    #[error("revoke 1 to {MAX_REVOKED} grants in one command, in ascending order")]
    Revoked,
    /// The custodians cannot work together.
    #[error(
        "name 2 to {MAX_CUSTODIANS} custodians in ascending order, and a threshold from 2 to their number"
    )]
    Custodians,
    /// Epochs begin at 1.
    #[error("epochs of request keys begin at 1")]
    Epoch,
    /// Responses would wait for too long.
    #[error(transparent)]
    Quantum(#[from] QuantumError),
}

impl Action {
    /// Checks what needs no state: bounds and order.
    ///
    /// # Errors
    /// [`ActionError`].
    pub fn check(&self) -> Result<(), ActionError> {
        match self {
            Self::Grant { codes, note, .. } => {
                check_codes(codes)?;
                check_note(note)
            }
            Self::Delegate {
                delegation: Delegation::Grantor { codes },
                ..
            } => check_codes(codes),
            Self::PutModel { isolation, .. } => Ok(isolation.check()?),
            Self::PutRequestKey {
                codes,
                epoch,
                isolation,
                ..
            } => {
                check_codes(codes)?;
                ensure(*epoch > 0, ActionError::Epoch)?;
                Ok(isolation.check()?)
            }
            Self::SetLease {
                seconds: Some(seconds),
                ..
            } => ensure(
                (1..=MAX_LEASE_SECONDS).contains(seconds),
                ActionError::Lease,
            ),
            Self::Revoke { grants, .. } => ensure(
                (1..=MAX_REVOKED).contains(&grants.len()) && ascending(grants),
                ActionError::Revoked,
            ),
            Self::NameCustodians {
                custodians,
                threshold,
            } => ensure(
                (2..=MAX_CUSTODIANS).contains(&custodians.len())
                    && ascending(custodians)
                    && (2..=custodians.len()).contains(&usize::from(*threshold)),
                ActionError::Custodians,
            ),
            _ => Ok(()),
        }
    }

    /// SHA-256 of the key that must come beside the command, if one must.
    #[must_use]
    pub fn key(&self) -> Option<&Digest> {
        match self {
            Self::PutModel { key, .. } | Self::PutRequestKey { key, .. } => Some(key),
            _ => None,
        }
    }

    /// Whose namespace the command changes, if it is another's than the signer's.
    #[must_use]
    pub fn owner(&self) -> Option<&PrincipalId> {
        match self {
            Self::Grant { owner, .. }
            | Self::Revoke { owner, .. }
            | Self::AddMember { owner, .. }
            | Self::RemoveMember { owner, .. } => Some(owner),
            _ => None,
        }
    }
}

fn ensure(holds: bool, error: ActionError) -> Result<(), ActionError> {
    if holds { Ok(()) } else { Err(error) }
}

fn check_codes(codes: &[CodeIdentityDigest]) -> Result<(), ActionError> {
    let counted = (1..=MAX_APPROVED_IDENTITIES).contains(&codes.len());
    ensure(counted && ascending(codes), ActionError::Codes)
}

fn check_note(note: &str) -> Result<(), ActionError> {
    let harmless = !note.chars().any(char::is_control);
    ensure(note.len() <= MAX_NOTE && harmless, ActionError::Note)
}

/// Ascending order names everything once, and a set in one way only.
fn ascending<T: PartialOrd>(items: &[T]) -> bool {
    items
        .iter()
        .zip(items.iter().skip(1))
        .all(|(before, after)| before < after)
}
