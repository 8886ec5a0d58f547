//! What KeyService knows, indexed for its decisions. Pure: no disk, no clock, no randomness.
//!
//! A command is first checked, which changes nothing, then logged, then applied, which cannot fail. Replaying the log from
//! the start therefore gives the same state.

use std::collections::{BTreeSet, HashMap, HashSet};

use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, ModelRef, PrincipalId, PublicIdentity, RefusalCode, SecretKey,
    ServiceId,
};

/// All that was registered and granted.
#[derive(Debug)]
pub struct State {
    service: ServiceId,
    sequence: u64,
    chain: Digest,
    principals: HashMap<PrincipalId, Principal>,
    models: HashMap<ModelRef, ModelRecord>,
    grants: HashSet<Grant>,
    request_keys: HashMap<RequestKeyId, RequestKeyRecord>,
}

/// A registered principal and the last command that was accepted from it.
#[derive(Debug, Clone)]
pub struct Principal {
    /// Its public key.
    pub identity: PublicIdentity,
    /// Sequence of its last command.
    pub last_sequence: u64,
    /// Digest of its last signed command, and where in the log it stands.
    pub last_command: Digest,
    /// The log's length after that command.
    pub last_position: u64,
    /// The log's chain after that command.
    pub last_chain: Digest,
}

/// A registered model version.
#[derive(Debug)]
pub struct ModelRecord {
    /// Opens its package.
    pub key: SecretKey,
    /// Digest of the manifest in its package.
    pub manifest: Digest,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Grant {
    model: ModelRef,
    user: PrincipalId,
    code: CodeIdentityDigest,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RequestKeyId {
    user: PrincipalId,
    model: ModelRef,
    epoch: u32,
}

/// A user's key for its requests.
#[derive(Debug)]
pub struct RequestKeyRecord {
    /// Seals its requests.
    pub key: SecretKey,
    /// The code that may open them.
    pub codes: BTreeSet<CodeIdentityDigest>,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objection {
    /// It breaks a rule.
    Refused(RefusalCode),
    /// Its sequence is not above this one.
    SequenceBehind(u64),
    /// It is the very command that was carried out last: answer with its receipt again.
    Repeated,
}

impl State {
    /// The state before the first command.
    #[must_use]
    pub fn new(service: ServiceId) -> Self {
        Self {
            service,
            sequence: 0,
            chain: Digest([0; 32]),
            principals: HashMap::new(),
            models: HashMap::new(),
            grants: HashSet::new(),
            request_keys: HashMap::new(),
        }
    }

    /// Number of commands applied.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Digest of the log's chain up to here.
    #[must_use]
    pub fn chain(&self) -> Digest {
        self.chain
    }

    /// A principal by id.
    #[must_use]
    pub fn principal(&self, id: &PrincipalId) -> Option<&Principal> {
        self.principals.get(id)
    }

    /// A model version.
    #[must_use]
    pub fn model(&self, model: &ModelRef) -> Option<&ModelRecord> {
        self.models.get(model)
    }

    /// Whether the owner granted `user` the model in this code.
    #[must_use]
    pub fn is_granted(
        &self,
        model: &ModelRef,
        user: &PrincipalId,
        code: &CodeIdentityDigest,
    ) -> bool {
        self.grants.contains(&Grant {
            model: model.clone(),
            user: *user,
            code: *code,
        })
    }

    /// A user's request key for a model version.
    #[must_use]
    pub fn request_key(
        &self,
        user: &PrincipalId,
        model: &ModelRef,
        epoch: u32,
    ) -> Option<&RequestKeyRecord> {
        self.request_keys.get(&RequestKeyId {
            user: *user,
            model: model.clone(),
            epoch,
        })
    }

    /// Whether an authentic command may be carried out now. `signed` is the digest of its signed bytes.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn check(
        &self,
        signer: &PrincipalId,
        command: &Command,
        signed: &Digest,
    ) -> Result<(), Objection> {
        let refuse = |code| Err(Objection::Refused(code));
        if command.service != self.service {
            return refuse(RefusalCode::WrongService);
        }
        match self.principals.get(signer) {
            Some(known) if known.last_command == *signed => return Err(Objection::Repeated),
            Some(known) if command.sequence <= known.last_sequence => {
                return Err(Objection::SequenceBehind(known.last_sequence));
            }
            Some(_) => {}
            None if matches!(command.action, Action::Register { .. }) => return Ok(()),
            None => return refuse(RefusalCode::UnknownPrincipal),
        }
        match &command.action {
            Action::Register { .. } => refuse(RefusalCode::AlreadyExists),
            Action::PutModelKey { name, version, .. } => {
                let model = ModelRef::new(*signer, name.clone(), *version);
                if self.models.contains_key(&model) {
                    return refuse(RefusalCode::AlreadyExists);
                }
                Ok(())
            }
            Action::Grant {
                name,
                version,
                user,
                ..
            } => {
                let model = ModelRef::new(*signer, name.clone(), *version);
                if !self.models.contains_key(&model) {
                    return refuse(RefusalCode::UnknownModel);
                }
                if !self.principals.contains_key(user) {
                    return refuse(RefusalCode::UnknownPrincipal);
                }
                Ok(())
            }
            // The same key may be deposited again for other code: approving a new build must not cost the user its key.
            Action::PutRequestKey {
                model, epoch, key, ..
            } => match self.request_key(signer, model, *epoch) {
                Some(record) if record.key != *key => refuse(RefusalCode::AlreadyExists),
                _ => Ok(()),
            },
        }
    }

    /// Applies a command that was checked and logged; `chain` is the log's digest with it.
    pub fn apply(
        &mut self,
        signer: PrincipalId,
        identity: PublicIdentity,
        command: Command,
        signed: Digest,
        chain: Digest,
    ) {
        self.sequence = self.sequence.saturating_add(1);
        self.chain = chain;
        self.principals.insert(
            signer,
            Principal {
                identity,
                last_sequence: command.sequence,
                last_command: signed,
                last_position: self.sequence,
                last_chain: chain,
            },
        );
        match command.action {
            Action::Register { .. } => {}
            Action::PutModelKey {
                name,
                version,
                key,
                manifest,
            } => {
                let model = ModelRef::new(signer, name, version);
                self.models.insert(model, ModelRecord { key, manifest });
            }
            Action::Grant {
                name,
                version,
                user,
                code,
            } => {
                let model = ModelRef::new(signer, name, version);
                self.grants.insert(Grant { model, user, code });
            }
            Action::PutRequestKey {
                model,
                epoch,
                key,
                codes,
            } => {
                let id = RequestKeyId {
                    user: signer,
                    model,
                    epoch,
                };
                let codes = codes.into_iter().collect();
                self.request_keys
                    .insert(id, RequestKeyRecord { key, codes });
            }
        }
    }
}
