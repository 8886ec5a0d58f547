//! Commands that somebody could give next: mostly such as are allowed, some that are not.

use sesemi_protocol::command::{Action, Delegation, GrantedVersions, KeyScope, Role, Subject};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, IsolationLevel, ModelId,
    ModelName, ModelVersion, PrincipalId, SecretKey, cbor,
};

use crate::client::Client;
use crate::error::CrashError;
use crate::expected::Expected;
use crate::random::Random;

/// A time that does not come during a run, in seconds since 1970.
const FAR: u64 = 4_000_000_000;

/// An action, and the key beside it.
pub type Order = (Action, Option<SecretKey>);

/// Who takes part in a round.
#[derive(Debug, Clone)]
pub struct Cast {
    /// All principals, in ascending order of their ids.
    pub all: Vec<PrincipalId>,
    /// Code identities to approve, in ascending order.
    pub codes: Vec<CodeIdentityDigest>,
    /// Whether the round has custodians.
    pub custodians: bool,
}

/// Makes up what `client` says next.
///
/// # Errors
/// [`CrashError::Name`].
pub fn next(
    state: &Expected,
    cast: &Cast,
    client: &Client,
    random: &mut Random,
) -> Result<Order, CrashError> {
    let me = client.id;
    if !state.registered.contains(&me) {
        let public_key = *client.identity.public().key();
        return Ok((Action::Register { public_key }, None));
    }
    let mut scene = Scene {
        state,
        cast,
        me,
        random,
    };
    if cast.custodians && state.custodians.is_none() {
        // Nobody may deposit a key before custodians are named.
        let complete = state.registered.len() == cast.all.len();
        if complete && cast.all.first() == Some(&me) {
            return Ok((scene.custodians(), None));
        }
        return Ok((scene.people()?, None));
    }
    scene.any()
}

struct Scene<'a> {
    state: &'a Expected,
    cast: &'a Cast,
    me: PrincipalId,
    random: &'a mut Random,
}

