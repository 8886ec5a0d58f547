//! Signed queries and their answers: `queries.json`.

use std::sync::OnceLock;

use serde_json::{Value, json};
use sesemi_protocol::cbor;
use sesemi_protocol::cose::sign1;
use sesemi_protocol::limits::MAX_WIRE_MESSAGE;
use sesemi_protocol::query::{self, QueryAnswer};
use sesemi_protocol::receipt::SignedError;

use crate::answers::{answer, query as query_of};
use crate::signed::{COMMAND, QUERY, protected_of, reason, sign1_with, signed_fields};
use crate::support::{assert_remade, bytes, counting, list, named, text, vectors, with};
use crate::values::{
    grantor_seed, identity, key_id, model_text, owner_seed, service_seed, some_point, start,
    user_seed,
};

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("queries.json", || {
            let queries: Value = query_recipes().iter().map(fill_query).collect();
            let answers: Value = answer_recipes().iter().map(fill_answer).collect();
            json!({
                "about": "Signed queries, and answers to them: spec/queries.md. A refused query is checked with the key of \
                          'seed'; 'refused_as' is the first check that fails.",
                "refused": refused_recipes(&queries, &answers),
                "queries": queries,
                "answers": answers,
            })
        })
    })
}

fn query_recipes() -> Vec<Value> {
    let owner = key_id(&owner_seed());
    let user = key_id(&user_seed());
    let case = |name: &str, seed: String, seen: Value, question: Value| {
        json!({
            "name": name, "seed": seed, "service": key_id(&service_seed()), "at": 1_795_000_000_u64, "seen": seen,
            "question": question,
        })
    };
    let by_owner = |name: &str, question: Value| case(name, owner_seed(), some_point(23), question);
    let by_user = |name: &str, question: Value| case(name, user_seed(), start(), question);
    vec![
        by_owner(
            "all grants of an owner",
            json!({ "grants": { "owner": owner, "name": null, "after": 0 } }),
        ),
        by_owner(
            "more grants of one model",
            json!({ "grants": { "owner": owner, "name": "breast-cancer", "after": 1000 } }),
        ),
        by_user(
            "the grants to the asker",
            json!({ "grants_to_me": { "after": 24 } }),
        ),
        by_owner(
            "an explanation for any request key",
            json!({ "explain": {
                "user": user, "model": model_text(1), "code": counting(0x90, 32), "key": null,
            } }),
        ),
        by_user(
            "an explanation for an alias and one request key",
            json!({ "explain": {
                "user": user, "model": format!("{owner}/breast-cancer@stable"), "code": counting(0x90, 32),
                "key": { "scope": "all_models", "epoch": 7 },
            } }),
        ),
        case(
            "an auditor reads the log with the owner's eyes",
            grantor_seed(),
            some_point(7),
            json!({ "audit": { "of": owner, "after": 7 } }),
        ),
        by_user(
            "the asker's request keys",
            json!({ "request_keys": { "after": 0 } }),
        ),
        by_owner(
            "the first models of an owner",
            json!({ "models": { "owner": owner, "after": null } }),
        ),
        by_owner(
            "more models of an owner",
            json!({ "models": { "owner": owner, "after": "breast-cancer" } }),
        ),
        by_owner(
            "the people of an owner",
            json!({ "people": { "owner": owner, "after": 0 } }),
        ),
        by_user("a custodian's share", json!({ "share": null })),
    ]
}

fn fill_query(case: &Value) -> Value {
    let query = query_of(case);
    let seed = text(case, "seed");
    let message = query.sign(&identity(seed)).unwrap();
    let payload = cbor::encode(&query).unwrap();
    with(case, signed_fields(seed, QUERY, &payload, &message))
}

fn grant_views() -> Value {
    let owner = key_id(&owner_seed());
    let view = |id: u64, more: Value| {
        let view = json!({
            "id": id, "model": format!("{owner}/breast-cancer"), "versions": { "all": null },
            "subject": { "user": key_id(&user_seed()) }, "codes": [counting(0x90, 32)], "expires": null, "note": "",
            "by": owner,
        });
        with(&view, more)
    };
    json!([
        view(7, json!({})),
        view(
            23,
            json!({
                "versions": { "exact": 1 }, "subject": { "group": "study-7" }, "expires": 1_800_000_000_u64,
                "codes": [counting(0x90, 32), counting(0xb0, 32)], "note": "für die Studie 7",
                "by": key_id(&grantor_seed()),
            })
        ),
        view(24, json!({ "versions": { "alias": "stable" } })),
    ])
}

