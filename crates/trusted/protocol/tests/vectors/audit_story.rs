//! The log in the vectors: a small story in which every kind of entry occurs.

use serde_json::{Value, json};

use crate::commands::{custodians, digest_of, grant};
use crate::support::{counting, with};
use crate::values::{
    grantor_seed, identity, key_id, model_text, owner_seed, service_seed, user_seed,
};

/// A record in the story: by whom a command is signed, its sequence and its action; or anything else.
pub(crate) enum Told {
    Signed(String, u64, Value),
    Other(Value),
}

/// Name, previous command of the signer, record.
pub(crate) fn story() -> Vec<(&'static str, u64, Told)> {
    let mut story = people();
    story.extend(uses());
    story.extend(successions());
    story
}

fn register(seed: String) -> Told {
    let key = hex::encode(identity(&seed).public().key());
    Told::Signed(seed, 1, json!({ "register": { "public_key": key } }))
}

fn people() -> Vec<(&'static str, u64, Told)> {
    let (code, policy) = (counting(0x90, 32), counting(0x80, 32));
    let service = hex::encode(identity(&service_seed()).public().key());
    let custodians = json!({ "name_custodians": { "custodians": custodians(), "threshold": 2 } });
    let delegate = json!({ "delegate": {
        "to": key_id(&grantor_seed()), "delegation": { "grantor": { "codes": [code] } }, "expires": null,
    } });
    vec![
        (
            "the service is founded",
            0,
            Told::Other(
                json!({ "founded": { "public_key": service, "code": code, "policy": policy } }),
            ),
        ),
        ("the owner registers", 0, register(owner_seed())),
        ("the user registers", 0, register(user_seed())),
        ("the grantor registers", 0, register(grantor_seed())),
        (
            "the owner names custodians",
            2,
            Told::Signed(owner_seed(), 2, custodians),
        ),
        (
            "the owner lets somebody grant",
            5,
            Told::Signed(owner_seed(), 3, delegate),
        ),
    ]
}

fn uses() -> Vec<(&'static str, u64, Told)> {
    let owner = key_id(&owner_seed());
    let put = json!({ "put_model": {
        "name": "breast-cancer", "version": 1, "key": digest_of(&counting(0x10, 32)), "manifest": counting(0x70, 32),
        "isolation": { "level": "dedicated-user", "quantum_ms": 0 },
    } });
    let request_key = json!({ "put_request_key": {
        "scope": { "all_models": null }, "epoch": 1, "key": digest_of(&counting(0x60, 32)),
        "codes": [counting(0x90, 32)], "isolation": { "level": "shared", "quantum_ms": 20 }, "earlier_end": null,
    } });
    let member = json!({ "owner": owner, "group": "study-7", "user": key_id(&user_seed()) });
    let released = json!({ "released": {
        "user": key_id(&user_seed()), "model": model_text(1), "key": { "scope": "all_models", "epoch": 1 }, "grant": 8,
        "code": counting(0x90, 32), "evidence": counting(0x34, 32), "times": 1, "state": 8,
        "last": 1_790_000_000,
    } });
    vec![
        (
            "the owner puts a model",
            6,
            Told::Signed(owner_seed(), 4, put),
        ),
        (
            "the grantor grants",
            4,
            Told::Signed(grantor_seed(), 2, json!({ "grant": grant() })),
        ),
        (
            "the user puts a request key",
            3,
            Told::Signed(user_seed(), 2, request_key),
        ),
        ("keys are released", 0, Told::Other(released)),
        (
            "the grantor puts the user into a group",
            8,
            Told::Signed(grantor_seed(), 3, json!({ "add_member": member })),
        ),
        (
            "the grantor revokes",
            11,
            Told::Signed(
                grantor_seed(),
                4,
                json!({ "revoke": { "owner": owner, "grants": [8] } }),
            ),
        ),
    ]
}

fn successions() -> Vec<(&'static str, u64, Told)> {
    let successor = json!({ "code": counting(0x91, 32), "policy": counting(0x80, 32) });
    let recovered = with(&successor, json!({ "shares": [1, 3] }));
    let approve = |seed: String, sequence| {
        Told::Signed(seed, sequence, json!({ "approve_upgrade": successor }))
    };
    vec![
        (
            "newer endorsements were seen",
            0,
            Told::Other(json!({ "floor": "a10001" })),
        ),
        (
            "a custodian approves an upgrade",
            7,
            approve(owner_seed(), 5),
        ),
        ("another does too", 9, approve(user_seed(), 3)),
        (
            "the service is handed over",
            0,
            Told::Other(json!({ "handed_over": successor })),
        ),
        (
            "its successor takes over",
            0,
            Told::Other(json!({ "took_over": successor })),
        ),
        (
            "custodians recover it",
            0,
            Told::Other(json!({ "recovered": recovered })),
        ),
    ]
}
