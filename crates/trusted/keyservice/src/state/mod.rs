//! What KeyService knows, indexed for its decisions. Pure: no disk, no clock, no randomness.
//!
//! A command is first checked, which changes nothing, then logged, then applied, which cannot fail. Replaying the log, or a
//! [snapshot] and the log after it, therefore gives the same state.
//!
//! - [`principals`]: who is registered; everybody else is named by a short number from here on;
//! - [`models`]: versions and aliases; [`grants`]: who may use what; [`people`]: groups and delegations;
//! - [`request_keys`]: users' keys; [`governance`]: custodians, approvals, code and policy of the service itself;
//! - [`check`]: the rules for commands.

use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::command::{Action, Command, Delegation, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::limits::MAX_CUSTODIANS;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    Digest, ModelId, ModelTarget, PrincipalId, PublicIdentity, SecretKey, ServiceId,
    VersionSelector,
};
use zeroize::Zeroizing;

pub mod check;
pub mod governance;
pub mod grants;
pub mod models;
pub mod people;
pub mod principals;
pub mod request_keys;
pub mod snapshot;

use check::Objection;
use governance::Governance;
use grants::{Grant, GrantSubject, Grants};
use models::{ModelIx, Models, Version};
use people::{People, Right};
use principals::{PrincipalIx, Principals};
use request_keys::{KeyFor, Put, RequestKeys};

/// All that was registered, granted and approved.
#[derive(Debug)]
pub struct State {
    service: ServiceId,
    /// The entry that was applied last, and the chain with it.
    point: Point,
    /// When the last entry was made: time never falls below it.
    last_at: u64,
    pub(crate) principals: Principals,
    pub(crate) models: Models,
    pub(crate) grants: Grants,
    pub(crate) people: People,
    pub(crate) request_keys: RequestKeys,
    pub(crate) governance: Governance,
    /// Freshness floor, as it was recorded last: [`Record::Floor`].
    floor: Vec<u8>,
}

/// A command whose signature was verified.
#[derive(Debug)]
pub struct Authentic {
    /// Who signed it.
    pub signer: PrincipalId,
    /// With which key.
    pub identity: PublicIdentity,
    /// What it says.
    pub command: Command,
    /// What belongs to it and is not in it.
    pub secret: Secret,
}

/// What is kept with a command, and is not part of it.
#[derive(Debug, Clone)]
pub enum Secret {
    /// Nothing.
    None,
    /// The key that came beside it; its digest is the one in the command.
    Key(SecretKey),
    /// The recovery shares' values, in the order of the custodians that the command names.
    Shares(Vec<SecretKey>),
}

impl Secret {
    /// As it is kept in the log.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Self::None => None,
            Self::Key(key) => Some(Zeroizing::new(key.expose().to_vec())),
            Self::Shares(shares) => {
                let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_CUSTODIANS * 32));
                for share in shares {
                    bytes.extend_from_slice(share.expose());
                }
                Some(bytes)
            }
        }
    }

    /// Reads what was kept with a command; `None` if it is not what the command needs.
    fn read(action: &Action, bytes: Option<&[u8]>) -> Option<Self> {
        match (action, action.key(), bytes) {
            (_, Some(digest), Some(bytes)) if Digest::of(bytes) == *digest => {
                SecretKey::from_slice(bytes).map(Self::Key)
            }
            (Action::NameCustodians { custodians, .. }, None, Some(bytes)) => {
                let shares: Option<Vec<SecretKey>> =
                    bytes.chunks(32).map(SecretKey::from_slice).collect();
                shares
                    .filter(|shares| shares.len() == custodians.len())
                    .map(Self::Shares)
            }
            (Action::NameCustodians { .. }, ..) | (_, Some(_), _) | (_, None, Some(_)) => None,
            (_, None, None) => Some(Self::None),
        }
    }
}

/// An entry that the state cannot have come from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It breaks a rule.
    #[error("it breaks a rule: {0:?}")]
    Objection(Objection),
    /// It is not what belongs there.
    #[error("{0}")]
    Misplaced(&'static str),
}

impl State {
    /// The state after a log's first entry.
    ///
    /// # Errors
    /// [`ReplayError`] if it is another entry than one begins with.
    pub fn found(first: &Entry, point: Point) -> Result<Self, ReplayError> {
        let Record::Founded {
            public_key,
            code,
            policy,
        } = &first.record
        else {
            return Err(ReplayError::Misplaced(
                "the log does not begin with a founding",
            ));
        };
        Ok(Self {
            service: PublicIdentity::from_key(*public_key).service_id(),
            point,
            last_at: first.at,
            principals: Principals::default(),
            models: Models::default(),
            grants: Grants::default(),
            people: People::default(),
            request_keys: RequestKeys::default(),
            governance: Governance::new(*code, *policy),
            floor: Vec::new(),
        })
    }

