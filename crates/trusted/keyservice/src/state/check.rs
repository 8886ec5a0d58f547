//! The rules for commands: who may change what. A check changes nothing, and what it lets through can be applied.

use sesemi_protocol::command::{Action, Command, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, GroupName, ModelName, ModelVersion, PrincipalId, RefusalCode,
};

use super::State;
use super::grants::GrantSubject;
use super::models::Model;
use super::principals::PrincipalIx;
use super::request_keys::KeyFor;

/// Most models of one owner.
pub const MAX_MODELS: usize = 10_000;
/// Most versions of one model, retired ones included.
pub const MAX_VERSIONS: usize = 4096;
/// Most aliases of one model.
pub const MAX_ALIASES: usize = 256;
/// Most groups of one owner.
pub const MAX_GROUPS: usize = 10_000;
/// Most groups of one owner that one user is in: a decision looks through all of them.
pub const MAX_MEMBERSHIPS: usize = 64;
/// Most grants of one model for one user or group: a decision looks through all of them.
pub const MAX_GRANTS: usize = 64;
/// Most grants of a group that a delegate lets somebody into: each is looked at.
const MAX_OPENED: usize = 4096;
/// Most delegations of one owner.
pub const MAX_DELEGATIONS: usize = 256;
/// Most request keys of one user, ended ones included.
pub const MAX_REQUEST_KEYS: usize = 4096;

/// Why a command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// It breaks a rule.
    Refused(RefusalCode),
    /// Its sequence is not above this one: it was carried out already, or another command took its place.
    SequenceBehind(u64),
}

impl From<RefusalCode> for Objection {
    fn from(code: RefusalCode) -> Self {
        Self::Refused(code)
    }
}

type Checked = Result<(), RefusalCode>;

fn ensure(holds: bool, otherwise: RefusalCode) -> Checked {
    if holds { Ok(()) } else { Err(otherwise) }
}

