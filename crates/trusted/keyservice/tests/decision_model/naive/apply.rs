//! What commands do to the naive model's facts.

use sesemi_protocol::command::{Action, Command, KeyScope, Role};
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, Isolation, ModelId, ModelName, PrincipalId,
};

use super::{GrantFact, KeyFact, Naive, VersionFact};

impl Naive {
    /// Carries out a command that was checked; `entry` is its place in the log.
    pub(crate) fn apply(&mut self, signer: &PrincipalId, command: &Command, entry: u64, now: u64) {
        self.people.retain(|(known, _)| known != signer);
        self.people.push((*signer, command.sequence));
        let own = |name: &ModelName| ModelId {
            owner: *signer,
            name: name.clone(),
        };
        match command.action.clone() {
            Action::Register { .. } => {}
            Action::PutModel {
                name,
                version,
                key,
                manifest,
                isolation,
            } => self.versions.push(VersionFact {
                model: own(&name),
                number: version,
                key,
                manifest,
                isolation,
                retired: false,
            }),
            Action::RetireModel { name, version } => {
                let model = own(&name);
                for fact in &mut self.versions {
                    fact.retired |= fact.model == model && fact.number == version;
                }
                self.aliases
                    .retain(|(of, _, to)| !(*of == model && *to == version));
            }
            Action::SetAlias {
                name,
                alias,
                version,
            } => {
                self.drop_alias(&own(&name), &alias);
                self.aliases.push((own(&name), alias, version));
            }
            Action::RemoveAlias { name, alias } => self.drop_alias(&own(&name), &alias),
            Action::SetLease { name, seconds } => self.leases.push((own(&name), seconds)),
            Action::Grant {
                owner,
                name,
                versions,
                subject,
                codes,
                expires,
                ..
            } => self.grants.push(GrantFact {
                id: entry,
                model: ModelId { owner, name },
                versions,
                subject,
                codes,
                expires,
            }),
            Action::Revoke { grants, .. } => {
                self.grants.retain(|grant| !grants.contains(&grant.id));
            }
            Action::AddMember { owner, group, user } => {
                self.groups.push((owner, group.clone()));
                self.members.push((owner, group, user));
            }
            Action::RemoveMember { owner, group, user } => {
                self.members
                    .retain(|known| *known != (owner, group.clone(), user));
            }
            Action::Delegate {
                to,
                delegation,
                expires,
            } => {
                self.drop_role(signer, &to, delegation.role());
                self.roles.push((*signer, to, delegation, expires));
            }
            Action::EndDelegation { to, role } => self.drop_role(signer, &to, role),
            Action::PutRequestKey {
                scope,
                epoch,
                key,
                codes,
                isolation,
                earlier_end,
            } => {
                let approved = (codes, isolation);
                self.put_key(*signer, scope, epoch, key, approved, earlier_end, now);
            }
            Action::EndRequestKey { scope, epoch, at } => {
                self.end_keys(signer, &scope, epoch..=epoch, at.max(now));
            }
            Action::NameCustodians {
                custodians,
                threshold,
            } => self.custodians = Some((custodians, threshold)),
            Action::ApproveUpgrade { code, policy } => {
                // Its newest approval is the one that counts.
                self.approvals.retain(|(by, _)| by != signer);
                self.approvals.push((*signer, (code, policy)));
            }
        }
    }

    fn drop_alias(&mut self, model: &ModelId, alias: &AliasName) {
        self.aliases
            .retain(|(of, name, _)| !(of == model && name == alias));
    }

    fn drop_role(&mut self, owner: &PrincipalId, to: &PrincipalId, role: Role) {
        self.roles
            .retain(|(of, by, known, _)| !(of == owner && by == to && known.role() == role));
    }

    #[allow(clippy::too_many_arguments)]
    fn put_key(
        &mut self,
        user: PrincipalId,
        scope: KeyScope,
        epoch: u32,
        key: Digest,
        (codes, isolation): (Vec<CodeIdentityDigest>, Isolation),
        earlier_end: Option<u64>,
        now: u64,
    ) {
        if let Some(end) = earlier_end {
            self.end_keys(&user, &scope, 1..=epoch - 1, end.max(now));
        }
        let known = self
            .keys
            .iter_mut()
            .find(|fact| fact.user == user && fact.scope == scope && fact.epoch == epoch);
        match known {
            Some(known) => (known.codes, known.isolation) = (codes, isolation),
            None => self.keys.push(KeyFact {
                user,
                scope,
                epoch,
                key,
                codes,
                isolation,
                ends: None,
            }),
        }
    }

    /// What was promised to end ends: a later end changes nothing.
    fn end_keys(
        &mut self,
        user: &PrincipalId,
        scope: &KeyScope,
        epochs: core::ops::RangeInclusive<u32>,
        end: u64,
    ) {
        for fact in &mut self.keys {
            if fact.user == *user && fact.scope == *scope && epochs.contains(&fact.epoch) {
                fact.ends = Some(fact.ends.map_or(end, |known| known.min(end)));
            }
        }
    }
}
