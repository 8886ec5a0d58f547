//! The messages in the vectors: every call, every reply, and what is in them alone.

use serde_json::{Value, json};

use crate::commands::custodians;
use crate::support::counting;
use crate::values::{
    key_id, model_text, owner_seed, service_seed, some_point, start, state_at, user_seed,
};

fn release_requests() -> [Value; 2] {
    let owner = key_id(&owner_seed());
    let request = |model: String, key: Value, seen: Value| json!({ "model": model, "user": key_id(&user_seed()), "key": key, "seen": seen });
    [
        request(
            model_text(1),
            json!({ "scope": "model", "epoch": 1 }),
            some_point(4),
        ),
        request(
            format!("{owner}/breast-cancer@stable"),
            json!({ "scope": "all_models", "epoch": 70_000 }),
            start(),
        ),
    ]
}

fn a_lease() -> Value {
    json!({
        "model": model_text(3),
        "model_key": counting(0x10, 32),
        "manifest": counting(0x70, 32),
        "request_key": counting(0x60, 32),
        "seconds": 300,
        "isolation": { "level": "sequential", "quantum_ms": 250 },
        "state": state_at(some_point(1000)),
    })
}

pub(crate) fn share_recipes() -> Vec<Value> {
    let share = |name: &str, index: u8, of: u8, threshold: u8| {
        let share = json!({
            "service": key_id(&service_seed()), "index": index, "of": of, "threshold": threshold,
            "value": counting(0x50, 32),
        });
        json!({ "name": name, "value": share })
    };
    vec![
        share("one of three, two of which are enough", 1, 3, 2),
        share("the last of sixteen, all of which are needed", 16, 16, 16),
    ]
}

fn a_share() -> Value {
    json!({
        "service": key_id(&service_seed()), "index": 1, "of": 3, "threshold": 2, "value": counting(0x50, 32),
    })
}

fn case(name: &str, kind: &str, value: Value) -> Value {
    json!({ "name": name, "kind": kind, "value": value })
}

pub(crate) fn recipes() -> Vec<Value> {
    let [by_version, by_alias] = release_requests();
    let mut recipes = vec![
        case("a release request alone", "release_request", by_version),
        case(
            "a release request for an alias",
            "release_request",
            by_alias,
        ),
        case("a lease alone", "lease", a_lease()),
        case("a share alone", "share", a_share()),
    ];
    recipes.extend(call_recipes());
    recipes.extend(reply_recipes());
    recipes.extend(governing_recipes());
    recipes
}

fn call_recipes() -> Vec<Value> {
    let call = |name: &str, number: u64, body: Value| {
        case(name, "call", json!({ "number": number, "body": body }))
    };
    let submit = |key: Value| json!({ "submit": { "signed": "d28443a10127a0404100", "key": key } });
    let [by_version, by_alias] = release_requests();
    let policy = json!({ "policy": counting(0x80, 32) });
    vec![
        call("submit a command", 0, submit(Value::Null)),
        call(
            "submit a command with a key beside it",
            1,
            submit(counting(0x10, 32).into()),
        ),
        call("ask for a release", 23, json!({ "release": [by_version] })),
        call(
            "ask for two releases",
            24,
            json!({ "release": [by_version, by_alias] }),
        ),
        call(
            "ask for the status",
            25,
            json!({ "status": { "seen": some_point(7) } }),
        ),
        call(
            "ask for the status without having seen anything",
            26,
            json!({ "status": { "seen": start() } }),
        ),
        call(
            "ask a question",
            27,
            json!({ "query": "d28443a10127a0404100" }),
        ),
        call("hand in a share", 28, json!({ "unlock": a_share() })),
        call(
            "ask for the key to the state",
            29,
            json!({ "hand_over": policy }),
        ),
        call("make the service retire", 30, json!({ "retire": policy })),
    ]
}

fn reply(name: &str, number: u64, body: Value) -> Value {
    case(name, "reply", json!({ "number": number, "body": body }))
}

fn reply_recipes() -> Vec<Value> {
    let refusal = |code: &str, detail: &str| json!({ "code": code, "detail": detail });
    let refused = |code: &str, detail: &str| json!({ "refused": refusal(code, detail) });
    vec![
        reply("a receipt", 0, json!({ "receipt": "d28443a10127a0404100" })),
        reply(
            "a lease",
            23,
            json!({ "released": [{ "lease": a_lease() }] }),
        ),
        reply(
            "a lease and a refusal",
            24,
            json!({ "released": [{ "lease": a_lease() }, { "refused": refusal("not_granted", "") }] }),
        ),
        reply("a refusal", 4_294_967_296, refused("not_granted", "")),
        reply(
            "a refusal with detail",
            1,
            refused("malformed", "malformed CBOR: end of input bytes"),
        ),
        reply(
            "a refusal of the highest code",
            1,
            refused("clock_skew", ""),
        ),
        reply(
            "a sequence that is behind",
            2,
            json!({ "sequence_behind": 41 }),
        ),
        reply(
            "an answer",
            27,
            json!({ "answer": { "people": [{ "member": { "group": "study-7", "user": key_id(&user_seed()) } }] } }),
        ),
    ]
}

fn governing_recipes() -> Vec<Value> {
    let status = |head: &str, custodians: Vec<String>, threshold: u8, upgrades: Value| {
        json!({ "status": {
            "head": head, "custodians": custodians, "threshold": threshold, "upgrades": upgrades,
        } })
    };
    let upgrades = json!([
        { "code": counting(0x91, 32), "policy": counting(0x80, 32), "approved_by": [key_id(&user_seed())] },
        { "code": counting(0x92, 32), "policy": counting(0x80, 32), "approved_by": [] },
    ]);
    vec![
        reply(
            "the status of a service without custodians",
            25,
            status("d28443a10127a0404100", vec![], 0, json!([])),
        ),
        reply(
            "the status of a service with custodians and upgrades",
            25,
            status("d28443a10127a0404100", custodians(), 2, upgrades),
        ),
        reply(
            "the state is locked",
            28,
            json!({ "locked": { "service": key_id(&service_seed()), "threshold": 2, "received": 1 } }),
        ),
        reply(
            "the key to the state",
            29,
            json!({ "hand_over": { "service": key_id(&service_seed()), "key": counting(0x40, 32) } }),
        ),
        reply("the log ended", 30, json!({ "retired": some_point(1000) })),
    ]
}
