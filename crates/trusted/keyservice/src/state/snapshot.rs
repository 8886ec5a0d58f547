//! The whole state as bytes, so that a start need not replay a long log. What seals these bytes, and ties them to a point of
//! the log, is [`crate::log`]; here is only what they say.
//!
//! One CBOR array of sections, in the order in which they can be read back: whoever is named by number comes before.

use core::convert::Infallible;
use std::collections::HashMap;

use minicbor::decode::Error as DecodeError;
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder};
use sesemi_protocol::command::GrantedVersions;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, ModelName, ModelVersion,
    PrincipalId, PublicIdentity, SecretKey,
};
use zeroize::Zeroizing;

use super::State;
use super::governance::{Build, Governance};
use super::grants::{Codes, Grant, GrantSubject, Grants};
use super::models::{Model, ModelIx, Models, Version};
use super::people::{GroupIx, People, Right};
use super::principals::{Principal, PrincipalIx, Principals};
use super::request_keys::{KeyFor, RequestKey, RequestKeys};

const FORMAT: &str = "sesemi/v1/state-3";
const SECTIONS: u64 = 12;

type Encoded = Result<(), minicbor::encode::Error<Infallible>>;

/// Where writing cannot fail.
trait Sink: Write<Error = Infallible> {}

impl<W: Write<Error = Infallible>> Sink for W {}

/// Counts what is written to it.
struct Length(usize);

impl Write for Length {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(())
    }
}

/// Why bytes are not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot is authentic but cannot be read: {0}; it was written by another version")]
pub struct SnapshotError(String);

impl From<DecodeError> for SnapshotError {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

fn wrong(what: &'static str) -> DecodeError {
    DecodeError::message(what)
}

impl State {
    /// The state as bytes, which hold every key: they are wiped on drop, and must be sealed.
    #[must_use]
    pub fn to_snapshot(&self) -> Zeroizing<Vec<u8>> {
        let sets = self.code_sets();
        // Measured first: a buffer that grows leaves copies of keys behind. Neither of the two can fail.
        let mut measured = Encoder::new(Length(0));
        let _ = self.write(&mut measured, &sets);
        let mut e = Encoder::new(Vec::with_capacity(measured.writer().0));
        let _ = self.write(&mut e, &sets);
        Zeroizing::new(e.into_writer())
    }

    fn write<W: Sink>(&self, e: &mut Encoder<W>, sets: &[Codes]) -> Encoded {
        e.array(SECTIONS)?.str(FORMAT)?.encode(self.service)?;
        e.u64(self.last_at)?.bytes(&self.floor)?;
        write_governance(e, &self.governance)?;
        write_principals(e, &self.principals)?;
        write_models(e, &self.models)?;
        write_groups(e, &self.people)?;
        let mut numbers = HashMap::new();
        e.array(sets.len() as u64)?;
        for (number, set) in (0u32..).zip(sets) {
            e.encode(set.as_slice())?;
            numbers.insert(set.clone(), number);
        }
        write_delegations(e, &self.people, &numbers)?;
        write_grants(e, &self.grants, &numbers)?;
        write_request_keys(e, &self.request_keys, &numbers)
    }

    /// The sets of code identities that are in use, each once.
    fn code_sets(&self) -> Vec<Codes> {
        let mut seen = std::collections::HashSet::new();
        let of_grants = self.grants.iter().map(|(_, grant)| &grant.codes);
        let of_keys = self.request_keys.iter().map(|(_, _, _, key)| &key.codes);
        let delegations = self.people.delegations();
        let of_grantors = delegations.filter_map(|(_, _, right, _)| right.codes());
        of_grants
            .chain(of_keys)
            .chain(of_grantors)
            .filter(|codes| seen.insert((*codes).clone()))
            .cloned()
            .collect()
    }

    /// Reads the state at `point` back.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn from_snapshot(bytes: &[u8], point: Point) -> Result<Self, SnapshotError> {
        let mut d = Decoder::new(bytes);
        if (d.array()?, d.str()?) != (Some(SECTIONS), FORMAT) {
            return Err(wrong("another format").into());
        }
        let service = d.decode()?;
        let last_at = d.u64()?;
        let floor = d.bytes()?.to_vec();
        let governance = read_governance(&mut d)?;
        let principals = read_principals(&mut d)?;
        let models = read_models(&mut d)?;
        let mut people = read_groups(&mut d)?;
        let mut grants = Grants::default();
        let mut sets = Vec::new();
        each(&mut d, |set: Vec<CodeIdentityDigest>| {
            sets.push(grants.codes.intern(set));
            Ok(())
        })?;
        read_delegations(&mut d, &mut people, &sets)?;
        read_grants(&mut d, &mut grants, &sets)?;
        let request_keys = read_request_keys(&mut d, &sets)?;
        if d.position() != bytes.len() {
            return Err(wrong("more than a state").into());
        }
        Ok(Self {
            service,
            point,
            last_at,
            principals,
            models,
            grants,
            people,
            request_keys,
            governance,
            floor,
        })
    }
}