impl Scene<'_> {
    fn any(&mut self) -> Result<Order, CrashError> {
        Ok(match self.random.below(100) {
            0..14 => return self.put_model(),
            14..17 => (self.retire()?, None),
            17..23 => (self.alias()?, None),
            23..25 => (self.lease()?, None),
            25..50 => (self.grant()?, None),
            50..60 => (self.revoke()?, None),
            60..72 => (self.people()?, None),
            72..88 => return self.put_request_key(),
            88..93 => (self.end_request_key()?, None),
            93..95 => (self.approve(), None),
            _ => (self.nonsense()?, None),
        })
    }

    fn somebody(&mut self) -> PrincipalId {
        let known: Vec<PrincipalId> = self.state.registered.iter().copied().collect();
        self.random.pick(&known).copied().unwrap_or(self.me)
    }

    fn name(&mut self) -> Result<ModelName, CrashError> {
        Ok(ModelName::new(&format!("model-{}", self.random.below(4)))?)
    }

    fn group(&mut self) -> Result<GroupName, CrashError> {
        Ok(GroupName::new(&format!("group-{}", self.random.below(4)))?)
    }

    fn alias_name(&mut self) -> Result<AliasName, CrashError> {
        let aliases = ["stable", "next", "test"];
        let alias = self.random.pick(&aliases).copied().unwrap_or("stable");
        Ok(AliasName::new(alias)?)
    }

    /// A version of the model that is there, or any.
    fn version(&mut self, model: &ModelId) -> Result<ModelVersion, CrashError> {
        let known = self.state.models.get(model);
        let kept: Vec<ModelVersion> = known
            .into_iter()
            .flat_map(|model| &model.versions)
            .filter(|(_, kept)| kept.is_some())
            .map(|(version, _)| *version)
            .collect();
        match self.random.pick(&kept) {
            Some(version) => Ok(*version),
            None => Ok(ModelVersion::new(1)?),
        }
    }

    fn codes(&mut self) -> Vec<CodeIdentityDigest> {
        let first = self.random.place(self.cast.codes.len());
        let codes = self.cast.codes.iter().skip(first);
        let count = self.random.place(3) + 1;
        codes.take(count).copied().collect()
    }

    /// Code that I may grant in somebody's name, as a rule; of what is mine, any.
    fn codes_for(&mut self, owner: PrincipalId) -> Vec<CodeIdentityDigest> {
        let approved = self.state.granted_codes(owner, self.me);
        if approved.is_empty() || owner == self.me || self.random.chance(15) {
            return self.codes();
        }
        let first = self.random.place(approved.len());
        approved.iter().skip(first).copied().collect()
    }

    fn expires(&mut self) -> Option<u64> {
        self.random.chance(30).then_some(FAR)
    }

    fn custodians(&mut self) -> Action {
        let count = self.random.place(self.cast.all.len().saturating_sub(2)) + 2;
        let custodians: Vec<PrincipalId> = self.cast.all.iter().take(count).copied().collect();
        let threshold = self.random.place(count - 1) + 2;
        Action::NameCustodians {
            custodians,
            threshold: u8::try_from(threshold).unwrap_or(2),
        }
    }

    fn put_model(&mut self) -> Result<Order, CrashError> {
        let model = self.my_model()?;
        let known = self.state.models.get(&model);
        let last = known.and_then(|model| model.versions.keys().next_back().copied());
        let version = ModelVersion::new(last.map_or(1, |last| last.get() + 1))?;
        let key = key_of(b"model", &self.me, &(model.name.as_str(), version))?;
        let action = Action::PutModel {
            name: model.name,
            version,
            key: key.digest(),
            manifest: Digest::of(&self.random.number().to_be_bytes()),
            isolation: self.isolation(),
        };
        Ok((action, Some(key)))
    }

    fn my_model(&mut self) -> Result<ModelId, CrashError> {
        Ok(ModelId {
            owner: self.me,
            name: self.name()?,
        })
    }

    fn retire(&mut self) -> Result<Action, CrashError> {
        let model = self.my_model()?;
        let version = self.version(&model)?;
        let name = model.name;
        Ok(Action::RetireModel { name, version })
    }

    fn alias(&mut self) -> Result<Action, CrashError> {
        let model = self.my_model()?;
        let alias = self.alias_name()?;
        if self.random.chance(25) {
            let name = model.name;
            return Ok(Action::RemoveAlias { name, alias });
        }
        let version = self.version(&model)?;
        Ok(Action::SetAlias {
            name: model.name,
            alias,
            version,
        })
    }

    fn lease(&mut self) -> Result<Action, CrashError> {
        let set = self.random.chance(70);
        let seconds = u32::try_from(self.random.below(3600) + 1).unwrap_or(1);
        Ok(Action::SetLease {
            name: self.name()?,
            seconds: set.then_some(seconds),
        })
    }

    /// Somebody in whose name I may grant.
    fn grantor_for(&mut self) -> PrincipalId {
        let delegates = self.state.delegates.keys();
        let others: Vec<PrincipalId> = delegates
            .filter(|(_, to, role)| *to == self.me && *role == Role::Grantor)
            .map(|(owner, ..)| *owner)
            .collect();
        match self.random.pick(&others) {
            Some(owner) if self.random.chance(30) => *owner,
            _ => self.me,
        }
    }

    fn grant(&mut self) -> Result<Action, CrashError> {
        let owner = self.grantor_for();
        let name = self.name()?;
        let model = ModelId { owner, name };
        let versions = match self.random.below(3) {
            0 => GrantedVersions::All,
            1 => GrantedVersions::Exact(self.version(&model)?),
            _ => GrantedVersions::Alias(self.alias_name()?),
        };
        let versions = if self.state.can_grant(&model, &versions) {
            versions
        } else {
            GrantedVersions::All
        };
        let group = self.group()?;
        let known = self.state.groups.contains_key(&(owner, group.clone()));
        let subject = if known && self.random.chance(40) {
            Subject::Group(group)
        } else {
            Subject::User(self.somebody())
        };
        let note = match self.random.below(3) {
            0 => String::new(),
            n => format!("for project {n}, {}", self.random.below(1000)),
        };
        Ok(Action::Grant {
            owner,
            name: model.name,
            versions,
            subject,
            codes: self.codes_for(owner),
            expires: self.expires(),
            note,
        })
    }

    fn revoke(&mut self) -> Result<Action, CrashError> {
        let owner = self.grantor_for();
        let last = self.state.grants.keys().next_back().copied().unwrap_or(0);
        let from = self.random.below(last + 1);
        let count = self.random.place(3) + 1;
        let grants = self.state.grants.range(from..);
        let grants: Vec<u64> = grants
            .filter(|(_, grant)| grant.model.owner == owner)
            .map(|(id, _)| *id)
            .take(count)
            .collect();
        if grants.is_empty() {
            return self.grant();
        }
        Ok(Action::Revoke { owner, grants })
    }

    fn people(&mut self) -> Result<Action, CrashError> {
        let to = self.somebody();
        let delegation = if self.random.chance(60) {
            Delegation::Grantor {
                codes: self.codes(),
            }
        } else {
            Delegation::Auditor
        };
        let owner = self.grantor_for();
        Ok(match self.random.below(6) {
            0 => Action::Delegate {
                to,
                delegation,
                expires: self.expires(),
            },
            1 => Action::EndDelegation {
                to,
                role: delegation.role(),
            },
            2 => Action::RemoveMember {
                owner,
                group: self.group()?,
                user: to,
            },
            _ => Action::AddMember {
                owner,
                group: self.group()?,
                user: to,
            },
        })
    }

    fn scope(&mut self) -> KeyScope {
        let models: Vec<&ModelId> = self.state.models.keys().collect();
        match self.random.pick(&models) {
            Some(model) if self.random.chance(70) => KeyScope::Model((*model).clone()),
            _ => KeyScope::AllModels,
        }
    }

    /// The newest epoch of one of my keys, and whether it is still kept.
    fn newest(&self, scope: &KeyScope) -> Option<(u32, bool)> {
        let all = (self.me, scope.clone(), 0)..=(self.me, scope.clone(), u32::MAX);
        let newest = self.state.keys.range(all).next_back();
        newest.map(|((.., epoch), key)| (*epoch, key.live))
    }

    fn isolation(&mut self) -> Isolation {
        let level = match self.random.below(4) {
            0 => IsolationLevel::Batched,
            1 => IsolationLevel::Shared,
            2 => IsolationLevel::DedicatedUser,
            _ => IsolationLevel::Sequential,
        };
        let quantum_ms = if self.random.chance(30) { 250 } else { 0 };
        Isolation { level, quantum_ms }
    }

    fn put_request_key(&mut self) -> Result<Order, CrashError> {
        let scope = self.scope();
        let epoch = match self.newest(&scope) {
            None => 1,
            // The same key again, for other code.
            Some((epoch, true)) if self.random.chance(30) => epoch,
            Some((epoch, _)) => epoch + 1,
        };
        let key = key_of(b"request", &self.me, &(&scope, epoch))?;
        let earlier_end = match self.random.below(3) {
            0 => None,
            1 => Some(FAR),
            _ => Some(0),
        };
        let action = Action::PutRequestKey {
            scope,
            epoch,
            key: key.digest(),
            codes: self.codes(),
            isolation: self.isolation(),
            earlier_end,
        };
        Ok((action, Some(key)))
    }

    fn end_request_key(&mut self) -> Result<Action, CrashError> {
        let scope = self.scope();
        let Some((epoch, _)) = self.newest(&scope) else {
            return self.grant();
        };
        let at = if self.random.chance(50) { 0 } else { FAR + 1 };
        Ok(Action::EndRequestKey { scope, epoch, at })
    }

    /// Allowed for custodians; it never comes to a hand-over.
    fn approve(&mut self) -> Action {
        Action::ApproveUpgrade {
            code: CodeIdentityDigest(*Digest::of(&self.random.number().to_be_bytes()).as_bytes()),
            policy: Digest([7; 32]),
        }
    }

    /// What is never allowed.
    fn nonsense(&mut self) -> Result<Action, CrashError> {
        let nobody = PrincipalId([0xff; 32]);
        Ok(match self.random.below(4) {
            0 => Action::RetireModel {
                name: ModelName::new("nothing")?,
                version: ModelVersion::new(1)?,
            },
            1 => Action::Revoke {
                owner: self.me,
                grants: vec![u64::MAX],
            },
            2 => Action::AddMember {
                owner: nobody,
                group: self.group()?,
                user: self.me,
            },
            _ => Action::Delegate {
                to: nobody,
                delegation: Delegation::Auditor,
                expires: None,
            },
        })
    }
}

/// Keys follow from what they are for, so that the same key can be deposited again.
fn key_of(
    what: &[u8],
    whose: &PrincipalId,
    which: &impl minicbor::Encode<()>,
) -> Result<SecretKey, CrashError> {
    let which = cbor::encode(which)?;
    let digest = Digest::of(&[what, whose.as_bytes(), &which].concat());
    Ok(SecretKey::from_bytes(*digest.as_bytes()))
}
