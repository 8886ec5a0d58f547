//! Entries of a KeyService's log, their chain, and what of it each principal is shown: `audit.json`.
//!
//! The log is a small story in which every kind of entry occurs once. Place and chain are encoded here a second time, by hand.

use std::sync::OnceLock;

use minicbor::Encoder;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use sesemi_protocol::audit::{self, AuditItem, Concerned, Entry, Record, Released};
use sesemi_protocol::query::QueryAnswer;
use sesemi_protocol::receipt::{Head, Point, StatePoint};
use sesemi_protocol::{Digest, ServiceId, cbor};

use crate::actions::command as command_of;
use crate::answers::answer;
use crate::audit_story::{Told, story};
use crate::commands::unsigned;
use crate::signed::fill_head;
use crate::support::{
    array, assert_remade, bytes, counting, list, number, parsed, text, variant, vectors, with,
};
use crate::values::{
    grantor_seed, identity, key_id, key_name, owner_seed, point, service_seed, start, user_seed,
};

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("audit.json", || {
            let entries = Value::Array(entries());
            let views: Value = view_recipes(&entries).iter().map(fill_view).collect();
            json!({
                "about": "A KeyService's log as an audit shows it: spec/audit.md. Each entry has the point before it and the \
                          one after it. A view is what one principal is shown from a point on: 'bytes' is the answer to its \
                          query, 'end' the point that it leads to. 'head' is the end of the log, signed. Under 'misleading' \
                          are views that do not lead to 'end'.",
                "entries": entries,
                "views": views,
                "head": fill_head(&head_recipe(&entries)),
                "misleading": misleading(&entries),
                "refused": refused_recipes(&entries),
            })
        })
    })
}

/// Makes the log entry by entry, because a command holds the point that its signer has seen.
fn entries() -> Vec<Value> {
    let mut entries: Vec<Value> = Vec::new();
    let mut before = start();
    for (number, (name, previous, record)) in (0_u8..).zip(story()) {
        let record = match record {
            Told::Signed(seed, sequence, action) => {
                let mut command = unsigned("", &seed, sequence, before.clone(), action);
                for field in ["name", "key_beside"] {
                    command.as_object_mut().unwrap().remove(field);
                }
                json!({ "command": command })
            }
            Told::Other(record) => record,
        };
        let entry = fill_entry(&json!({
            "name": name,
            "salt": counting(number.wrapping_mul(16), 16),
            "at": 1_795_000_000 + u64::from(number / 2),
            "previous": previous,
            "record": record,
            "before": before,
        }));
        before = entry["after"].clone();
        entries.push(entry);
    }
    entries
}

fn record(value: &Value) -> Record {
    let (kind, f) = variant(value);
    match kind {
        "founded" => Record::Founded {
            public_key: array(f, "public_key"),
            code: parsed(f, "code"),
            policy: parsed(f, "policy"),
        },
        "command" => {
            let signed = command_of(f).sign(&identity(text(f, "seed"))).unwrap();
            Record::Command(signed.into())
        }
        "released" => Record::Released(Released {
            user: parsed(f, "user"),
            model: parsed(f, "model"),
            key: key_name(&f["key"]),
            grant: number(f, "grant"),
            code: parsed(f, "code"),
            evidence: parsed(f, "evidence"),
            times: number(f, "times"),
            state: number(f, "state"),
            last: number(f, "last"),
        }),
        "floor" => Record::Floor(bytes(value, "floor").into()),
        "handed_over" => Record::HandedOver {
            code: parsed(f, "code"),
            policy: parsed(f, "policy"),
        },
        "took_over" => Record::TookOver {
            code: parsed(f, "code"),
            policy: parsed(f, "policy"),
        },
        "recovered" => Record::Recovered {
            code: parsed(f, "code"),
            policy: parsed(f, "policy"),
            shares: list(f, "shares")
                .iter()
                .map(|place| place.as_u64().unwrap().try_into().unwrap())
                .collect(),
        },
        other => panic!("no record '{other}'"),
    }
}

fn entry(case: &Value) -> Entry {
    Entry {
        salt: array(case, "salt"),
        at: number(case, "at"),
        previous: number(case, "previous"),
        record: record(&case["record"]),
    }
}

/// Spec: `[number, chain before]`.
fn place(before: &Point) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(2).unwrap().u64(before.sequence + 1).unwrap();
    e.bytes(before.chain.as_bytes()).unwrap();
    e.into_writer()
}

fn shown_point(point: &Point) -> Value {
    json!({ "sequence": point.sequence, "chain": point.chain.to_string() })
}