/// Reads an array whose items `take` takes one by one. Nothing is allocated by the length that it claims.
fn each<'b, T: Decode<'b, ()>>(
    d: &mut Decoder<'b>,
    mut take: impl FnMut(T) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let count = d.array()?.ok_or_else(|| wrong("an endless array"))?;
    for _ in 0..count {
        take(d.decode()?)?;
    }
    Ok(())
}

/// Writes an array of known length.
fn list<W: Sink, T: Encode<()>>(
    e: &mut Encoder<W>,
    length: usize,
    items: impl Iterator<Item = T>,
) -> Encoded {
    e.array(length as u64)?;
    for item in items {
        e.encode(item)?;
    }
    Ok(())
}

/// code and policy, custodians, threshold, their shares, whether a key was deposited, approvals, successor
type GovernanceRow = (
    Build,
    Vec<PrincipalId>,
    u8,
    Vec<SecretKey>,
    bool,
    Vec<(Build, Vec<PrincipalId>)>,
    Option<Build>,
);

fn write_governance<W: Sink>(e: &mut Encoder<W>, governance: &Governance) -> Encoded {
    let approvals = governance.approvals.iter();
    let row: GovernanceRow = (
        (governance.code, governance.policy),
        governance.custodians.clone(),
        governance.threshold,
        governance.shares.clone(),
        governance.keys_deposited,
        approvals
            .map(|(build, by)| (*build, by.iter().copied().collect()))
            .collect(),
        governance.successor,
    );
    e.encode(row)?.ok()
}

fn read_governance(d: &mut Decoder<'_>) -> Result<Governance, DecodeError> {
    let row: GovernanceRow = d.decode()?;
    let (build, custodians, threshold, shares, keys_deposited, approvals, successor) = row;
    let (code, policy) = build;
    Ok(Governance {
        code,
        policy,
        custodians,
        threshold,
        shares,
        keys_deposited,
        approvals: approvals
            .into_iter()
            .map(|(build, by)| (build, by.into_iter().collect()))
            .collect(),
        successor,
    })
}

fn write_principals<W: Sink>(e: &mut Encoder<W>, principals: &Principals) -> Encoded {
    let rows = principals.iter().map(|principal| {
        (
            Digest(*principal.identity.key()),
            principal.last_sequence,
            principal.last_position,
        )
    });
    list(e, principals.len(), rows)
}

fn read_principals(d: &mut Decoder<'_>) -> Result<Principals, DecodeError> {
    let mut principals = Principals::default();
    each(
        d,
        |(key, last_sequence, last_position): (Digest, u64, u64)| {
            let identity = PublicIdentity::from_key(key.0);
            principals.push(Principal {
                id: identity.principal_id(),
                identity,
                last_sequence,
                last_position,
            });
            Ok(())
        },
    )?;
    Ok(principals)
}

/// owner, name, versions with key, manifest and isolation unless retired, aliases, lease
type ModelRow = (
    u32,
    ModelName,
    Vec<(ModelVersion, Option<(SecretKey, Digest, Isolation)>)>,
    Vec<(AliasName, ModelVersion)>,
    Option<u32>,
);

fn write_models<W: Sink>(e: &mut Encoder<W>, models: &Models) -> Encoded {
    let rows = models.iter().map(|model| -> ModelRow {
        let versions = model.versions.iter().map(|(number, version)| {
            let version = version
                .as_ref()
                .map(|version| (version.key.clone(), version.manifest, version.isolation));
            (*number, version)
        });
        let aliases = model.aliases.iter();
        (
            model.owner.0,
            model.name.clone(),
            versions.collect(),
            aliases.map(|(alias, to)| (alias.clone(), *to)).collect(),
            model.lease_seconds,
        )
    });
    list(e, models.len(), rows)
}

fn read_models(d: &mut Decoder<'_>) -> Result<Models, DecodeError> {
    let mut models = Models::default();
    each(d, |row: ModelRow| {
        let (owner, name, versions, aliases, lease_seconds) = row;
        let versions = versions.into_iter().map(|(number, version)| {
            let version = version.map(|(key, manifest, isolation)| Version {
                key,
                manifest,
                isolation,
            });
            (number, version)
        });
        models.push(Model {
            owner: PrincipalIx(owner),
            name,
            versions: versions.collect(),
            aliases: aliases.into_iter().collect(),
            lease_seconds,
        });
        Ok(())
    })?;
    Ok(models)
}

fn write_groups<W: Sink>(e: &mut Encoder<W>, people: &People) -> Encoded {
    let rows = people.groups().map(|group| {
        let members: Vec<u32> = group.members.iter().map(|member| member.0).collect();
        (group.owner.0, group.name.clone(), members)
    });
    list(e, people.groups().count(), rows)
}

