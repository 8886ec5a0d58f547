//! The rules once more, as the documents tell them: lists of facts, looked through from end to end. No index, no numbers for
//! names, nothing shared with the state that it is compared with.

use sesemi_keyservice::state::check::Objection;
use sesemi_protocol::command::{Action, Command, Delegation, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, ModelId, ModelName, ModelVersion,
    PrincipalId, RefusalCode,
};

use crate::world::service;

mod apply;
mod decide;

type Build = (CodeIdentityDigest, Digest);
type Checked = Result<(), RefusalCode>;

struct VersionFact {
    model: ModelId,
    number: ModelVersion,
    key: Digest,
    manifest: Digest,
    isolation: Isolation,
    retired: bool,
}

pub(crate) struct GrantFact {
    pub(crate) id: u64,
    pub(crate) model: ModelId,
    versions: GrantedVersions,
    subject: Subject,
    codes: Vec<CodeIdentityDigest>,
    expires: Option<u64>,
}

struct KeyFact {
    user: PrincipalId,
    scope: KeyScope,
    epoch: u32,
    key: Digest,
    codes: Vec<CodeIdentityDigest>,
    isolation: Isolation,
    ends: Option<u64>,
}

/// All facts.
#[derive(Default)]
pub(crate) struct Naive {
    /// Who is registered, and the sequence of its last command.
    people: Vec<(PrincipalId, u64)>,
    versions: Vec<VersionFact>,
    aliases: Vec<(ModelId, AliasName, ModelVersion)>,
    leases: Vec<(ModelId, Option<u32>)>,
    pub(crate) grants: Vec<GrantFact>,
    groups: Vec<(PrincipalId, GroupName)>,
    members: Vec<(PrincipalId, GroupName, PrincipalId)>,
    /// Owner, delegate, what it may do, and until when.
    roles: Vec<(PrincipalId, PrincipalId, Delegation, Option<u64>)>,
    keys: Vec<KeyFact>,
    custodians: Option<(Vec<PrincipalId>, u8)>,
    approvals: Vec<(PrincipalId, Build)>,
    pub(crate) successor: Option<Build>,
}

fn not_over(ends: Option<u64>, now: u64) -> bool {
    ends.is_none_or(|end| now < end)
}

