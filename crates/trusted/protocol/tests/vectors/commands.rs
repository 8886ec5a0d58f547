//! The commands in the vectors: at least one for each action.

use serde_json::{Value, json};
use sesemi_protocol::Digest;

use crate::support::{counting, with};
use crate::values::{
    grantor_seed, identity, key_id, owner_seed, service_seed, some_point, start, user_seed,
};

/// A command in a file, before it is signed.
pub(crate) fn unsigned(name: &str, seed: &str, sequence: u64, seen: Value, action: Value) -> Value {
    json!({
        "name": name, "seed": seed, "service": key_id(&service_seed()), "sequence": sequence, "seen": seen,
        "action": action, "key_beside": null,
    })
}

pub(crate) fn command_recipes() -> Vec<Value> {
    let public_key = |seed: &str| hex::encode(identity(seed).public().key());
    let register = |seed: &str| json!({ "register": { "public_key": public_key(seed) } });
    let mut recipes = vec![
        unsigned(
            "the owner registers",
            &owner_seed(),
            1,
            start(),
            register(&owner_seed()),
        ),
        unsigned(
            "the user registers",
            &user_seed(),
            0,
            start(),
            register(&user_seed()),
        ),
    ];
    let numbered = |seed: String, recipes: Vec<(&str, Value)>| -> Vec<Value> {
        let numbers = 256..;
        let case = |(number, (name, action)): (u64, (&str, Value))| {
            let command = unsigned(name, &seed, number, some_point(number), action.clone());
            with(&command, json!({ "key_beside": key_beside(&action) }))
        };
        numbers.zip(recipes).map(case).collect()
    };
    recipes.extend(numbered(owner_seed(), model_actions()));
    recipes.extend(numbered(owner_seed(), grant_actions()));
    recipes.extend(numbered(
        grantor_seed(),
        vec![("a grantor revokes", revoke())],
    ));
    recipes.extend(numbered(owner_seed(), people_actions()));
    recipes.extend(numbered(user_seed(), request_key_actions()));
    recipes.extend(numbered(owner_seed(), service_actions()));
    recipes
}

/// The keys of the vectors, by their digests.
fn key_beside(action: &Value) -> Value {
    let fields = action.as_object().unwrap().values().next().unwrap();
    let keys = [counting(0x10, 32), counting(0x60, 32), counting(0x61, 32)];
    let found = keys
        .into_iter()
        .find(|key| fields.get("key") == Some(&digest_of(key).into()));
    found.into()
}

/// SHA-256 of a key in hexadecimal: what a command holds of it.
pub(crate) fn digest_of(key: &str) -> String {
    Digest::of(&hex::decode(key).unwrap()).to_string()
}

fn model_actions() -> Vec<(&'static str, Value)> {
    vec![
        (
            "the owner puts a model",
            json!({ "put_model": {
                "name": "breast-cancer", "version": 1, "key": digest_of(&counting(0x10, 32)),
                "manifest": counting(0x70, 32), "isolation": { "level": "shared", "quantum_ms": 0 },
            } }),
        ),
        (
            "the owner puts a model whose requests are run one at a time",
            json!({ "put_model": {
                "name": "breast-cancer", "version": 2, "key": digest_of(&counting(0x10, 32)),
                "manifest": counting(0x70, 32), "isolation": { "level": "sequential", "quantum_ms": 60_000 },
            } }),
        ),
        (
            "the owner retires a model",
            json!({ "retire_model": { "name": "breast-cancer", "version": 4_294_967_295_u32 } }),
        ),
        (
            "the owner sets an alias",
            json!({ "set_alias": { "name": "breast-cancer", "alias": "stable", "version": 1 } }),
        ),
        (
            "the owner removes an alias",
            json!({ "remove_alias": { "name": "breast-cancer", "alias": "stable" } }),
        ),
        (
            "the owner sets a lease",
            json!({ "set_lease": { "name": "breast-cancer", "seconds": 3600 } }),
        ),
        (
            "the owner leaves the lease to the service",
            json!({ "set_lease": { "name": "breast-cancer", "seconds": null } }),
        ),
    ]
}