    /// Which service this is.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// The point of the log that this state is at.
    #[must_use]
    pub fn point(&self) -> Point {
        self.point
    }

    /// The time to decide at: the clock's, but never before what the log has seen.
    #[must_use]
    pub fn time(&self, clock: u64) -> u64 {
        clock.max(self.last_at)
    }

    /// The freshness floor that was recorded last.
    #[must_use]
    pub fn floor(&self) -> &[u8] {
        &self.floor
    }

    /// Who governs the service.
    #[must_use]
    pub fn governance(&self) -> &Governance {
        &self.governance
    }

    /// Who is registered.
    #[must_use]
    pub fn principals(&self) -> &Principals {
        &self.principals
    }

    /// Number of grants.
    #[must_use]
    pub fn grant_count(&self) -> usize {
        self.grants.len()
    }

    /// Applies a command that was checked and logged as the last entry before `point`.
    pub fn apply_command(&mut self, authentic: Authentic, point: Point, at: u64) {
        self.point = point;
        self.last_at = self.last_at.max(at);
        let sequence = point.sequence;
        let Authentic {
            signer,
            identity,
            command,
            secret,
        } = authentic;
        let signer = self
            .principals
            .accepted(signer, &identity, command.sequence, sequence);
        self.carry_out(signer, command.action, secret, sequence, at);
    }

    /// Applies an entry that the service made by itself.
    pub fn apply_record(&mut self, record: &Record, point: Point, at: u64) {
        self.point = point;
        self.last_at = self.last_at.max(at);
        match record {
            Record::Floor(levels) => self.floor = levels.to_vec(),
            Record::HandedOver { code, policy } => self.governance.handed_over(*code, *policy),
            Record::TookOver { code, policy } | Record::Recovered { code, policy, .. } => {
                self.governance.goes_on_as(*code, *policy);
            }
            Record::Released(_) | Record::Founded { .. } | Record::Command(_) => {}
        }
    }

    /// Wipes request keys that have ended.
    pub fn forget_ended(&mut self, now: u64) {
        self.request_keys.forget_ended(now);
    }

    /// One arm for each action. What a check has found to be there is there: where a lookup fails all the same, nothing
    /// happens.
    fn carry_out(
        &mut self,
        signer: PrincipalIx,
        action: Action,
        secret: Secret,
        sequence: u64,
        at: u64,
    ) {
        match action {
            Action::Register { .. } => {}
            Action::PutModel {
                name,
                version,
                manifest,
                isolation,
                ..
            } => {
                if let Secret::Key(key) = secret {
                    self.governance.first_key();
                    let put = Version {
                        key,
                        manifest,
                        isolation,
                    };
                    self.models.put(signer, name, version, put);
                }
            }
            Action::RetireModel { name, version } => self.models.retire(signer, &name, version),
            Action::SetAlias {
                name,
                alias,
                version,
            } => self.models.set_alias(signer, &name, alias, version),
            Action::RemoveAlias { name, alias } => self.models.remove_alias(signer, &name, &alias),
            Action::SetLease { name, seconds } => self.models.set_lease(signer, &name, seconds),
            Action::Grant { .. } => self.grant(signer, action, sequence),
            Action::Revoke { grants, .. } => {
                for id in grants {
                    self.grants.remove(id);
                }
            }
            Action::AddMember { owner, group, user } => {
                if let Some((owner, user)) = self.two(&owner, &user) {
                    self.people.add_member(owner, group, user);
                }
            }
            Action::RemoveMember { owner, group, user } => {
                if let Some((owner, user)) = self.two(&owner, &user) {
                    self.people.remove_member(owner, &group, user);
                }
            }
            Action::Delegate {
                to,
                delegation,
                expires,
            } => {
                if let Some(to) = self.principals.find(&to) {
                    let right = match delegation {
                        Delegation::Grantor { codes } => {
                            Right::Grantor(self.grants.codes.intern(codes))
                        }
                        Delegation::Auditor => Right::Auditor,
                    };
                    self.people.delegate(signer, to, right, expires);
                }
            }
            Action::EndDelegation { to, role } => {
                if let Some(to) = self.principals.find(&to) {
                    self.people.end_delegation(signer, to, role);
                }
            }
            Action::PutRequestKey {
                scope,
                epoch,
                codes,
                isolation,
                earlier_end,
                ..
            } => {
                if let (Secret::Key(key), Some(scope)) = (secret, self.scope(&scope)) {
                    self.governance.first_key();
                    let codes = self.grants.codes.intern(codes);
                    let put = Put {
                        scope,
                        epoch,
                        key,
                        codes,
                        isolation,
                        earlier_end,
                        now: at,
                    };
                    self.request_keys.put(signer, put);
                }
            }
            Action::EndRequestKey {
                scope,
                epoch,
                at: end,
            } => {
                if let Some(scope) = self.scope(&scope) {
                    self.request_keys.end(signer, scope, epoch, end, at);
                }
            }
            Action::NameCustodians {
                custodians,
                threshold,
            } => {
                if let Secret::Shares(shares) = secret {
                    self.governance
                        .name_custodians(custodians, threshold, shares);
                }
            }
            Action::ApproveUpgrade { code, policy } => {
                if let Some(id) = self.principals.id(signer) {
                    self.governance.approve(code, policy, id);
                }
            }
        }
    }