fn need(holds: bool, otherwise: RefusalCode) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl Naive {
    pub(crate) fn last_sequence(&self, id: &PrincipalId) -> Option<u64> {
        let known = self.people.iter().find(|(known, _)| known == id);
        known.map(|(_, sequence)| *sequence)
    }

    fn registered(&self, id: &PrincipalId) -> bool {
        self.last_sequence(id).is_some()
    }

    fn has_model(&self, model: &ModelId) -> bool {
        self.versions.iter().any(|fact| fact.model == *model)
    }

    fn live_version(&self, model: &ModelId, number: ModelVersion) -> Option<&VersionFact> {
        self.versions
            .iter()
            .find(|fact| fact.model == *model && fact.number == number && !fact.retired)
    }

    fn alias(&self, model: &ModelId, alias: &AliasName) -> Option<ModelVersion> {
        let known = self
            .aliases
            .iter()
            .find(|(of, name, _)| of == model && name == alias);
        known.map(|(_, _, version)| *version)
    }

    fn may_grant(&self, signer: &PrincipalId, owner: &PrincipalId, now: u64) -> bool {
        let delegated = self.granted_codes(signer, owner, now).is_some();
        self.registered(owner) && (signer == owner || delegated)
    }

    /// The codes in which an owner lets somebody grant.
    fn granted_codes(
        &self,
        to: &PrincipalId,
        owner: &PrincipalId,
        now: u64,
    ) -> Option<&[CodeIdentityDigest]> {
        self.roles
            .iter()
            .find_map(|(of, by, what, ends)| match what {
                Delegation::Grantor { codes }
                    if of == owner && by == to && not_over(*ends, now) =>
                {
                    Some(codes.as_slice())
                }
                _ => None,
            })
    }

    fn is_member(&self, owner: &PrincipalId, group: &GroupName, user: &PrincipalId) -> bool {
        self.members
            .iter()
            .any(|(of, name, member)| of == owner && name == group && member == user)
    }

    /// Whether a command may be carried out.
    pub(crate) fn check(
        &self,
        signer: &PrincipalId,
        command: &Command,
        now: u64,
    ) -> Result<(), Objection> {
        if command.service != service() {
            return Err(RefusalCode::WrongService.into());
        }
        if self.successor.is_some() {
            return Err(RefusalCode::HandedOver.into());
        }
        match (self.last_sequence(signer), &command.action) {
            (None, Action::Register { .. }) => Ok(()),
            (None, _) => Err(RefusalCode::UnknownPrincipal.into()),
            (Some(last), _) if command.sequence <= last => Err(Objection::SequenceBehind(last)),
            (Some(_), Action::Register { .. }) => Err(RefusalCode::AlreadyExists.into()),
            (Some(_), action) => Ok(self.check_action(signer, action, now)?),
        }
    }

    fn check_action(&self, signer: &PrincipalId, action: &Action, now: u64) -> Checked {
        let own = |name: &ModelName| ModelId {
            owner: *signer,
            name: name.clone(),
        };
        match action {
            Action::Register { .. } => Err(RefusalCode::AlreadyExists),
            Action::PutModel { name, version, .. } => {
                let model = own(name);
                let mut of_model = self.versions.iter().filter(|fact| fact.model == model);
                need(
                    of_model.all(|fact| fact.number != *version),
                    RefusalCode::AlreadyExists,
                )
            }
            Action::RetireModel { name, version } | Action::SetAlias { name, version, .. } => need(
                self.live_version(&own(name), *version).is_some(),
                RefusalCode::UnknownModel,
            ),
            Action::RemoveAlias { name, alias } => {
                need(self.has_model(&own(name)), RefusalCode::UnknownModel)?;
                need(
                    self.alias(&own(name), alias).is_some(),
                    RefusalCode::NotFound,
                )
            }
            Action::SetLease { name, .. } => {
                need(self.has_model(&own(name)), RefusalCode::UnknownModel)
            }
            Action::Grant {
                owner,
                name,
                versions,
                subject,
                codes,
                ..
            } => {
                need(
                    self.may_grant(signer, owner, now),
                    RefusalCode::NotPermitted,
                )?;
                let approved = self.granted_codes(signer, owner, now).unwrap_or_default();
                need(
                    signer == owner || codes.iter().all(|code| approved.contains(code)),
                    RefusalCode::CodeNotDelegated,
                )?;
                let model = ModelId {
                    owner: *owner,
                    name: name.clone(),
                };
                self.check_grant(&model, versions, subject)
            }
            Action::Revoke { owner, grants } => {
                need(
                    self.may_grant(signer, owner, now),
                    RefusalCode::NotPermitted,
                )?;
                let of_owner = |id: &u64| {
                    self.grants
                        .iter()
                        .any(|grant| grant.id == *id && grant.model.owner == *owner)
                };
                need(grants.iter().all(of_owner), RefusalCode::NotFound)
            }
            Action::AddMember { owner, group, user }
            | Action::RemoveMember { owner, group, user } => {
                need(
                    self.may_grant(signer, owner, now),
                    RefusalCode::NotPermitted,
                )?;
                // Whom a delegate lets in has what the group has: no more than the delegate could grant.
                let approved = self.granted_codes(signer, owner, now).unwrap_or_default();
                let subject = Subject::Group(group.clone());
                let beyond = self.grants.iter().any(|grant| {
                    grant.model.owner == *owner
                        && grant.subject == subject
                        && grant.expires.is_none_or(|end| end > now)
                        && !grant.codes.iter().all(|code| approved.contains(code))
                });
                let adds = matches!(action, Action::AddMember { .. });
                need(
                    !adds || signer == owner || !beyond,
                    RefusalCode::CodeNotDelegated,
                )?;
                need(self.registered(user), RefusalCode::UnknownPrincipal)?;
                let is_member = self.is_member(owner, group, user);
                match action {
                    Action::AddMember { .. } => need(!is_member, RefusalCode::AlreadyExists),
                    _ => need(is_member, RefusalCode::NotFound),
                }
            }
            Action::Delegate { to, .. } => need(self.registered(to), RefusalCode::UnknownPrincipal),
            Action::EndDelegation { to, role } => {
                need(self.registered(to), RefusalCode::UnknownPrincipal)?;
                let mut roles = self.roles.iter();
                need(
                    roles.any(|(of, by, known, _)| {
                        of == signer && by == to && known.role() == *role
                    }),
                    RefusalCode::NotFound,
                )
            }
            Action::PutRequestKey {
                scope, epoch, key, ..
            } => self.check_request_key(signer, scope, *epoch, key, now),
            Action::EndRequestKey { scope, epoch, .. } => {
                self.check_scope(scope)?;
                need(
                    self.key(signer, scope, *epoch).is_some(),
                    RefusalCode::NotFound,
                )
            }
            Action::NameCustodians { custodians, .. } => {
                let first = self.custodians.is_none();
                let before_any_key = self.versions.is_empty() && self.keys.is_empty();
                need(first && before_any_key, RefusalCode::AlreadyExists)?;
                need(
                    custodians.iter().all(|id| self.registered(id)),
                    RefusalCode::UnknownPrincipal,
                )
            }
            Action::ApproveUpgrade { .. } => {
                let custodians = self.custodians.as_ref();
                need(
                    custodians.is_some_and(|(custodians, _)| custodians.contains(signer)),
                    RefusalCode::NotPermitted,
                )
            }
        }
    }

    fn check_grant(
        &self,
        model: &ModelId,
        versions: &GrantedVersions,
        subject: &Subject,
    ) -> Checked {
        let there = match versions {
            GrantedVersions::All => self.has_model(model),
            GrantedVersions::Exact(version) => self.live_version(model, *version).is_some(),
            GrantedVersions::Alias(alias) => self.alias(model, alias).is_some(),
        };
        need(there, RefusalCode::UnknownModel)?;
        match subject {
            Subject::User(user) => need(self.registered(user), RefusalCode::UnknownPrincipal),
            Subject::Group(group) => {
                let mut groups = self.groups.iter();
                need(
                    groups.any(|(of, name)| *of == model.owner && name == group),
                    RefusalCode::NotFound,
                )
            }
        }
    }

    fn check_scope(&self, scope: &KeyScope) -> Checked {
        match scope {
            KeyScope::AllModels => Ok(()),
            KeyScope::Model(model) => need(self.has_model(model), RefusalCode::UnknownModel),
        }
    }

    fn key(&self, user: &PrincipalId, scope: &KeyScope, epoch: u32) -> Option<&KeyFact> {
        self.keys
            .iter()
            .find(|fact| fact.user == *user && fact.scope == *scope && fact.epoch == epoch)
    }

    fn check_request_key(
        &self,
        user: &PrincipalId,
        scope: &KeyScope,
        epoch: u32,
        key: &Digest,
        now: u64,
    ) -> Checked {
        self.check_scope(scope)?;
        let again = match self.key(user, scope, epoch) {
            Some(known) => known.key == *key && not_over(known.ends, now),
            None => self
                .keys
                .iter()
                .filter(|fact| fact.user == *user && fact.scope == *scope)
                .all(|fact| fact.epoch < epoch),
        };
        need(again, RefusalCode::AlreadyExists)
    }

    /// Whether as many custodians as it takes approved a successor.
    pub(crate) fn approved(&self, build: &Build) -> bool {
        let by = self.approvals.iter().filter(|(_, known)| known == build);
        self.custodians
            .as_ref()
            .is_some_and(|(_, threshold)| by.count() >= usize::from(*threshold))
    }

    /// Other code goes on.
    pub(crate) fn goes_on(&mut self) {
        self.successor = None;
        self.approvals.clear();
    }
}
