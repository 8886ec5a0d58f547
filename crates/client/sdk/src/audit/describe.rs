//! What an entry of the log says, in words and in JSON. It says nothing that the entry does not hold, and proves nothing.

use sesemi_protocol::audit::{self, AuditItem, Record, Released};
use sesemi_protocol::command::{Action, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::release::{NamedScope, RequestKeyName};
use sesemi_protocol::{CodeIdentityDigest, PrincipalId};

/// A shown entry, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// When it was written, in seconds since 1970, by the service's host's clock.
    pub at: u64,
    /// What happened, in one word, as in the names of commands.
    pub kind: &'static str,
    /// Who signed the command, if it is one.
    pub by: Option<PrincipalId>,
    /// What it was about: names and their values.
    pub facts: Vec<(&'static str, String)>,
}

impl Described {
    /// `{"kind": ..., "by": ..., ...}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let mut map = serde_json::Map::new();
        map.insert("kind".into(), self.kind.into());
        if let Some(by) = self.by {
            map.insert("by".into(), by.to_string().into());
        }
        for (name, value) in &self.facts {
            map.insert((*name).into(), value.clone().into());
        }
        map.into()
    }
}

/// Describes an entry; `None` if it is hidden or cannot be read.
#[must_use]
pub fn describe(item: &AuditItem) -> Option<Described> {
    let AuditItem::Shown(public) = item else {
        return None;
    };
    let entry = audit::decode(public).ok()?;
    let (kind, by, facts) = match &entry.record {
        Record::Command(_) => {
            let (signer, command) = entry.unverified_command().ok()??;
            let (kind, facts) = action(&command.action);
            (kind, Some(signer), facts)
        }
        Record::Released(released) => ("released", None, release(released)),
        Record::Founded { code, policy, .. } => ("founded", None, under(code, policy)),
        Record::HandedOver { code, policy } => ("handed-over", None, under(code, policy)),
        Record::TookOver { code, policy } => ("took-over", None, under(code, policy)),
        Record::Floor(_) => ("newer-endorsements", None, vec![]),
        Record::Recovered {
            code,
            policy,
            shares,
        } => {
            let mut facts = under(code, policy);
            facts.push(("shares", joined(shares)));
            ("recovered", None, facts)
        }
    };
    Some(Described {
        at: entry.at,
        kind,
        by,
        facts,
    })
}