/// A grant of the vectors' model to the user, all of it, without end.
pub(crate) fn grant() -> Value {
    json!({
        "owner": key_id(&owner_seed()), "name": "breast-cancer", "versions": { "all": null },
        "subject": { "user": key_id(&user_seed()) }, "codes": [counting(0x90, 32)], "expires": null, "note": "",
    })
}

fn grant_actions() -> Vec<(&'static str, Value)> {
    let granted = |more: Value| json!({ "grant": with(&grant(), more) });
    vec![
        ("the owner grants all versions", granted(json!({}))),
        (
            "the owner grants a version to a group in two codes until a time",
            granted(json!({
                "versions": { "exact": 1 }, "subject": { "group": "study-7" },
                "codes": [counting(0x90, 32), counting(0xb0, 32)], "expires": 1_800_000_000_u64,
                "note": "für die Studie 7",
            })),
        ),
        (
            "the owner grants what an alias points to",
            granted(json!({ "versions": { "alias": "stable" } })),
        ),
    ]
}

fn revoke() -> Value {
    json!({ "revoke": { "owner": key_id(&owner_seed()), "grants": [7, 23, 24, 1000] } })
}

fn people_actions() -> Vec<(&'static str, Value)> {
    let member =
        json!({ "owner": key_id(&owner_seed()), "group": "study-7", "user": key_id(&user_seed()) });
    let to = key_id(&grantor_seed());
    vec![
        (
            "the owner puts a user into a group",
            json!({ "add_member": member }),
        ),
        (
            "the owner takes a user out of a group",
            json!({ "remove_member": member }),
        ),
        (
            "the owner lets somebody grant",
            json!({ "delegate": {
                "to": to, "delegation": { "grantor": { "codes": [counting(0x90, 32), counting(0xb0, 32)] } }, "expires": null,
            } }),
        ),
        (
            "the owner lets somebody audit until a time",
            json!({ "delegate": { "to": to, "delegation": { "auditor": null }, "expires": 1_800_000_000_u64 } }),
        ),
        (
            "the owner takes a role back",
            json!({ "end_delegation": { "to": to, "role": "grantor" } }),
        ),
    ]
}

fn request_key_actions() -> Vec<(&'static str, Value)> {
    let model = json!({ "model": format!("{}/breast-cancer", key_id(&owner_seed())) });
    vec![
        (
            "the user puts a request key for all models",
            json!({ "put_request_key": {
                "scope": { "all_models": null }, "epoch": 1, "key": digest_of(&counting(0x60, 32)),
                "codes": [counting(0x90, 32)], "isolation": { "level": "shared", "quantum_ms": 0 },
                "earlier_end": null,
            } }),
        ),
        (
            "the user puts a newer request key for one model in two codes",
            json!({ "put_request_key": {
                "scope": model, "epoch": 70_000, "key": digest_of(&counting(0x61, 32)),
                "codes": [counting(0x90, 32), counting(0xb0, 32)],
                "isolation": { "level": "dedicated-user", "quantum_ms": 250 }, "earlier_end": 1_800_000_000_u64,
            } }),
        ),
        (
            "the user ends a request key for one model",
            json!({ "end_request_key": { "scope": model, "epoch": 1, "at": 1_800_000_000_u64 } }),
        ),
        (
            "the user ends a request key for all models at once",
            json!({ "end_request_key": { "scope": { "all_models": null }, "epoch": 1, "at": 0 } }),
        ),
    ]
}

/// The vectors' custodians, in ascending order.
pub(crate) fn custodians() -> Vec<String> {
    let mut custodians = vec![
        key_id(&owner_seed()),
        key_id(&user_seed()),
        key_id(&grantor_seed()),
    ];
    custodians.sort();
    custodians
}

fn service_actions() -> Vec<(&'static str, Value)> {
    vec![
        (
            "a principal names custodians",
            json!({ "name_custodians": { "custodians": custodians(), "threshold": 2 } }),
        ),
        (
            "a custodian approves an upgrade",
            json!({ "approve_upgrade": { "code": counting(0x91, 32), "policy": counting(0x80, 32) } }),
        ),
    ]
}
