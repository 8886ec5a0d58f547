//! What principals ask KeyService, and what it answers. Questions are signed, because answers depend on who asks; answers go
//! back on the attested channel and hold no key but a custodian's own share.

use minicbor::{Decode, Encode};

use crate::audit::AuditItem;
use crate::cbor;
use crate::command::{Delegation, GrantedVersions, KeyScope, Subject};
use crate::cose::sign1;
use crate::id::{
    AliasName, CodeIdentityDigest, Digest, GroupName, ModelId, ModelName, ModelRef, ModelTarget,
    ModelVersion, PrincipalId, ServiceId,
};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::isolation::Isolation;
use crate::limits::MAX_SIGNED;
use crate::receipt::{Point, SignedError};
use crate::refusal::RefusalCode;
use crate::release::RequestKeyName;

const LABEL: &str = "sesemi/v1/query";

/// How far the time of a query may be from the service's, in seconds. A query is good for that long at most, should anybody
/// get hold of it.
pub const MAX_SKEW: u64 = 600;

/// A question of one principal to one service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Query {
    /// The service it is for; any other refuses it.
    #[n(0)]
    pub service: ServiceId,
    /// When it was asked, in seconds since 1970, by the asker's clock.
    #[n(1)]
    pub at: u64,
    /// The newest point of the service's log that the asker has seen.
    #[n(2)]
    pub seen: Point,
    /// What is asked.
    #[n(3)]
    pub question: Question,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Question {
    /// An owner's grants. For the owner, its grantors and its auditors.
    #[n(0)]
    Grants {
        /// Whose.
        #[n(0)]
        owner: PrincipalId,
        /// Those of one model, or of all.
        #[n(1)]
        name: Option<ModelName>,
        /// Those with ids above this one.
        #[n(2)]
        after: u64,
    },
    /// The grants that let the asker use models, through groups too.
    #[n(1)]
    GrantsToMe {
        /// Those with ids above this one.
        #[n(0)]
        after: u64,
    },
    /// Why a release would be allowed or refused now. For the user, and for the owner of the model, its grantors and its
    /// auditors.
    #[n(2)]
    Explain {
        /// The user who would ask.
        #[n(0)]
        user: PrincipalId,
        /// For which model.
        #[n(1)]
        model: ModelTarget,
        /// In which code.
        #[n(2)]
        code: CodeIdentityDigest,
        /// With which request key; `None` for any that the user has.
        #[n(3)]
        key: Option<RequestKeyName>,
    },
    /// The log, with what concerns one principal. For that principal and its auditors.
    #[n(3)]
    Audit {
        /// Whose view.
        #[n(0)]
        of: PrincipalId,
        /// From the entry after this one on.
        #[n(1)]
        after: u64,
    },
    /// The asker's request keys, without the keys, and without those that have ended and were forgotten.
    #[n(4)]
    RequestKeys {
        /// How many to leave out.
        #[n(0)]
        after: u64,
    },
    /// An owner's models, versions and aliases. For the owner, its grantors and its auditors.
    #[n(5)]
    Models {
        /// Whose.
        #[n(0)]
        owner: PrincipalId,
        /// Those with names after this one.
        #[n(1)]
        after: Option<ModelName>,
    },
    /// An owner's groups and delegations. For the owner, its grantors and its auditors.
    #[n(6)]
    People {
        /// Whose.
        #[n(0)]
        owner: PrincipalId,
        /// How many to leave out: groups' members come first, then delegates.
        #[n(1)]
        after: u64,
    },
    /// The asker's recovery share. For custodians.
    #[n(7)]
    Share,
}

impl Query {
    /// Signs the query.
    ///
    /// # Errors
    /// [`SignedError`] if it is above the limits.
    pub fn sign(&self, principal: &SigningIdentity) -> Result<Vec<u8>, SignedError> {
        Ok(sign1::sign(principal, LABEL, &cbor::encode(self)?)?)
    }
}

/// A query whose form is checked, before its signature is.
#[derive(Debug)]
pub struct UnverifiedQuery<'a>(sign1::Unverified<'a>);

/// Checks the form of a signed query.
///
/// # Errors
/// [`SignedError`] if it is not one.
pub fn parse(bytes: &[u8]) -> Result<UnverifiedQuery<'_>, SignedError> {
    Ok(UnverifiedQuery(sign1::parse(bytes)?))
}

impl UnverifiedQuery<'_> {
    /// Who claims to have signed it.
    #[must_use]
    pub fn claimed_principal(&self) -> PrincipalId {
        PrincipalId(self.0.claimed_signer())
    }

    /// Verifies the signature with the key that the service has on record.
    ///
    /// # Errors
    /// [`SignedError`] if it is not authentic or not well-formed.
    pub fn verify(&self, principal: &PublicIdentity) -> Result<Query, SignedError> {
        Ok(cbor::decode(self.0.verify(principal, LABEL)?, MAX_SIGNED)?)
    }
}

