//! What an owner delegates. Whoever may grant could give a model to code of its own and read it there, so the owner says in which
//! code a grantor may grant: a grantor without approved code cannot be written down.

use minicbor::{Decode, Encode};

use crate::id::CodeIdentityDigest;

/// What a delegate may do in an owner's namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Grant in approved code, revoke, and change groups.
    #[n(0)]
    Grantor,
    /// Read the owner's part of the log and its grants.
    #[n(1)]
    Auditor,
}

impl Role {
    /// `grantor` or `auditor`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grantor => "grantor",
            Self::Auditor => "auditor",
        }
    }
}

/// A role, with what the owner approves for whoever gets it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Delegation {
    /// [`Role::Grantor`].
    #[n(0)]
    Grantor {
        /// The code in which it may let models be used: 1 to [`crate::limits::MAX_APPROVED_IDENTITIES`], in ascending order.
        #[n(0)]
        codes: Vec<CodeIdentityDigest>,
    },
    /// [`Role::Auditor`].
    #[n(1)]
    Auditor,
}

impl Delegation {
    /// Which role it gives.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Self::Grantor { .. } => Role::Grantor,
            Self::Auditor => Role::Auditor,
        }
    }

    /// The code in which it lets models be granted; none for a role that grants nothing.
    #[must_use]
    pub fn codes(&self) -> &[CodeIdentityDigest] {
        match self {
            Self::Grantor { codes } => codes,
            Self::Auditor => &[],
        }
    }
}
