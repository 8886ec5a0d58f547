//! What the state must be: the commands that the log shows, carried out one after the other on plain maps. Nothing is shared with
//! the service, neither its indices nor its snapshots, so that a mistake there is seen here.

use std::collections::{BTreeMap, BTreeSet};

use sesemi_protocol::command::{Action, Delegation, GrantedVersions, KeyScope, Role, Subject};
use sesemi_protocol::query::{
    AliasView, GrantView, ModelView, PersonView, RequestKeyView, VersionView,
};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, ModelId, ModelName, ModelVersion,
    PrincipalId,
};

/// A model's versions, aliases and lease.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Versions with what their owner asked for; `None` for those that were retired.
    pub versions: BTreeMap<ModelVersion, Option<Isolation>>,
    /// Aliases.
    pub aliases: BTreeMap<AliasName, ModelVersion>,
    lease_seconds: Option<u32>,
}

/// A request key.
#[derive(Debug, Clone)]
pub struct Key {
    digest: Digest,
    codes: Vec<CodeIdentityDigest>,
    isolation: Isolation,
    ends: Option<u64>,
    /// Whether it is still kept.
    pub live: bool,
}

/// What comes with a request key: its digest, the approved code, the isolation, and when earlier ones end.
type Deposit = (Digest, Vec<CodeIdentityDigest>, Isolation, Option<u64>);

impl Key {
    fn end(&mut self, end: u64, now: u64) {
        let end = end.max(now);
        self.ends = Some(self.ends.map_or(end, |known| known.min(end)));
        self.live &= end > now;
    }
}

/// The state that the log amounts to.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Who is registered.
    pub registered: BTreeSet<PrincipalId>,
    /// Models.
    pub models: BTreeMap<ModelId, Model>,
    /// Grants by their ids.
    pub grants: BTreeMap<u64, GrantView>,
    /// Groups and their members. A group without any stays.
    pub groups: BTreeMap<(PrincipalId, GroupName), BTreeSet<PrincipalId>>,
    /// Delegations: owner, delegate, role.
    pub delegates: BTreeMap<(PrincipalId, PrincipalId, Role), (Delegation, Option<u64>)>,
    /// Request keys: user, scope, epoch.
    pub keys: BTreeMap<(PrincipalId, KeyScope, u32), Key>,
    /// Who holds shares, and how many of them are needed.
    pub custodians: Option<(Vec<PrincipalId>, u8)>,
}

impl Expected {
    /// Carries out a command that stands in the log as entry `sequence`, made at `at`.
    pub fn apply(&mut self, signer: PrincipalId, action: Action, sequence: u64, at: u64) {
        match action {
            Action::Register { .. } => {
                self.registered.insert(signer);
            }
            Action::PutModel {
                name,
                version,
                isolation,
                ..
            } => {
                let versions = &mut self.model(signer, name).versions;
                versions.insert(version, Some(isolation));
            }
            Action::RetireModel { name, version } => {
                let model = self.model(signer, name);
                model.versions.insert(version, None);
                model.aliases.retain(|_, target| *target != version);
            }
            Action::SetAlias {
                name,
                alias,
                version,
            } => {
                self.model(signer, name).aliases.insert(alias, version);
            }
            Action::RemoveAlias { name, alias } => {
                self.model(signer, name).aliases.remove(&alias);
            }
            Action::SetLease { name, seconds } => self.model(signer, name).lease_seconds = seconds,
            Action::Grant {
                owner,
                name,
                versions,
                subject,
                codes,
                expires,
                note,
            } => {
                let view = GrantView {
                    id: sequence,
                    model: ModelId { owner, name },
                    versions,
                    subject,
                    codes,
                    expires,
                    note,
                    by: signer,
                };
                self.grants.insert(sequence, view);
            }
            Action::Revoke { grants, .. } => self.grants.retain(|id, _| !grants.contains(id)),
            Action::AddMember { owner, group, user } => {
                self.groups.entry((owner, group)).or_default().insert(user);
            }
            Action::RemoveMember { owner, group, user } => {
                self.groups.entry((owner, group)).or_default().remove(&user);
            }
            Action::Delegate {
                to,
                delegation,
                expires,
            } => {
                let place = (signer, to, delegation.role());
                self.delegates.insert(place, (delegation, expires));
            }
            Action::EndDelegation { to, role } => {
                self.delegates.remove(&(signer, to, role));
            }
            Action::PutRequestKey {
                scope,
                epoch,
                key,
                codes,
                isolation,
                earlier_end,
            } => {
                let deposit = (key, codes, isolation, earlier_end);
                self.put_key(signer, scope, epoch, deposit, at);
            }
            Action::EndRequestKey {
                scope,
                epoch,
                at: end,
            } => {
                if let Some(key) = self.keys.get_mut(&(signer, scope, epoch)) {
                    key.end(end, at);
                }
            }
            Action::NameCustodians {
                custodians,
                threshold,
            } => self.custodians = Some((custodians, threshold)),
            Action::ApproveUpgrade { .. } => {}
        }
    }