fn explanations() -> [Value; 2] {
    let model_key = json!({ "scope": "model", "epoch": 1 });
    let for_all = json!({ "scope": "all_models", "epoch": 2 });
    let grant = |id: u64, verdict: &str| json!({ "grant": { "id": id, "verdict": verdict } });
    let key = |name: &Value, verdict: &str| json!({ "request_key": { "name": name, "verdict": verdict } });
    [
        json!({
            "allowed": model_text(3), "refused": null, "seconds": 300,
            "isolation": { "level": "sequential", "quantum_ms": 20 },
            "findings": [
                { "user": true }, { "version": 3 }, grant(7, "other_version"), grant(23, "other_code"),
                grant(24, "expired"), grant(1000, "allows"), key(&model_key, "allows"),
            ],
        }),
        json!({
            "allowed": null, "refused": "no_request_key", "seconds": 0, "isolation": null,
            "findings": [
                { "user": false }, { "version": null }, key(&model_key, "missing"), key(&for_all, "other_code"),
                key(&for_all, "ended"),
            ],
        }),
    ]
}

fn answer_recipes() -> Vec<Value> {
    let case = |name: &str, answer: Value| json!({ "name": name, "answer": answer });
    let [allowed, refused] = explanations();
    let scope = json!({ "model": format!("{}/breast-cancer", key_id(&owner_seed())) });
    let keys = json!([
        { "scope": { "all_models": null }, "epoch": 1, "key": counting(0x30, 32), "codes": [counting(0x90, 32)], "ends": null,
          "isolation": { "level": "shared", "quantum_ms": 0 } },
        { "scope": scope, "epoch": 70_000, "key": counting(0x31, 32), "codes": [counting(0x90, 32), counting(0xb0, 32)],
          "ends": 1_800_000_000_u64, "isolation": { "level": "dedicated-user", "quantum_ms": 250 } },
    ]);
    let version = |number: u32, level: &str, quantum_ms: u32| json!({ "version": number, "isolation": { "level": level, "quantum_ms": quantum_ms } });
    let models = json!([
        { "name": "breast-cancer", "versions": [version(1, "shared", 0), version(3, "dedicated-user", 20), version(u32::MAX, "sequential", 60_000)],
          "lease_seconds": 60,
          "aliases": [{ "alias": "stable", "version": 1 }, { "alias": "test", "version": 3 }] },
        { "name": "retired", "versions": [], "aliases": [], "lease_seconds": null },
    ]);
    let (user, grantor) = (key_id(&user_seed()), key_id(&grantor_seed()));
    let people = json!([
        { "member": { "group": "study-7", "user": user } },
        { "delegate": { "to": grantor, "delegation": { "grantor": { "codes": [counting(0x90, 32)] } }, "expires": null } },
        { "delegate": { "to": grantor, "delegation": { "auditor": null }, "expires": 1_800_000_000_u64 } },
    ]);
    let share = json!({
        "service": key_id(&service_seed()), "index": 3, "of": 5, "threshold": 2, "value": counting(0x50, 32),
    });
    let items = json!([{ "shown": "a0" }, { "hidden": counting(0x33, 32) }, { "shown": "" }]);
    vec![
        case("grants", json!({ "grants": grant_views() })),
        case("no more grants", json!({ "grants": [] })),
        case(
            "why a release is allowed",
            json!({ "explanation": allowed }),
        ),
        case(
            "why a release is refused",
            json!({ "explanation": refused }),
        ),
        case(
            "a part of the log, whatever is in it",
            json!({ "audit": { "from": some_point(7), "items": items } }),
        ),
        case(
            "nothing after the end of the log",
            json!({ "audit": { "from": some_point(1000), "items": [] } }),
        ),
        case("request keys", json!({ "request_keys": keys })),
        case("models", json!({ "models": models })),
        case("members and delegates", json!({ "people": people })),
        case("a share", json!({ "share": share })),
    ]
}

fn fill_answer(case: &Value) -> Value {
    let bytes = cbor::encode(&answer(&case["answer"])).unwrap();
    with(case, json!({ "bytes": hex::encode(&*bytes) }))
}