fn fill_entry(case: &Value) -> Value {
    let entry = entry(case);
    let public = cbor::encode(&entry).unwrap();
    let sha256 = |bytes: &[u8]| digest(&SHA256, bytes);
    let before = point(&case["before"]);
    let place = place(&before);
    let hashed = sha256(&public);
    let chain = sha256(&[&place, hashed.as_ref()].concat());
    let concerned = match entry.concerned().unwrap() {
        Concerned::Everybody => json!("everybody"),
        Concerned::Only(principals) => {
            let mut ids: Vec<String> = principals.iter().map(ToString::to_string).collect();
            ids.sort();
            ids.dedup();
            json!(ids)
        }
    };
    with(
        case,
        json!({
            "public": hex::encode(&*public),
            "digest": hex::encode(hashed),
            "place": hex::encode(&place),
            "after": { "sequence": before.sequence + 1, "chain": hex::encode(chain) },
            "concerned": concerned,
        }),
    )
}

/// What a principal is shown of the entries after the first `after`.
fn items(entries: &Value, of: &str, after: usize) -> Value {
    let of = of.parse().unwrap();
    let item = |case: &Value| {
        if entry(case).concerned().unwrap().includes(&of) {
            json!({ "shown": case["public"] })
        } else {
            json!({ "hidden": case["digest"] })
        }
    };
    let entries = entries.as_array().unwrap().iter();
    entries.skip(after).map(item).collect()
}

fn view_recipes(entries: &Value) -> Vec<Value> {
    let case = |name: &str, seed: String, after: usize| {
        json!({
            "name": name, "of": key_id(&seed), "from": entries[after]["before"],
            "items": items(entries, &key_id(&seed), after),
        })
    };
    let stranger = counting(0xe0, 32);
    vec![
        case("all of the log, for the owner", owner_seed(), 0),
        case("all of the log, for the user", user_seed(), 0),
        case("all of the log, for the grantor", grantor_seed(), 0),
        case("the end of the log, for the user", user_seed(), 7),
        case("all of the log, for somebody who is not in it", stranger, 0),
    ]
}

fn fill_view(case: &Value) -> Value {
    let view = json!({ "audit": { "from": case["from"], "items": case["items"] } });
    let answer = answer(&view);
    let bytes = cbor::encode(&answer).unwrap();
    let QueryAnswer::Audit { from, items } = answer else {
        panic!("no audit");
    };
    let end = audit::follow(&from, &items);
    with(
        case,
        json!({ "end": shown_point(&end), "bytes": hex::encode(&*bytes) }),
    )
}

fn head_recipe(entries: &Value) -> Value {
    let end = entries.as_array().unwrap().last().unwrap();
    let state = json!({ "service": key_id(&service_seed()), "point": end["after"] });
    json!({ "seed": service_seed(), "state": state, "at": 1_795_000_100 })
}

/// Views that were tampered with. None of them leads to the end of the log.
fn misleading(entries: &Value) -> Value {
    let of = key_id(&user_seed());
    let good: Vec<Value> = items(entries, &of, 0).as_array().unwrap().clone();
    let end = &entries.as_array().unwrap().last().unwrap()["after"];
    let case = |name: &str, from: Value, change: &dyn Fn(&mut Vec<Value>)| {
        let mut items = good.clone();
        change(&mut items);
        json!({ "name": name, "from": from, "items": items, "end": end })
    };
    let other_salt = {
        let entry = with(&entries[7], json!({ "salt": counting(0x71, 16) }));
        fill_entry(&entry)["public"].clone()
    };
    vec![
        case("an entry is left out", start(), &|items| {
            drop(items.remove(9));
        }),
        case("the last entry is left out", start(), &|items| {
            items.pop();
        }),
        case("two entries changed places", start(), &|items| {
            items.swap(1, 2);
        }),
        case("an entry is there twice", start(), &|items| {
            items.insert(3, items[3].clone());
        }),
        case("a hidden entry is another", start(), &|items| {
            items[3] = json!({ "hidden": counting(0x33, 32) });
        }),
        case("a shown entry has another salt", start(), &|items| {
            items[7] = json!({ "shown": other_salt });
        }),
        case(
            "it begins at another point",
            json!({ "sequence": 1, "chain": "00".repeat(32) }),
            &|_| (),
        ),
    ]
    .into()
}

