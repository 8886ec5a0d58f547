//! Actions of commands, as they stand in the vector files.

use serde_json::Value;
use sesemi_protocol::command::{
    Action, Command, Delegation, GrantedVersions, KeyScope, Role, Subject,
};

use crate::support::{array, list, number, optional, parsed, parsed_list, text, variant};
use crate::values::{isolation, point, version};

/// A command from its fields in the files.
pub(crate) fn command(case: &Value) -> Command {
    Command {
        service: parsed(case, "service"),
        sequence: number(case, "sequence"),
        seen: point(&case["seen"]),
        action: action(&case["action"]),
    }
}

pub(crate) fn action(value: &Value) -> Action {
    let (kind, f) = variant(value);
    match kind {
        "register" => Action::Register {
            public_key: array(f, "public_key"),
        },
        "put_model" => Action::PutModel {
            name: parsed(f, "name"),
            version: version(f, "version"),
            key: parsed(f, "key"),
            manifest: parsed(f, "manifest"),
            isolation: isolation(f),
        },
        "retire_model" => Action::RetireModel {
            name: parsed(f, "name"),
            version: version(f, "version"),
        },
        "set_alias" => Action::SetAlias {
            name: parsed(f, "name"),
            alias: parsed(f, "alias"),
            version: version(f, "version"),
        },
        "remove_alias" => Action::RemoveAlias {
            name: parsed(f, "name"),
            alias: parsed(f, "alias"),
        },
        "set_lease" => Action::SetLease {
            name: parsed(f, "name"),
            seconds: optional(f, "seconds", number),
        },
        "grant" => Action::Grant {
            owner: parsed(f, "owner"),
            name: parsed(f, "name"),
            versions: versions(&f["versions"]),
            subject: subject(&f["subject"]),
            codes: parsed_list(f, "codes"),
            expires: optional(f, "expires", number),
            note: text(f, "note").to_owned(),
        },
        "revoke" => Action::Revoke {
            owner: parsed(f, "owner"),
            grants: list(f, "grants")
                .iter()
                .map(|id| id.as_u64().unwrap())
                .collect(),
        },
        "put_request_key" => Action::PutRequestKey {
            scope: scope(&f["scope"]),
            epoch: number(f, "epoch"),
            key: parsed(f, "key"),
            codes: parsed_list(f, "codes"),
            isolation: isolation(f),
            earlier_end: optional(f, "earlier_end", number),
        },
        "end_request_key" => Action::EndRequestKey {
            scope: scope(&f["scope"]),
            epoch: number(f, "epoch"),
            at: number(f, "at"),
        },
        _ => people(kind, f),
    }
}

/// Actions about groups, delegates and custodians.
fn people(kind: &str, f: &Value) -> Action {
    match kind {
        "add_member" => Action::AddMember {
            owner: parsed(f, "owner"),
            group: parsed(f, "group"),
            user: parsed(f, "user"),
        },
        "remove_member" => Action::RemoveMember {
            owner: parsed(f, "owner"),
            group: parsed(f, "group"),
            user: parsed(f, "user"),
        },
        "delegate" => Action::Delegate {
            to: parsed(f, "to"),
            delegation: delegation(&f["delegation"]),
            expires: optional(f, "expires", number),
        },
        "end_delegation" => Action::EndDelegation {
            to: parsed(f, "to"),
            role: role(f),
        },
        "name_custodians" => Action::NameCustodians {
            custodians: parsed_list(f, "custodians"),
            threshold: number(f, "threshold"),
        },
        "approve_upgrade" => Action::ApproveUpgrade {
            code: parsed(f, "code"),
            policy: parsed(f, "policy"),
        },
        other => panic!("no action '{other}'"),
    }
}

pub(crate) fn versions(value: &Value) -> GrantedVersions {
    match variant(value).0 {
        "all" => GrantedVersions::All,
        "exact" => GrantedVersions::Exact(version(value, "exact")),
        "alias" => GrantedVersions::Alias(parsed(value, "alias")),
        other => panic!("no kind of versions '{other}'"),
    }
}

pub(crate) fn subject(value: &Value) -> Subject {
    match variant(value).0 {
        "user" => Subject::User(parsed(value, "user")),
        "group" => Subject::Group(parsed(value, "group")),
        other => panic!("no subject '{other}'"),
    }
}

pub(crate) fn scope(value: &Value) -> KeyScope {
    match variant(value).0 {
        "all_models" => KeyScope::AllModels,
        "model" => KeyScope::Model(parsed(value, "model")),
        other => panic!("no scope '{other}'"),
    }
}

pub(crate) fn delegation(value: &Value) -> Delegation {
    match variant(value) {
        ("grantor", f) => Delegation::Grantor {
            codes: parsed_list(f, "codes"),
        },
        ("auditor", _) => Delegation::Auditor,
        (other, _) => panic!("no delegation '{other}'"),
    }
}

fn role(value: &Value) -> Role {
    let roles = [Role::Grantor, Role::Auditor];
    let found = roles
        .into_iter()
        .find(|role| role.as_str() == text(value, "role"));
    found.unwrap()
}