fn read_groups(d: &mut Decoder<'_>) -> Result<People, DecodeError> {
    let mut people = People::default();
    each(d, |(owner, name, members): (u32, GroupName, Vec<u32>)| {
        let owner = PrincipalIx(owner);
        people.push_group(owner, name.clone());
        for member in members {
            people.add_member(owner, name.clone(), PrincipalIx(member));
        }
        Ok(())
    })?;
    Ok(people)
}

/// owner, delegate, codes of a grantor (an auditor has none), expires
type DelegationRow = (u32, u32, Option<u32>, Option<u64>);

fn write_delegations<W: Sink>(
    e: &mut Encoder<W>,
    people: &People,
    numbers: &HashMap<Codes, u32>,
) -> Encoded {
    let delegations = people.delegations();
    let count = delegations.len();
    let rows = delegations.map(|(owner, to, right, expires)| -> DelegationRow {
        let codes = right.codes().map(|codes| number(numbers, codes));
        (owner.0, to.0, codes, expires)
    });
    list(e, count, rows)
}

fn read_delegations(
    d: &mut Decoder<'_>,
    people: &mut People,
    sets: &[Codes],
) -> Result<(), DecodeError> {
    each(d, |(owner, to, codes, expires): DelegationRow| {
        let right = match codes {
            Some(codes) => Right::Grantor(set(sets, codes)?),
            None => Right::Auditor,
        };
        people.delegate(PrincipalIx(owner), PrincipalIx(to), right, expires);
        Ok(())
    })
}

/// id, owner, model, versions, (is for a group, user or group), codes, expires, note, by
type GrantRow<'n> = (
    u64,
    u32,
    u32,
    GrantedVersions,
    (bool, u32),
    u32,
    Option<u64>,
    Option<&'n str>,
    u32,
);

fn write_grants<W: Sink>(
    e: &mut Encoder<W>,
    grants: &Grants,
    numbers: &HashMap<Codes, u32>,
) -> Encoded {
    let rows = grants.iter().map(|(id, grant)| -> GrantRow<'_> {
        let subject = match grant.subject {
            GrantSubject::User(user) => (false, user.0),
            GrantSubject::Group(group) => (true, group.0),
        };
        (
            id,
            grant.owner.0,
            grant.model.0,
            grant.versions.clone(),
            subject,
            number(numbers, &grant.codes),
            grant.expires,
            grant.note.as_deref(),
            grant.by.0,
        )
    });
    list(e, grants.len(), rows)
}

/// The number of a set, which is among those that are in use.
fn number(numbers: &HashMap<Codes, u32>, codes: &Codes) -> u32 {
    numbers.get(codes).copied().unwrap_or(u32::MAX)
}

fn set(sets: &[Codes], number: u32) -> Result<Codes, DecodeError> {
    usize::try_from(number)
        .ok()
        .and_then(|number| sets.get(number))
        .cloned()
        .ok_or_else(|| wrong("a set of codes is missing"))
}

fn read_grants(
    d: &mut Decoder<'_>,
    grants: &mut Grants,
    sets: &[Codes],
) -> Result<(), DecodeError> {
    each(d, |row: GrantRow<'_>| {
        let (id, owner, model, versions, (is_group, subject), codes, expires, note, by) = row;
        let subject = match is_group {
            false => GrantSubject::User(PrincipalIx(subject)),
            true => GrantSubject::Group(GroupIx(subject)),
        };
        let grant = Grant {
            owner: PrincipalIx(owner),
            model: ModelIx(model),
            versions,
            subject,
            codes: set(sets, codes)?,
            expires,
            note: note.map(Into::into),
            by: PrincipalIx(by),
        };
        grants.insert(id, grant);
        Ok(())
    })
}

/// user, model unless for all, epoch, key unless it ended, codes, isolation, end
type KeyRow = (
    u32,
    Option<u32>,
    u32,
    Option<SecretKey>,
    u32,
    Isolation,
    Option<u64>,
);

fn write_request_keys<W: Sink>(
    e: &mut Encoder<W>,
    keys: &RequestKeys,
    numbers: &HashMap<Codes, u32>,
) -> Encoded {
    let rows = keys.iter().map(|(user, scope, epoch, key)| -> KeyRow {
        let model = match scope {
            KeyFor::Model(model) => Some(model.0),
            KeyFor::AllModels => None,
        };
        let codes = number(numbers, &key.codes);
        let secret = key.key.clone();
        (user.0, model, epoch, secret, codes, key.isolation, key.ends)
    });
    list(e, keys.len(), rows)
}

fn read_request_keys(d: &mut Decoder<'_>, sets: &[Codes]) -> Result<RequestKeys, DecodeError> {
    let mut keys = RequestKeys::default();
    each(d, |row: KeyRow| {
        let (user, model, epoch, key, codes, isolation, ends) = row;
        let scope = model.map_or(KeyFor::AllModels, |model| KeyFor::Model(ModelIx(model)));
        let key = RequestKey {
            key,
            codes: set(sets, codes)?,
            isolation,
            ends,
        };
        keys.insert(PrincipalIx(user), scope, epoch, key);
        Ok(())
    })?;
    Ok(keys)
}
