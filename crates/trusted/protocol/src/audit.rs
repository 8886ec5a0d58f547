//! The log of a KeyService as its principals may see it: what was commanded, and which keys were released to which code.
//!
//! Entries are chained by hash. What is hashed holds no secret, so whoever an entry concerns can be shown it as it is; of all
//! other entries they get the digest. Both verify the chain, offline, up to a point that the service signed
//! ([`Receipt`](crate::receipt::Receipt), [`Head`](crate::receipt::Head)). A random salt in each entry keeps its digest from
//! being guessed.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode, Encoder};

use crate::cbor::{self, CborError};
use crate::command::{self, Action, Command, Subject};
use crate::id::{CodeIdentityDigest, Digest, ModelRef, PrincipalId};
use crate::limits::{MAX_ENTRY, MAX_SIGNED};
use crate::receipt::{Point, SignedError};
use crate::release::RequestKeyName;

/// What the chain covers of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Random: without it a digest of an entry could be guessed from what the entry probably says.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// When, in seconds since 1970, by the host's clock, but never before the entry before it.
    #[n(1)]
    pub at: u64,
    /// Where the signer's previous command stands in the log; 0 if there is none.
    #[n(2)]
    pub previous: u64,
    /// What happened.
    #[n(3)]
    pub record: Record,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// The service came into being: the first entry of every log.
    #[n(0)]
    Founded {
        /// The service's Ed25519 public key; its SHA-256 is the service's id.
        #[cbor(n(0), with = "minicbor::bytes")]
        public_key: [u8; 32],
        /// The code that founded it.
        #[n(1)]
        code: CodeIdentityDigest,
        /// Digest of the policy by which it appraises enclaves.
        #[n(2)]
        policy: Digest,
    },
    /// A command was carried out: its signed bytes, without the key that came beside it.
    #[n(1)]
    Command(#[n(0)] ByteVec),
    /// Keys were released.
    #[n(2)]
    Released(#[n(0)] Released),
    /// Newer endorsements were seen, so older evidence is not accepted any more.
    #[n(3)]
    Floor(#[n(0)] ByteVec),
    /// The service was handed over to other code and stops: the last entry that this code writes.
    #[n(4)]
    HandedOver {
        /// The successor's code.
        #[n(0)]
        code: CodeIdentityDigest,
        /// Digest of the successor's policy.
        #[n(1)]
        policy: Digest,
    },
    /// The code that the service was handed over to goes on.
    #[n(5)]
    TookOver {
        /// This code.
        #[n(0)]
        code: CodeIdentityDigest,
        /// Digest of its policy.
        #[n(1)]
        policy: Digest,
    },
    /// Custodians opened the state with their shares, for this code.
    #[n(6)]
    Recovered {
        /// This code.
        #[n(0)]
        code: CodeIdentityDigest,
        /// Digest of its policy.
        #[n(1)]
        policy: Digest,
        /// Which custodians' shares opened it: the numbers of the shares, from 1, in the order of the custodians.
        #[n(2)]
        shares: Vec<u8>,
    },
}

/// Keys were released to an enclave, once or several times on one connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Released {
    /// Whose request key.
    #[n(0)]
    pub user: PrincipalId,
    /// Which model version's key.
    #[n(1)]
    pub model: ModelRef,
    /// Which of the user's request keys.
    #[n(2)]
    pub key: RequestKeyName,
    /// The grant that allowed it.
    #[n(3)]
    pub grant: u64,
    /// The code that got them, by its evidence.
    #[n(4)]
    pub code: CodeIdentityDigest,
    /// SHA-256 of the evidence.
    #[n(5)]
    pub evidence: Digest,
    /// How often; the first release is recorded at once, renewals together.
    #[n(6)]
    pub times: u32,
    /// How many entries the log had when it was decided, the last time: what ended a right later than that could not count.
    #[n(7)]
    pub state: u64,
    /// When that was, in Unix seconds: the record itself may be written later.
    #[n(8)]
    pub last: u64,
}

/// Whom an entry concerns, and so who may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    /// Everybody: it is about the service itself.
    Everybody,
    /// These.
    Only(Vec<PrincipalId>),
}

impl Concerned {
    /// Whether `principal` may see it.
    #[must_use]
    pub fn includes(&self, principal: &PrincipalId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Only(principals) => principals.contains(principal),
        }
    }
}

/// Reads the public part of an entry.
///
/// # Errors
/// [`CborError`].
pub fn decode(public: &[u8]) -> Result<Entry, CborError> {
    cbor::decode(public, MAX_ENTRY)
}

impl Entry {
    /// The command in the entry and who signed it, if it is one. The signature is not verified.
    ///
    /// # Errors
    /// [`SignedError`] if its form is wrong.
    pub fn unverified_command(&self) -> Result<Option<(PrincipalId, Command)>, SignedError> {
        let Record::Command(signed) = &self.record else {
            return Ok(None);
        };
        let parsed = command::parse(signed)?;
        let command = cbor::decode(parsed.unverified_payload(), MAX_SIGNED)?;
        Ok(Some((parsed.claimed_principal(), command)))
    }