/// An answer. Lists come in pages; an empty page is the end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum QueryAnswer {
    /// To [`Question::Grants`] and [`Question::GrantsToMe`]: in ascending order of their ids.
    #[n(0)]
    Grants(#[n(0)] Vec<GrantView>),
    /// To [`Question::Explain`].
    #[n(1)]
    Explanation(#[n(0)] Explanation),
    /// To [`Question::Audit`].
    #[n(2)]
    Audit {
        /// The point before the first item.
        #[n(0)]
        from: Point,
        /// Entries that follow each other.
        #[n(1)]
        items: Vec<AuditItem>,
    },
    /// To [`Question::RequestKeys`].
    #[n(3)]
    RequestKeys(#[n(0)] Vec<RequestKeyView>),
    /// To [`Question::Models`]: in ascending order of their names.
    #[n(4)]
    Models(#[n(0)] Vec<ModelView>),
    /// To [`Question::People`].
    #[n(5)]
    People(#[n(0)] Vec<PersonView>),
    /// To [`Question::Share`].
    #[n(6)]
    Share(#[n(0)] crate::share::Share),
}

/// A grant as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GrantView {
    /// Its id: the log position of the command that made it.
    #[n(0)]
    pub id: u64,
    /// The model.
    #[n(1)]
    pub model: ModelId,
    /// Which versions.
    #[n(2)]
    pub versions: GrantedVersions,
    /// For whom.
    #[n(3)]
    pub subject: Subject,
    /// In which code.
    #[n(4)]
    pub codes: Vec<CodeIdentityDigest>,
    /// Until when, in seconds since 1970.
    #[n(5)]
    pub expires: Option<u64>,
    /// For people.
    #[n(6)]
    pub note: String,
    /// Who made it: the owner or a grantor.
    #[n(7)]
    pub by: PrincipalId,
}

/// A request key as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RequestKeyView {
    /// Its scope.
    #[n(0)]
    pub scope: KeyScope,
    /// Its epoch.
    #[n(1)]
    pub epoch: u32,
    /// SHA-256 of the key.
    #[n(2)]
    pub key: Digest,
    /// The code that may open what it seals.
    #[n(3)]
    pub codes: Vec<CodeIdentityDigest>,
    /// Until when it is accepted, in seconds since 1970.
    #[n(4)]
    pub ends: Option<u64>,
    /// How far requests that it seals are kept apart, at least.
    #[n(5)]
    pub isolation: Isolation,
}

/// A model as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ModelView {
    /// Its name.
    #[n(0)]
    pub name: ModelName,
    /// Its versions; those that were retired are left out.
    #[n(1)]
    pub versions: Vec<VersionView>,
    /// Its aliases.
    #[n(2)]
    pub aliases: Vec<AliasView>,
    /// Its own lease in seconds.
    #[n(3)]
    pub lease_seconds: Option<u32>,
}

/// A version as it is listed. A short array: a model has thousands of them, and is listed in one message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct VersionView {
    /// Its number.
    #[n(0)]
    pub version: ModelVersion,
    /// How far requests for it are kept apart, at least.
    #[n(1)]
    pub isolation: Isolation,
}

/// An alias as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AliasView {
    /// Its name.
    #[n(0)]
    pub alias: AliasName,
    /// Where it points to.
    #[n(1)]
    pub version: ModelVersion,
}

/// Somebody with a place in an owner's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PersonView {
    /// A member of a group.
    #[n(0)]
    Member {
        /// The group.
        #[n(0)]
        group: GroupName,
        /// The user.
        #[n(1)]
        user: PrincipalId,
    },
    /// A delegate.
    #[n(1)]
    Delegate {
        /// Who.
        #[n(0)]
        to: PrincipalId,
        /// May do what, and in which code.
        #[n(1)]
        delegation: Delegation,
        /// Until when, in seconds since 1970.
        #[n(2)]
        expires: Option<u64>,
    },
}

/// Why a release would be allowed or refused: what the decision looked at, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Explanation {
    /// The version that would run, if it is allowed.
    #[n(0)]
    pub allowed: Option<ModelRef>,
    /// Why not, if it is refused.
    #[n(1)]
    pub refused: Option<RefusalCode>,
    /// For how many seconds keys would be released; 0 if refused.
    #[n(2)]
    pub seconds: u32,
    /// What was found, one condition after the other; at most [`MAX_PAGE`](crate::limits::MAX_PAGE).
    #[n(3)]
    pub findings: Vec<Finding>,
    /// What the lease would demand, if it is allowed: the stricter of what the owner asked for with the version and the user
    /// with the request key.
    #[n(4)]
    pub isolation: Option<Isolation>,
}

/// One thing that a decision found.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Finding {
    /// The user is registered, or not.
    #[n(0)]
    User(#[n(0)] bool),
    /// The target means this version, or none that is there.
    #[n(1)]
    Version(#[n(0)] Option<ModelVersion>),
    /// A grant to the user or one of its groups was looked at.
    #[n(2)]
    Grant {
        /// Its id.
        #[n(0)]
        id: u64,
        /// Whether it allows the release.
        #[n(1)]
        verdict: GrantVerdict,
    },
    /// A request key was looked at.
    #[n(3)]
    RequestKey {
        /// Which.
        #[n(0)]
        name: RequestKeyName,
        /// Whether it allows the release.
        #[n(1)]
        verdict: KeyVerdict,
    },
}

/// What a decision makes of one grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum GrantVerdict {
    /// It allows the release.
    #[n(0)]
    Allows,
    /// It is for other versions, or for an alias that was not asked for.
    #[n(1)]
    OtherVersion,
    /// It is for other code.
    #[n(2)]
    OtherCode,
    /// It has ended.
    #[n(3)]
    Expired,
}

/// What a decision makes of one request key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyVerdict {
    /// It allows the release.
    #[n(0)]
    Allows,
    /// There is none.
    #[n(1)]
    Missing,
    /// It is approved for other code.
    #[n(2)]
    OtherCode,
    /// It has ended.
    #[n(3)]
    Ended,
}