    fn grant(&mut self, by: PrincipalIx, action: Action, sequence: u64) {
        let Action::Grant {
            owner,
            name,
            versions,
            subject,
            codes,
            expires,
            note,
        } = action
        else {
            return;
        };
        let Some(owner) = self.principals.find(&owner) else {
            return;
        };
        let Some(model) = self.models.find(owner, &name) else {
            return;
        };
        let Some(subject) = self.subject(owner, &subject) else {
            return;
        };
        let codes = self.grants.codes.intern(codes);
        let grant = Grant {
            owner,
            model,
            versions,
            subject,
            codes,
            expires,
            note: Some(note)
                .filter(|note| !note.is_empty())
                .map(String::into_boxed_str),
            by,
        };
        self.grants.insert(sequence, grant);
    }

    fn two(&self, a: &PrincipalId, b: &PrincipalId) -> Option<(PrincipalIx, PrincipalIx)> {
        Some((self.principals.find(a)?, self.principals.find(b)?))
    }

    pub(crate) fn subject(&self, owner: PrincipalIx, subject: &Subject) -> Option<GrantSubject> {
        match subject {
            Subject::User(user) => self.principals.find(user).map(GrantSubject::User),
            Subject::Group(group) => self
                .people
                .find_group(owner, group)
                .map(GrantSubject::Group),
        }
    }

    /// The model that an id names.
    pub(crate) fn find_model(&self, model: &ModelId) -> Option<ModelIx> {
        self.models
            .find(self.principals.find(&model.owner)?, &model.name)
    }

    pub(crate) fn scope(&self, scope: &KeyScope) -> Option<KeyFor> {
        match scope {
            KeyScope::AllModels => Some(KeyFor::AllModels),
            KeyScope::Model(model) => self.find_model(model).map(KeyFor::Model),
        }
    }

    /// Whether a grant's versions cover what a target means, when it means `version`.
    pub(crate) fn covers(
        versions: &GrantedVersions,
        target: &ModelTarget,
        version: sesemi_protocol::ModelVersion,
    ) -> bool {
        match versions {
            GrantedVersions::All => true,
            GrantedVersions::Exact(granted) => *granted == version,
            GrantedVersions::Alias(alias) => {
                matches!(&target.version, VersionSelector::Alias(asked) if asked == alias)
            }
        }
    }

    /// Applies an entry of the log again. Its seal vouches for it: this code wrote it, and checked it then.
    ///
    /// # Errors
    /// [`ReplayError`] if it breaks a rule: written by another version, or a defect.
    pub fn replay(
        &mut self,
        point: Point,
        entry: &Entry,
        secret: Option<&[u8]>,
    ) -> Result<(), ReplayError> {
        let malformed = ReplayError::Misplaced("a command in it is malformed");
        let command = entry.unverified_command().map_err(|_| malformed.clone())?;
        let Some((signer, command)) = command else {
            if matches!(entry.record, Record::Founded { .. }) {
                return Err(ReplayError::Misplaced("a second founding"));
            }
            self.apply_record(&entry.record, point, entry.at);
            return Ok(());
        };
        let identity = match (&command.action, self.principals.get(&signer)) {
            (_, Some(known)) => *known.identity(),
            (Action::Register { public_key }, None) => PublicIdentity::from_key(*public_key),
            (_, None) => return Err(malformed),
        };
        let secret = Secret::read(&command.action, secret)
            .ok_or(ReplayError::Misplaced("the key of a command is missing"))?;
        self.check(&signer, &command, entry.at)
            .map_err(ReplayError::Objection)?;
        let authentic = Authentic {
            signer,
            identity,
            command,
            secret,
        };
        self.apply_command(authentic, point, entry.at);
        Ok(())
    }
}