fn refused_recipes(queries: &Value, answers: &Value) -> Value {
    let seed = user_seed();
    let good = named(queries, "the asker's request keys");
    let payload = bytes(good, "payload");
    let protected = protected_of(&seed);
    let case = |name: &str, kind: &str, refused_as: &str, message: Vec<u8>| {
        json!({
            "name": name, "as": kind, "refused_as": refused_as, "seed": seed, "bytes": hex::encode(message),
        })
    };
    let signed = |payload: &[u8]| sign1_with(&protected, payload, &seed, QUERY);
    assert_eq!(signed(&payload), bytes(good, "bytes"));
    // The payload ends in the question: 82 04 81 00.
    let (front, question) = payload.split_at(payload.len() - 4);
    assert_eq!(question, [0x82, 0x04, 0x81, 0x00]);
    let asking = |question: &[u8]| signed(&[front, question].concat());
    let of_owner = named(queries, "the people of an owner");
    let mut flipped = bytes(good, "bytes");
    flipped[60] ^= 1;
    let explained = bytes(named(answers, "why a release is refused"), "bytes");
    let keys = bytes(named(answers, "request keys"), "bytes");
    json!([
        case(
            "cut by one byte",
            "query",
            "form",
            bytes(good, "bytes").split_last().unwrap().1.to_vec()
        ),
        case(
            "a bit of the payload is changed",
            "query",
            "authenticity",
            flipped
        ),
        case(
            "signed as a command",
            "query",
            "authenticity",
            sign1_with(&protected, &payload, &seed, COMMAND)
        ),
        case(
            "from another principal",
            "query",
            "authenticity",
            bytes(of_owner, "bytes")
        ),
        case(
            "an unknown question",
            "query",
            "content",
            asking(&[0x82, 0x08, 0x80])
        ),
        case(
            "a question that is its number alone",
            "query",
            "content",
            asking(&[0x04])
        ),
        case(
            "a question with a field too many",
            "query",
            "content",
            asking(&[0x82, 0x04, 0x82, 0x00, 0x00])
        ),
        case(
            "a question that lacks a field",
            "query",
            "content",
            asking(&[0x82, 0x01, 0x80])
        ),
        case(
            "a byte follows the payload's CBOR",
            "query",
            "content",
            asking(&[0x82, 0x04, 0x81, 0x00, 0x00])
        ),
        case(
            "an unknown answer",
            "answer",
            "form",
            vec![0x82, 0x07, 0x80]
        ),
        case(
            "a list of grants without its list of fields",
            "answer",
            "form",
            vec![0x82, 0x00, 0x80]
        ),
        case(
            "an item that is neither shown nor hidden",
            "answer",
            "form",
            item(&[0x82, 0x02, 0x81, 0x40])
        ),
        case(
            "a hidden item that is no digest",
            "answer",
            "form",
            item(&[0x82, 0x01, 0x81, 0x40])
        ),
        case(
            "an unknown verdict",
            "answer",
            "form",
            replaced(&explained, &[0x02, 0x03], &[0x02, 0x04])
        ),
        case(
            "an answer of indefinite length",
            "answer",
            "form",
            replaced(&keys, &[0x82, 0x03, 0x81, 0x82], &[0x82, 0x03, 0x81, 0x9f])
        ),
    ])
}

/// An audit with one item.
fn item(item: &[u8]) -> Vec<u8> {
    let point = [&[0xa2, 0x00, 0x00, 0x01, 0x58, 0x20][..], &[0; 32]].concat();
    [&[0x82, 0x02, 0x82], &point[..], &[0x81], item].concat()
}

/// With the last place where `from` stands changed.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let place = bytes.windows(from.len()).rposition(|window| window == from);
    let place = place.unwrap();
    [&bytes[..place], to, &bytes[place + from.len()..]].concat()
}

#[test]
fn every_query_is_remade_byte_for_byte() {
    assert_remade(&file()["queries"], &query_recipes(), fill_query);
}

#[test]
fn every_query_verifies_for_its_asker_alone_and_reads_back() {
    for case in list(file(), "queries") {
        let message = bytes(case, "bytes");
        let parsed = query::parse(&message).unwrap();
        let asker = identity(text(case, "seed"));
        assert_eq!(parsed.claimed_principal(), asker.public().principal_id());
        assert_eq!(parsed.verify(asker.public()).unwrap(), query_of(case));
        assert!(parsed.verify(identity(&service_seed()).public()).is_err());
        let as_command = sign1::parse(&message).unwrap();
        assert!(as_command.verify(asker.public(), COMMAND).is_err());
    }
}

#[test]
fn every_answer_is_remade_byte_for_byte_and_reads_back() {
    assert_remade(&file()["answers"], &answer_recipes(), fill_answer);
    for case in list(file(), "answers") {
        let bytes = bytes(case, "bytes");
        let read: QueryAnswer = cbor::decode(&bytes, MAX_WIRE_MESSAGE).unwrap();
        assert_eq!(read, answer(&case["answer"]));
    }
}

#[test]
fn every_query_and_answer_that_must_be_refused_is_refused_for_the_reason_given() {
    let expected = refused_recipes(&file()["queries"], &file()["answers"]);
    assert_eq!(file()["refused"], expected, "cases are missing");
    for case in list(file(), "refused") {
        let message = bytes(case, "bytes");
        let asker = identity(text(case, "seed"));
        let refused_as = match text(case, "as") {
            "query" => {
                let read = query::parse(&message).and_then(|query| query.verify(asker.public()));
                let error: SignedError = read.unwrap_err();
                reason(&error)
            }
            "answer" => {
                assert!(cbor::decode::<QueryAnswer>(&message, MAX_WIRE_MESSAGE).is_err());
                "form"
            }
            other => panic!("no kind '{other}'"),
        };
        assert_eq!(refused_as, text(case, "refused_as"), "{}", case["name"]);
    }
}