/// Entries that no reader takes for one.
fn refused_recipes(entries: &Value) -> Value {
    let good = bytes(&entries[15], "public");
    let case = |name: &str, bytes: &[u8]| json!({ "name": name, "bytes": hex::encode(bytes) });
    // a4 00 50, the salt, 01 1a and four bytes of time, 02 00, 03 and the record: 82 04 82 ...
    let place = 3 + 16;
    assert_eq!(good[place..place + 2], [0x01, 0x1a]);
    let record = place + 9;
    assert_eq!(good[place + 6..record + 2], [0x02, 0x00, 0x03, 0x82, 0x04]);
    let salt = [&[0xa4, 0x00, 0x4f], &good[3..18], &good[19..]].concat();
    let unknown = [&good[..record + 1], &[0x07], &good[record + 2..]].concat();
    let previous = [&[0xa3], &good[1..place + 6], &good[place + 8..]].concat();
    let recovered = bytes(&entries[17], "public");
    let as_bytes = {
        let end = recovered.len() - 3;
        assert_eq!(recovered[end..], [0x82, 0x01, 0x03]);
        [&recovered[..end], &[0x42, 0x01, 0x03]].concat()
    };
    json!([
        case("no bytes", &[]),
        case("cut by one byte", &good[..good.len() - 1]),
        case("a byte follows", &[&good[..], &[0]].concat()),
        case("a salt of 15 bytes", &salt),
        case("no previous command", &previous),
        case("an unknown kind of record", &unknown),
        case("numbers of shares as a byte string", &as_bytes),
    ])
}

#[test]
fn every_entry_is_remade_byte_for_byte() {
    assert_remade(&file()["entries"], &entries(), fill_entry);
}

#[test]
fn every_entry_reads_back_and_leads_to_the_next() {
    let mut before = Point::START;
    for case in list(file(), "entries") {
        let public = bytes(case, "public");
        assert_eq!(audit::decode(&public).unwrap(), entry(case));
        assert_eq!(point(&case["before"]), before, "{}", case["name"]);
        let place = audit::place(before.sequence + 1, &before.chain);
        assert_eq!(place, bytes(case, "place"));
        before = audit::extend(&before, &parsed(case, "digest"));
        assert_eq!(point(&case["after"]), before, "{}", case["name"]);
    }
}

#[test]
fn every_command_in_an_entry_is_by_the_one_who_is_concerned() {
    for case in list(file(), "entries") {
        let entry = entry(case);
        let Record::Command(signed) = &entry.record else {
            assert_eq!(entry.unverified_command().unwrap(), None);
            continue;
        };
        let (signer, command) = entry.unverified_command().unwrap().unwrap();
        let identity = identity(text(&case["record"]["command"], "seed"));
        assert_eq!(signer, identity.public().principal_id());
        let parsed = sesemi_protocol::command::parse(signed).unwrap();
        assert_eq!(parsed.verify(identity.public()).unwrap(), command);
        assert!(entry.concerned().unwrap().includes(&signer));
    }
}

#[test]
fn every_view_is_remade_and_leads_to_the_head_that_the_service_signed() {
    let entries = &file()["entries"];
    assert_remade(&file()["views"], &view_recipes(entries), fill_view);
    let head = &file()["head"];
    assert_eq!(*head, fill_head(&head_recipe(entries)));
    let service = identity(&service_seed());
    let head = Head::verify(&bytes(head, "bytes"), service.public()).unwrap();
    let views = list(file(), "views");
    for view in views {
        assert_eq!(point(&view["end"]), head.state.point, "{}", view["name"]);
    }
    let shown = |view: &Value| {
        let items = list(view, "items").iter();
        items.filter(|item| item.get("shown").is_some()).count()
    };
    let counts: Vec<usize> = views.iter().map(shown).collect();
    assert_eq!(
        counts,
        [15, 13, 13, 10, 8],
        "shown of 18, 18, 18, 11 and 18"
    );
}

#[test]
fn the_service_id_is_that_of_the_key_in_the_first_entry() {
    let Record::Founded { public_key, .. } = entry(&file()["entries"][0]).record else {
        panic!("the log does not begin with its founding");
    };
    let StatePoint { service, .. } = crate::signed::head(&file()["head"]).state;
    assert_eq!(ServiceId(Digest::of(&public_key).0), service);
}

#[test]
fn no_misleading_view_leads_to_the_end_of_the_log() {
    let expected = misleading(&file()["entries"]);
    assert_eq!(file()["misleading"], expected, "cases are missing");
    for case in list(file(), "misleading") {
        let items: Vec<AuditItem> = list(case, "items")
            .iter()
            .map(crate::answers::audit_item)
            .collect();
        let end = audit::follow(&point(&case["from"]), &items);
        assert_ne!(end, point(&case["end"]), "{}", case["name"]);
    }
}

#[test]
fn every_entry_that_must_be_refused_is_refused() {
    assert_eq!(file()["refused"], refused_recipes(&file()["entries"]));
    for case in list(file(), "refused") {
        assert!(audit::decode(&bytes(case, "bytes")).is_err(), "{case}");
    }
}
