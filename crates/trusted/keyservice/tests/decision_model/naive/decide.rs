//! What the naive model decides.

use sesemi_keyservice::decision::Ask;
use sesemi_protocol::command::{GrantedVersions, KeyScope, Subject};
use sesemi_protocol::release::{NamedScope, RequestKeyName};
use sesemi_protocol::{
    Isolation, IsolationLevel, ModelId, ModelTarget, ModelVersion, RefusalCode, VersionSelector,
};

use super::{GrantFact, KeyFact, Naive, VersionFact, need, not_over};
use crate::world::{LEASE, Outcome, key_bytes};

impl Naive {
    /// What a target means, without the user.
    fn version_of(&self, target: &ModelTarget) -> Option<&VersionFact> {
        let number = match &target.version {
            VersionSelector::Exact(version) => *version,
            VersionSelector::Alias(alias) => self.alias(&target.model, alias)?,
        };
        self.live_version(&target.model, number)
    }

    fn grants_release(&self, grant: &GrantFact, ask: &Ask<'_>, number: ModelVersion) -> bool {
        let for_version = match (&grant.versions, &ask.model.version) {
            (GrantedVersions::All, _) => true,
            (GrantedVersions::Exact(granted), _) => *granted == number,
            (GrantedVersions::Alias(granted), VersionSelector::Alias(asked)) => granted == asked,
            (GrantedVersions::Alias(_), VersionSelector::Exact(_)) => false,
        };
        let for_user = match &grant.subject {
            Subject::User(user) => user == ask.user,
            Subject::Group(group) => self.is_member(&grant.model.owner, group, ask.user),
        };
        grant.model == ask.model.model
            && for_version
            && for_user
            && grant.codes.contains(ask.code)
            && not_over(grant.expires, ask.now)
    }

    /// The key that a request names; without a name the newest that would do, those for the model before those for all.
    fn request_key(&self, ask: &Ask<'_>) -> Option<&KeyFact> {
        let does = |fact: &&KeyFact, name: RequestKeyName| {
            let scope = match name.scope {
                NamedScope::Model => KeyScope::Model(ask.model.model.clone()),
                NamedScope::AllModels => KeyScope::AllModels,
            };
            fact.user == *ask.user
                && fact.scope == scope
                && fact.epoch == name.epoch
                && fact.codes.contains(ask.code)
                && not_over(fact.ends, ask.now)
        };
        let newest_first = || (1..=3).rev();
        let names: Vec<RequestKeyName> = match ask.key {
            Some(name) => vec![name],
            None => newest_first()
                .map(RequestKeyName::model)
                .chain(newest_first().map(RequestKeyName::all_models))
                .collect(),
        };
        names
            .into_iter()
            .find_map(|name| self.keys.iter().find(|fact| does(fact, name)))
    }

    /// What a release gives, and the ids of the grants that allow it and last longest.
    pub(crate) fn decide(&self, ask: &Ask<'_>) -> Result<(Outcome, Vec<u64>), RefusalCode> {
        need(self.registered(ask.user), RefusalCode::UnknownPrincipal)?;
        let version = self
            .version_of(ask.model)
            .ok_or(RefusalCode::UnknownModel)?;
        let allowing = || {
            let grants = self.grants.iter();
            grants.filter(|grant| self.grants_release(grant, ask, version.number))
        };
        let lasts = |grant: &GrantFact| grant.expires.unwrap_or(u64::MAX);
        let longest = allowing().map(lasts).max().ok_or(RefusalCode::NotGranted)?;
        let key = self.request_key(ask).ok_or(RefusalCode::NoRequestKey)?;
        let end = longest.min(key.ends.unwrap_or(u64::MAX));
        let of_model = |(of, _): &&(ModelId, Option<u32>)| *of == ask.model.model;
        let lease = self.leases.iter().rev().find(of_model);
        let lease = lease.and_then(|(_, seconds)| *seconds).unwrap_or(LEASE);
        let outcome = Outcome {
            version: version.number,
            model_key: key_bytes(&version.key),
            manifest: version.manifest,
            request_key: key_bytes(&key.key),
            seconds: u64::from(lease).min(end - ask.now).try_into().unwrap(),
            until: (end < u64::MAX).then_some(end),
            isolation: Isolation {
                level: match [version.isolation.level, key.isolation.level] {
                    [IsolationLevel::Sequential, _] | [_, IsolationLevel::Sequential] => {
                        IsolationLevel::Sequential
                    }
                    [IsolationLevel::DedicatedUser, _] | [_, IsolationLevel::DedicatedUser] => {
                        IsolationLevel::DedicatedUser
                    }
                    [IsolationLevel::Batched, IsolationLevel::Batched] => IsolationLevel::Batched,
                    _ => IsolationLevel::Shared,
                },
                quantum_ms: if version.isolation.quantum_ms < key.isolation.quantum_ms {
                    key.isolation.quantum_ms
                } else {
                    version.isolation.quantum_ms
                },
            },
        };
        let ids = allowing().filter(|grant| lasts(grant) == longest);
        Ok((outcome, ids.map(|grant| grant.id).collect()))
    }
}