type Facts = Vec<(&'static str, String)>;

fn under(code: &CodeIdentityDigest, policy: &sesemi_protocol::Digest) -> Facts {
    vec![("code", code.to_string()), ("policy", policy.to_string())]
}

fn release(released: &Released) -> Facts {
    vec![
        ("model", released.model.to_string()),
        ("user", released.user.to_string()),
        ("key", key(released.key)),
        ("grant", released.grant.to_string()),
        ("code", released.code.to_string()),
        ("evidence", released.evidence.to_string()),
        ("times", released.times.to_string()),
        ("last", released.last.to_string()),
        ("decided-at-entry", released.state.to_string()),
    ]
}

/// A request key by its name: `model/2` or `all/1`.
fn key(name: RequestKeyName) -> String {
    match name.scope {
        NamedScope::Model => format!("model/{}", name.epoch),
        NamedScope::AllModels => format!("all/{}", name.epoch),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(",")
}

fn scope(scope: &KeyScope) -> String {
    match scope {
        KeyScope::AllModels => "all models".into(),
        KeyScope::Model(model) => model.to_string(),
    }
}

fn seconds(name: &'static str, at: Option<u64>) -> Option<(&'static str, String)> {
    at.map(|at| (name, at.to_string()))
}

/// The kind of an action, and what it is about.
fn action(action: &Action) -> (&'static str, Facts) {
    match action {
        Action::Register { .. } => ("register", vec![]),
        Action::PutModel {
            name,
            version,
            manifest,
            isolation,
            ..
        } => (
            "put-model",
            vec![
                ("model", format!("{name}@{version}")),
                ("manifest", manifest.to_string()),
                ("isolation", isolation.to_string()),
            ],
        ),
        Action::RetireModel { name, version } => {
            ("retire-model", vec![("model", format!("{name}@{version}"))])
        }
        Action::SetAlias {
            name,
            alias,
            version,
        } => (
            "set-alias",
            vec![
                ("alias", format!("{name}@{alias}")),
                ("version", version.to_string()),
            ],
        ),
        Action::RemoveAlias { name, alias } => {
            ("remove-alias", vec![("alias", format!("{name}@{alias}"))])
        }
        Action::SetLease { name, seconds } => {
            let lease = seconds.map_or("the service's".into(), |s| s.to_string());
            (
                "set-lease",
                vec![("model", name.to_string()), ("seconds", lease)],
            )
        }
        Action::Grant { .. } | Action::Revoke { .. } => granting(action),
        Action::AddMember { owner, group, user } => {
            ("add-member", member(owner, group.as_str(), user))
        }
        Action::RemoveMember { owner, group, user } => {
            ("remove-member", member(owner, group.as_str(), user))
        }
        Action::Delegate {
            to,
            delegation,
            expires,
        } => {
            let role = delegation.role().as_str();
            let mut facts = vec![("to", to.to_string()), ("role", role.into())];
            if !delegation.codes().is_empty() {
                facts.push(("codes", joined(delegation.codes())));
            }
            facts.extend(seconds("expires", *expires));
            ("delegate", facts)
        }
        Action::EndDelegation { to, role } => (
            "end-delegation",
            vec![("to", to.to_string()), ("role", role.as_str().into())],
        ),
        Action::PutRequestKey { .. } | Action::EndRequestKey { .. } => request_key(action),
        Action::NameCustodians {
            custodians,
            threshold,
        } => (
            "name-custodians",
            vec![
                ("custodians", joined(custodians)),
                ("threshold", threshold.to_string()),
            ],
        ),
        Action::ApproveUpgrade { code, policy } => ("approve-upgrade", under(code, policy)),
    }
}

fn member(owner: &PrincipalId, group: &str, user: &PrincipalId) -> Facts {
    vec![
        ("group", format!("{owner}/{group}")),
        ("user", user.to_string()),
    ]
}

fn granting(action: &Action) -> (&'static str, Facts) {
    match action {
        Action::Grant {
            owner,
            name,
            versions,
            subject,
            codes,
            expires,
            note,
        } => {
            let model = match versions {
                GrantedVersions::All => format!("{owner}/{name}"),
                GrantedVersions::Exact(version) => format!("{owner}/{name}@{version}"),
                GrantedVersions::Alias(alias) => format!("{owner}/{name}@{alias}"),
            };
            let mut facts = vec![("model", model)];
            facts.push(match subject {
                Subject::User(user) => ("user", user.to_string()),
                Subject::Group(group) => ("group", group.to_string()),
            });
            facts.push(("codes", joined(codes)));
            facts.extend(seconds("expires", *expires));
            if !note.is_empty() {
                facts.push(("note", note.clone()));
            }
            ("grant", facts)
        }
        Action::Revoke { owner, grants } => (
            "revoke",
            vec![("owner", owner.to_string()), ("grants", joined(grants))],
        ),
        _ => ("", vec![]),
    }
}

fn request_key(action: &Action) -> (&'static str, Facts) {
    match action {
        Action::PutRequestKey {
            scope: of,
            epoch,
            codes,
            isolation,
            earlier_end,
            ..
        } => {
            let mut facts = vec![
                ("scope", scope(of)),
                ("epoch", epoch.to_string()),
                ("codes", joined(codes)),
                ("isolation", isolation.to_string()),
            ];
            facts.extend(seconds("earlier-end", *earlier_end));
            ("put-request-key", facts)
        }
        Action::EndRequestKey {
            scope: of,
            epoch,
            at,
        } => (
            "end-request-key",
            vec![
                ("scope", scope(of)),
                ("epoch", epoch.to_string()),
                ("end", at.to_string()),
            ],
        ),
        _ => ("", vec![]),
    }
}