    /// Whom the entry concerns: for a command its signer, the owner of the namespace it changes, and the user it is about;
    /// for a release the model's owner and the user.
    ///
    /// # Errors
    /// [`SignedError`] if a command in it is malformed.
    pub fn concerned(&self) -> Result<Concerned, SignedError> {
        if let Record::Released(released) = &self.record {
            let owner = released.model.model.owner;
            return Ok(Concerned::Only(vec![owner, released.user]));
        }
        let Some((signer, command)) = self.unverified_command()? else {
            return Ok(Concerned::Everybody);
        };
        let mut principals = vec![signer];
        principals.extend(command.action.owner());
        match &command.action {
            Action::NameCustodians { .. } | Action::ApproveUpgrade { .. } => {
                return Ok(Concerned::Everybody);
            }
            Action::Grant {
                subject: Subject::User(user),
                ..
            }
            | Action::AddMember { user, .. }
            | Action::RemoveMember { user, .. } => principals.push(*user),
            Action::Delegate { to, .. } | Action::EndDelegation { to, .. } => principals.push(*to),
            _ => {}
        }
        Ok(Concerned::Only(principals))
    }
}

/// Where an entry belongs: deterministic CBOR of `[number, chain before it]`.
#[must_use]
pub fn place(sequence: u64, before: &Digest) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(48));
    // Writing to a Vec cannot fail.
    let _ = e
        .array(2)
        .and_then(|e| e.u64(sequence))
        .and_then(|e| e.bytes(before.as_bytes()));
    e.into_writer()
}

/// The point after an entry: SHA-256 over its place, which holds the chain before it, and the SHA-256 of its public part.
#[must_use]
pub fn extend(before: &Point, entry: &Digest) -> Point {
    let sequence = before.sequence.saturating_add(1);
    let mut bytes = place(sequence, &before.chain);
    bytes.extend_from_slice(entry.as_bytes());
    Point {
        sequence,
        chain: Digest::of(&bytes),
    }
}

/// One entry of an audit: shown to whom it concerns, a digest for others.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum AuditItem {
    /// The public part of the entry: see [`decode`].
    #[n(0)]
    Shown(#[n(0)] ByteVec),
    /// SHA-256 of the public part of an entry that concerns others.
    #[n(1)]
    Hidden(#[n(0)] Digest),
}

impl AuditItem {
    /// What the chain covers of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        match self {
            Self::Shown(public) => Digest::of(public),
            Self::Hidden(digest) => *digest,
        }
    }
}

/// The point after `items`, which follow each other from `before` on.
#[must_use]
pub fn follow(before: &Point, items: &[AuditItem]) -> Point {
    items
        .iter()
        .fold(*before, |point, item| extend(&point, &item.digest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ModelName, ModelVersion, ServiceId};
    use crate::{SecretKey, SigningIdentity};

    fn entry(record: Record) -> Entry {
        Entry {
            salt: [7; 16],
            at: 5,
            previous: 0,
            record,
        }
    }

    fn grant_by(signer: u8, owner: PrincipalId, user: PrincipalId) -> Entry {
        let signer = SigningIdentity::from_seed(SecretKey::from_bytes([signer; 32])).unwrap();
        let command = Command {
            service: ServiceId([1; 32]),
            sequence: 1,
            seen: Point::START,
            action: Action::Grant {
                owner,
                name: ModelName::new("m").unwrap(),
                versions: command::GrantedVersions::All,
                subject: Subject::User(user),
                codes: vec![CodeIdentityDigest([4; 32])],
                expires: None,
                note: String::new(),
            },
        };
        entry(Record::Command(command.sign(&signer).unwrap().into()))
    }

    #[test]
    fn an_entry_concerns_its_signer_the_owner_and_the_user_and_nobody_else() {
        let (owner, user) = (PrincipalId([2; 32]), PrincipalId([3; 32]));
        let entry = grant_by(1, owner, user);
        let (signer, _) = entry.unverified_command().unwrap().unwrap();
        let concerned = entry.concerned().unwrap();
        for principal in [signer, owner, user] {
            assert!(concerned.includes(&principal));
        }
        assert!(!concerned.includes(&PrincipalId([5; 32])));
        let released = Released {
            user,
            model: ModelRef::new(
                owner,
                ModelName::new("m").unwrap(),
                ModelVersion::new(1).unwrap(),
            ),
            key: RequestKeyName::model(1),
            grant: 3,
            code: CodeIdentityDigest([4; 32]),
            evidence: Digest([5; 32]),
            times: 1,
            state: 9,
            last: 10,
        };
        let concerned = self::entry(Record::Released(released)).concerned().unwrap();
        assert_eq!(concerned, Concerned::Only(vec![owner, user]));
    }

    #[test]
    fn hidden_entries_verify_the_chain_like_shown_ones() {
        let entries: Vec<Vec<u8>> = (1..5)
            .map(|n| cbor::encode(&grant_by(n, PrincipalId([n; 32]), PrincipalId([9; 32]))))
            .map(|bytes| bytes.unwrap().to_vec())
            .collect();
        let shown: Vec<AuditItem> = entries
            .iter()
            .map(|bytes| AuditItem::Shown(bytes.clone().into()))
            .collect();
        let end = follow(&Point::START, &shown);
        assert_eq!(end.sequence, 4);
        let mut mixed = shown.clone();
        mixed[2] = AuditItem::Hidden(shown[2].digest());
        assert_eq!(follow(&Point::START, &mixed), end);
        mixed.swap(0, 1);
        assert_ne!(follow(&Point::START, &mixed), end);
        assert_ne!(follow(&Point::START, &shown[1..]), end);
    }
}