    fn model(&mut self, owner: PrincipalId, name: ModelName) -> &mut Model {
        self.models.entry(ModelId { owner, name }).or_default()
    }

    fn put_key(
        &mut self,
        user: PrincipalId,
        scope: KeyScope,
        epoch: u32,
        (digest, codes, isolation, earlier_end): Deposit,
        now: u64,
    ) {
        if let Some(end) = earlier_end {
            let earlier = (user, scope.clone(), 0)..(user, scope.clone(), epoch);
            for (_, key) in self.keys.range_mut(earlier) {
                key.end(end, now);
            }
        }
        let known = self.keys.get(&(user, scope.clone(), epoch));
        let key = Key {
            digest,
            codes,
            isolation,
            ends: known.and_then(|known| known.ends),
            live: true,
        };
        self.keys.insert((user, scope, epoch), key);
    }

    /// The models of an owner, as they are listed.
    #[must_use]
    pub fn models_of(&self, owner: PrincipalId) -> Vec<ModelView> {
        let models = self.models.iter().filter(|(id, _)| id.owner == owner);
        let view = |(id, model): (&ModelId, &Model)| ModelView {
            name: id.name.clone(),
            versions: model
                .versions
                .iter()
                .filter_map(|(version, kept)| {
                    Some(VersionView {
                        version: *version,
                        isolation: (*kept)?,
                    })
                })
                .collect(),
            aliases: model
                .aliases
                .iter()
                .map(|(alias, version)| AliasView {
                    alias: alias.clone(),
                    version: *version,
                })
                .collect(),
            lease_seconds: model.lease_seconds,
        };
        models.map(view).collect()
    }

    /// The grants of an owner, as they are listed.
    #[must_use]
    pub fn grants_of(&self, owner: PrincipalId) -> Vec<GrantView> {
        let grants = self.grants.values();
        grants
            .filter(|grant| grant.model.owner == owner)
            .cloned()
            .collect()
    }

    /// The grants for a user, as they are listed.
    #[must_use]
    pub fn grants_to(&self, user: PrincipalId) -> Vec<GrantView> {
        let in_group = |owner: PrincipalId, group: &GroupName| {
            let members = self.groups.get(&(owner, group.clone()));
            members.is_some_and(|members| members.contains(&user))
        };
        let grants = self.grants.values();
        grants
            .filter(|grant| match &grant.subject {
                Subject::User(subject) => *subject == user,
                Subject::Group(group) => in_group(grant.model.owner, group),
            })
            .cloned()
            .collect()
    }

    /// The groups and delegates of an owner, as they are listed.
    #[must_use]
    pub fn people_of(&self, owner: PrincipalId) -> Vec<PersonView> {
        let groups = self.groups.iter().filter(|((of, _), _)| *of == owner);
        let members = groups.flat_map(|((_, group), members)| {
            members.iter().map(|user| PersonView::Member {
                group: group.clone(),
                user: *user,
            })
        });
        let delegates = self.delegates.iter().filter(|((of, ..), _)| *of == owner);
        let delegates = delegates.map(|((_, to, _), (delegation, expires))| PersonView::Delegate {
            to: *to,
            delegation: delegation.clone(),
            expires: *expires,
        });
        members.chain(delegates).collect()
    }

    /// The request keys of a user, as they are listed.
    #[must_use]
    pub fn keys_of(&self, user: PrincipalId) -> Vec<RequestKeyView> {
        let keys = self.keys.iter().filter(|((of, ..), _)| *of == user);
        let live = keys.filter(|(_, key)| key.live);
        live.map(|((_, scope, epoch), key)| RequestKeyView {
            scope: scope.clone(),
            epoch: *epoch,
            key: key.digest,
            codes: key.codes.clone(),
            ends: key.ends,
            isolation: key.isolation,
        })
        .collect()
    }

    /// The code in which an owner lets somebody grant; none if it does not.
    #[must_use]
    pub fn granted_codes(&self, owner: PrincipalId, to: PrincipalId) -> &[CodeIdentityDigest] {
        let delegated = self.delegates.get(&(owner, to, Role::Grantor));
        delegated.map_or(&[], |(delegation, _)| delegation.codes())
    }

    /// Whether a grant of these versions can be given now.
    #[must_use]
    pub fn can_grant(&self, model: &ModelId, versions: &GrantedVersions) -> bool {
        let Some(model) = self.models.get(model) else {
            return false;
        };
        match versions {
            GrantedVersions::All => true,
            GrantedVersions::Exact(version) => matches!(model.versions.get(version), Some(Some(_))),
            GrantedVersions::Alias(alias) => model.aliases.contains_key(alias),
        }
    }
}