impl State {
    /// Whether an authentic command may be carried out now.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn check(
        &self,
        signer: &PrincipalId,
        command: &Command,
        now: u64,
    ) -> Result<(), Objection> {
        self.check_new(signer, command)?;
        let registers = matches!(command.action, Action::Register { .. });
        let Some(ix) = self.principals.find(signer) else {
            return match (registers, self.principals.has_room()) {
                (true, true) => Ok(()),
                (true, false) => Err(RefusalCode::TooMany.into()),
                (false, _) => Err(RefusalCode::UnknownPrincipal.into()),
            };
        };
        Ok(self.check_action(ix, signer, &command.action, now)?)
    }

    /// Whether an authentic command is one for this service that was not carried out yet. Others get to see commands that were
    /// carried out, so whoever hands in one that is not new need not be its signer.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn check_new(&self, signer: &PrincipalId, command: &Command) -> Result<(), Objection> {
        if command.service != self.service {
            return Err(RefusalCode::WrongService.into());
        }
        if self.governance.successor.is_some() {
            return Err(RefusalCode::HandedOver.into());
        }
        match self.principals.get(signer) {
            Some(known) if command.sequence <= known.last_sequence => {
                Err(Objection::SequenceBehind(known.last_sequence))
            }
            _ => Ok(()),
        }
    }

    fn check_action(
        &self,
        signer: PrincipalIx,
        id: &PrincipalId,
        action: &Action,
        now: u64,
    ) -> Checked {
        match action {
            Action::Register { .. } => Err(RefusalCode::AlreadyExists),
            Action::PutModel { name, version, .. } => self.check_put(signer, name, *version),
            Action::RetireModel { name, version } => self.version(signer, name, *version),
            Action::SetAlias {
                name,
                alias,
                version,
            } => {
                self.version(signer, name, *version)?;
                let model = self.model(signer, name)?;
                let known = model.aliases.contains_key(alias);
                ensure(
                    known || model.aliases.len() < MAX_ALIASES,
                    RefusalCode::TooMany,
                )
            }
            Action::RemoveAlias { name, alias } => {
                let known = self.model(signer, name)?.aliases.contains_key(alias);
                ensure(known, RefusalCode::NotFound)
            }
            Action::SetLease { name, .. } => self.model(signer, name).map(drop),
            Action::Grant {
                owner,
                name,
                versions,
                subject,
                codes,
                ..
            } => {
                let owner = self.as_grantor(signer, owner, now)?;
                self.check_delegated(owner, signer, codes, now)?;
                self.check_grant(owner, name, versions, subject)
            }
            Action::Revoke { owner, grants } => {
                let owner = self.as_grantor(signer, owner, now)?;
                let all_there = grants.iter().all(|id| {
                    let grant = self.grants.get(*id);
                    grant.is_some_and(|grant| grant.owner == owner)
                });
                ensure(all_there, RefusalCode::NotFound)
            }
            Action::AddMember { owner, group, user } => {
                let owner = self.as_grantor(signer, owner, now)?;
                self.check_opened(owner, signer, group, now)?;
                let user = self.user(user)?;
                ensure(
                    !self.people.is_member(owner, group, user),
                    RefusalCode::AlreadyExists,
                )?;
                let known = self.people.find_group(owner, group).is_some();
                let room = self.people.count_of_owner(owner) < MAX_GROUPS && self.people.has_room();
                let memberships = self.people.groups_with(user, owner).count();
                ensure(
                    (known || room) && memberships < MAX_MEMBERSHIPS,
                    RefusalCode::TooMany,
                )
            }
            Action::RemoveMember { owner, group, user } => {
                let owner = self.as_grantor(signer, owner, now)?;
                let user = self.user(user)?;
                ensure(
                    self.people.is_member(owner, group, user),
                    RefusalCode::NotFound,
                )
            }
            Action::Delegate { to, delegation, .. } => {
                let to = self.user(to)?;
                let known = self.people.is_delegated(signer, to, delegation.role());
                let count = self.people.delegations_of(signer).count();
                ensure(known || count < MAX_DELEGATIONS, RefusalCode::TooMany)
            }
            Action::EndDelegation { to, role } => {
                let to = self.user(to)?;
                let known = self.people.is_delegated(signer, to, *role);
                ensure(known, RefusalCode::NotFound)
            }
            Action::PutRequestKey {
                scope, epoch, key, ..
            } => self.check_request_key(signer, scope, *epoch, key, now),
            Action::EndRequestKey { scope, epoch, .. } => {
                let scope = self.key_scope(scope)?;
                let known = self.request_keys.get(signer, scope, *epoch);
                ensure(known.is_some(), RefusalCode::NotFound)
            }
            Action::NameCustodians { custodians, .. } => self.check_custodians(custodians),
            Action::ApproveUpgrade { .. } => ensure(
                self.governance.custodians.contains(id),
                RefusalCode::NotPermitted,
            ),
        }
    }

    fn check_put(&self, signer: PrincipalIx, name: &ModelName, version: ModelVersion) -> Checked {
        let Ok(model) = self.model(signer, name) else {
            let room = self.models.count_of_owner(signer) < MAX_MODELS && self.models.has_room();
            return ensure(room, RefusalCode::TooMany);
        };
        ensure(
            !model.versions.contains_key(&version),
            RefusalCode::AlreadyExists,
        )?;
        ensure(model.versions.len() < MAX_VERSIONS, RefusalCode::TooMany)
    }

    fn check_grant(
        &self,
        owner: PrincipalIx,
        name: &ModelName,
        versions: &GrantedVersions,
        subject: &Subject,
    ) -> Checked {
        let model = self.model(owner, name)?;
        match versions {
            GrantedVersions::All => {}
            GrantedVersions::Exact(version) => self.version(owner, name, *version)?,
            GrantedVersions::Alias(alias) => {
                ensure(model.aliases.contains_key(alias), RefusalCode::UnknownModel)?
            }
        }
        let unknown = match subject {
            Subject::User(_) => RefusalCode::UnknownPrincipal,
            Subject::Group(_) => RefusalCode::NotFound,
        };
        let subject = self.subject(owner, subject).ok_or(unknown)?;
        let model = self
            .models
            .find(owner, name)
            .ok_or(RefusalCode::UnknownModel)?;
        let count = self.grants.of(subject, model).count();
        ensure(count < MAX_GRANTS, RefusalCode::TooMany)
    }

    /// The same key may be deposited again for other code, or otherwise isolated: approving a new build must not cost the user its key. Another key
    /// takes a higher epoch than any before, so that no epoch ever meant two keys.
    fn check_request_key(
        &self,
        user: PrincipalIx,
        scope: &KeyScope,
        epoch: u32,
        key: &Digest,
        now: u64,
    ) -> Checked {
        let scope = self.key_scope(scope)?;
        let newest = self.request_keys.of_scope(user, scope).next();
        match self.request_keys.get(user, scope, epoch) {
            Some(known) => {
                let same = known.live(now).is_some_and(|known| known.digest() == *key);
                ensure(same, RefusalCode::AlreadyExists)
            }
            None if newest.is_some_and(|(newest, _)| epoch < newest) => {
                Err(RefusalCode::AlreadyExists)
            }
            None => {
                let count = self.request_keys.of_user(user).count();
                ensure(count < MAX_REQUEST_KEYS, RefusalCode::TooMany)
            }
        }
    }

    fn check_custodians(&self, custodians: &[PrincipalId]) -> Checked {
        ensure(
            self.governance.may_name_custodians(),
            RefusalCode::AlreadyExists,
        )?;
        let all_known = custodians
            .iter()
            .all(|custodian| self.principals.find(custodian).is_some());
        ensure(all_known, RefusalCode::UnknownPrincipal)
    }

    /// The owner in whose name `signer` may grant.
    fn as_grantor(
        &self,
        signer: PrincipalIx,
        owner: &PrincipalId,
        now: u64,
    ) -> Result<PrincipalIx, RefusalCode> {
        self.principals
            .find(owner)
            .filter(|owner| {
                *owner == signer || self.people.may_grant_in(*owner, signer, now).is_some()
            })
            .ok_or(RefusalCode::NotPermitted)
    }

    /// Whether `signer` may grant an owner's models in these codes. Code that a delegate could choose could be code of its own,
    /// which reads the model.
    fn check_delegated(
        &self,
        owner: PrincipalIx,
        signer: PrincipalIx,
        codes: &[CodeIdentityDigest],
        now: u64,
    ) -> Checked {
        if owner == signer {
            return Ok(());
        }
        let approved = self
            .people
            .may_grant_in(owner, signer, now)
            .ok_or(RefusalCode::NotPermitted)?;
        let all_approved = codes.iter().all(|code| approved.contains(code));
        ensure(all_approved, RefusalCode::CodeNotDelegated)
    }

    /// Whether `signer` may let people into a group: a member has all of the group's grants, so they have to be such as `signer`
    /// could make.
    fn check_opened(
        &self,
        owner: PrincipalIx,
        signer: PrincipalIx,
        group: &GroupName,
        now: u64,
    ) -> Checked {
        let Some(group) = self.people.find_group(owner, group) else {
            return Ok(());
        };
        if owner == signer {
            return Ok(());
        }
        let subject = core::iter::once(GrantSubject::Group(group));
        let grants = self.grants.of_subjects(subject, 0);
        let live = grants.filter(|(_, grant)| grant.expires.is_none_or(|end| end > now));
        for (looked_at, (_, grant)) in live.enumerate() {
            ensure(looked_at < MAX_OPENED, RefusalCode::TooMany)?;
            self.check_delegated(owner, signer, grant.codes.as_slice(), now)?;
        }
        Ok(())
    }

    fn user(&self, id: &PrincipalId) -> Result<PrincipalIx, RefusalCode> {
        self.principals
            .find(id)
            .ok_or(RefusalCode::UnknownPrincipal)
    }

    fn model(&self, owner: PrincipalIx, name: &ModelName) -> Result<&Model, RefusalCode> {
        self.models
            .get(owner, name)
            .ok_or(RefusalCode::UnknownModel)
    }

    fn version(&self, owner: PrincipalIx, name: &ModelName, version: ModelVersion) -> Checked {
        let known = self.model(owner, name)?.version(version);
        ensure(known.is_some(), RefusalCode::UnknownModel)
    }

    fn key_scope(&self, scope: &KeyScope) -> Result<KeyFor, RefusalCode> {
        self.scope(scope).ok_or(RefusalCode::UnknownModel)
    }
}
