//! Messages on the attested channel, and the numbers of refusals and data types: `wire.json`.

use std::sync::OnceLock;

use minicbor::{Decode, Encode};
use serde_json::{Value, json};
use sesemi_protocol::limits::MAX_WIRE_MESSAGE;
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::share::Share;
use sesemi_protocol::tensor::DataType;
use sesemi_protocol::wire::{
    Call, CallBody, LockedStatus, Reply, ReplyBody, ServiceStatus, UpgradeStatus,
};
use sesemi_protocol::{Digest, cbor};

use crate::answers::{answer, share};
use crate::messages::{recipes, share_recipes};
use crate::support::{
    assert_remade, bytes, counting, list, number, optional, parsed, parsed_list, text, variant,
    vectors, with,
};
use crate::values::{REFUSAL_CODES, isolation, key_name, point, refusal, secret, state_point};

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("wire.json", || {
            let messages: Vec<Value> = recipes().iter().map(fill).collect();
            json!({
                "about": "Messages on the attested channel, without their frame: spec/release-and-wire.md.",
                "messages": messages,
                "shares": share_recipes().iter().map(fill_share).collect::<Value>(),
                "refused_shares": refused_shares(),
                "refused": refused_recipes(),
                "refusal_codes": refusal_codes(),
                "data_types": data_types(),
            })
        })
    })
}

fn number_of(value: &impl Encode<()>) -> u64 {
    let bytes = cbor::encode(value).unwrap();
    minicbor::decode(&bytes).unwrap()
}

fn refusal_codes() -> Vec<Value> {
    let code = |code: &sesemi_protocol::RefusalCode| json!({ "name": code.as_str(), "number": number_of(code) });
    REFUSAL_CODES.iter().map(code).collect()
}

fn data_types() -> Vec<Value> {
    let data_type =
        |t: &DataType| json!({ "name": t.as_str(), "number": number_of(t), "size": t.size() });
    DataType::ALL.iter().map(data_type).collect()
}

fn release_request(value: &Value) -> ReleaseRequest {
    ReleaseRequest {
        model: parsed(value, "model"),
        user: parsed(value, "user"),
        key: key_name(&value["key"]),
        seen: point(&value["seen"]),
    }
}

fn lease(value: &Value) -> Lease {
    Lease {
        model: parsed(value, "model"),
        model_key: secret(value, "model_key"),
        manifest: parsed(value, "manifest"),
        request_key: secret(value, "request_key"),
        seconds: number(value, "seconds"),
        state: state_point(&value["state"]),
        isolation: isolation(value),
    }
}

fn each<T>(values: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    values.as_array().unwrap().iter().map(read).collect()
}

fn call(value: &Value) -> Call {
    let (kind, content) = variant(&value["body"]);
    let signed = |case: &Value, field: &str| bytes(case, field).into();
    Call {
        number: number(value, "number"),
        body: match kind {
            "submit" => CallBody::Submit {
                signed: signed(content, "signed"),
                key: optional(content, "key", secret),
            },
            "release" => CallBody::Release(each(content, release_request)),
            "status" => CallBody::Status {
                seen: point(&content["seen"]),
            },
            "query" => CallBody::Query(signed(&value["body"], "query")),
            "unlock" => CallBody::Unlock(share(content)),
            "hand_over" => CallBody::HandOver {
                policy: parsed(content, "policy"),
            },
            "retire" => CallBody::Retire {
                policy: parsed(content, "policy"),
            },
            other => panic!("no call '{other}'"),
        },
    }
}

fn outcome(value: &Value) -> ReleaseOutcome {
    let (kind, content) = variant(value);
    match kind {
        "lease" => ReleaseOutcome::Lease(Box::new(lease(content))),
        "refused" => ReleaseOutcome::Refused(refusal(content)),
        other => panic!("no outcome '{other}'"),
    }
}

fn status(value: &Value) -> ServiceStatus {
    let upgrade = |value: &Value| UpgradeStatus {
        code: parsed(value, "code"),
        policy: parsed(value, "policy"),
        approved_by: parsed_list(value, "approved_by"),
    };
    ServiceStatus {
        head: bytes(value, "head").into(),
        custodians: parsed_list(value, "custodians"),
        threshold: number(value, "threshold"),
        upgrades: each(&value["upgrades"], upgrade),
    }
}

fn reply_of(value: &Value) -> Reply {
    let body = &value["body"];
    let (kind, content) = variant(body);
    Reply {
        number: number(value, "number"),
        body: match kind {
            "receipt" => ReplyBody::Receipt(bytes(body, "receipt").into()),
            "released" => ReplyBody::Released(each(content, outcome)),
            "status" => ReplyBody::Status(Box::new(status(content))),
            "refused" => ReplyBody::Refused(refusal(content)),
            "sequence_behind" => ReplyBody::SequenceBehind(number(body, "sequence_behind")),
            "answer" => ReplyBody::Answer(Box::new(answer(content))),
            "locked" => ReplyBody::Locked(LockedStatus {
                service: parsed(content, "service"),
                threshold: number(content, "threshold"),
                received: number(content, "received"),
            }),
            "hand_over" => ReplyBody::HandOver {
                service: parsed(content, "service"),
                key: secret(content, "key"),
            },
            "retired" => ReplyBody::Retired(point(content)),
            other => panic!("no reply '{other}'"),
        },
    }
}

/// The text form of a share, which custodians keep, and the digest by which a service knows it again.
fn fill_share(case: &Value) -> Value {
    let share = share(&case["value"]);
    with(
        case,
        json!({
            "bytes": hex::encode(&*cbor::encode(&share).unwrap()),
            "text": *share.to_text(),
            "commitment": share.commitment().unwrap().to_string(),
        }),
    )
}

fn refused_shares() -> Vec<Value> {
    let made = fill_share(&share_recipes()[0]);
    let good = text(&made, "text");
    let (content, _) = good.rsplit_once(' ').unwrap();
    let summed = |content: &str| {
        let sum = Digest::of(&[b"sesemi/v1/share-checksum", content.as_bytes()].concat());
        format!("{content} {}", sum.short())
    };
    assert_eq!(summed(content), good);
    let case = |name: &str, text: String| json!({ "name": name, "text": text });
    vec![
        case("no text", String::new()),
        case("another format", good.replace("-v1 ", "-v2 ")),
        case("a digit is wrong", good.replace("505152", "505153")),
        case("the checksum is missing", content.to_owned()),
        case("a blank follows", format!("{good} ")),
        case("two ends of line", format!("{good}\n\n")),
        case(
            "two blanks, with the right checksum",
            summed(&content.replace(" threshold", "  threshold")),
        ),
        case(
            "capitals, with the right checksum",
            summed(&content.replace("5a5b5c", "5A5B5C")),
        ),
        case(
            "a leading zero, with the right checksum",
            summed(&content.replace(" 1/3 ", " 01/3 ")),
        ),
        case(
            "number 0, with the right checksum",
            summed(&content.replace(" 1/3 ", " 0/3 ")),
        ),
        case(
            "number 4 of 3, with the right checksum",
            summed(&content.replace(" 1/3 ", " 4/3 ")),
        ),
        case(
            "one is enough, with the right checksum",
            summed(&content.replace("threshold 2", "threshold 1")),
        ),
        case(
            "17 shares, with the right checksum",
            summed(&content.replace(" 1/3 ", " 1/17 ")),
        ),
    ]
}

fn fill(case: &Value) -> Value {
    let value = &case["value"];
    let encoded = match text(case, "kind") {
        "release_request" => cbor::encode(&release_request(value)),
        "lease" => cbor::encode(&lease(value)),
        "share" => cbor::encode(&share(value)),
        "call" => cbor::encode(&call(value)),
        "reply" => cbor::encode(&reply_of(value)),
        other => panic!("no kind '{other}'"),
    };
    with(case, json!({ "bytes": hex::encode(&*encoded.unwrap()) }))
}

/// Decodes a message of a kind and encodes it again.
fn read(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    fn again<T: for<'b> Decode<'b, ()> + Encode<()>>(bytes: &[u8]) -> Option<Vec<u8>> {
        let value: T = cbor::decode(bytes, MAX_WIRE_MESSAGE).ok()?;
        Some(cbor::encode(&value).unwrap().to_vec())
    }
    match kind {
        "release_request" => again::<ReleaseRequest>(bytes),
        "lease" => again::<Lease>(bytes),
        "share" => again::<Share>(bytes),
        "call" => again::<Call>(bytes),
        "reply" => again::<Reply>(bytes),
        other => panic!("no kind '{other}'"),
    }
}

fn refused_recipes() -> Vec<Value> {
    // A good call: {0: 0, 1: [1, [[]]]}, a release of nothing.
    assert!(read("call", &hex::decode("a200000182018180").unwrap()).is_some());
    let case =
        |name: &str, kind: &str, bytes: &str| json!({ "name": name, "kind": kind, "bytes": bytes });
    let mut refused = vec![
        case("no bytes", "call", ""),
        case("a number alone", "call", "05"),
        case("an array in place of the map", "call", "8200 82018180"),
        case("an unknown body", "call", "a20000 01 820780"),
        case("a body that is its number alone", "call", "a20000 01 01"),
        case(
            "a body without its list of fields",
            "call",
            "a20000 01 8101",
        ),
        case(
            "a body with a field too many",
            "call",
            "a20000 01 820182 80f6",
        ),
        case("a field is missing", "call", "a101 82018180"),
        case("a field twice", "call", "a30000 0000 01 82018180"),
        case("fields in another order", "call", "a201 82018180 0000"),
        case("a number in long form", "call", "a2001805 01 82018180"),
        case("a negative number", "call", "a20020 01 82018180"),
        case("a number as a float", "call", "a200f90000 01 82018180"),
        case(
            "a map of indefinite length",
            "call",
            "bf0000 01 82018180 ff",
        ),
        case("a byte follows", "call", "a20000 01 82018180 00"),
        case("a tag in front", "call", "c6a20000 01 82018180"),
        case(
            "no key beside a command, as null",
            "call",
            "a20000 01 820082 4100 f6",
        ),
        case("a command as text", "call", "a20000 01 820081 6100"),
        case(
            "an unknown refusal code",
            "reply",
            "a20000 01 820381 a200181b0160",
        ),
        case("refusal code 0", "reply", "a20000 01 820381 a200000160"),
        case(
            "a refusal detail that is not UTF-8",
            "reply",
            "a20000 01 820381 a2000f0161ff",
        ),
        case("a receipt as text", "reply", "a20000 01 820081 6161"),
        case(
            "an unknown outcome of a release",
            "reply",
            "a20000 01 820181 81 820280",
        ),
        case("an unknown reply", "reply", "a20000 01 820980"),
        case(
            "a list that claims 2^60 items",
            "call",
            "a20000 01 82019b1000000000000000",
        ),
    ];
    for case in &mut refused {
        case["bytes"] = text(case, "bytes").replace(' ', "").into();
    }
    let made = |kind: &str| {
        let recipe = recipes().into_iter().find(|case| case["kind"] == kind);
        bytes(&fill(&recipe.unwrap()), "bytes")
    };
    let lease = made("lease");
    // A lease ends with its isolation: a level, and a quantum.
    let [start @ .., 0x02, 0x18, 0xfa] = lease.as_slice() else {
        panic!("a lease ends otherwise");
    };
    let isolated = |tail: &[u8]| hex::encode([start, tail].concat());
    refused.push(case(
        "an unknown level of isolation",
        "lease",
        &isolated(&[0x04, 0x18, 0xfa]),
    ));
    refused.push(case(
        "a quantum of more than a minute",
        "lease",
        &isolated(&[0x02, 0x19, 0xea, 0x61]),
    ));
    // The model key of a lease, and the value at the end of a share, one byte shorter each.
    let mut lease = lease.clone();
    let key = hex::decode(counting(0x10, 32)).unwrap();
    let place = lease.windows(32).position(|window| window == key).unwrap();
    lease[place - 1] = 0x1f;
    lease.remove(place);
    refused.push(case("a key of 31 bytes", "lease", &hex::encode(lease)));
    let mut share = made("share");
    let place = share.len() - 32;
    share[place - 1] = 0x1f;
    share.remove(place);
    refused.push(case("a share of 31 bytes", "share", &hex::encode(share)));
    // {0: service, 1: 1, 2: 3, 3: 2, 4: value}
    let share = made("share");
    let numbers = share.len() - 32 - 2 - 1 - 6;
    assert_eq!(share[numbers..numbers + 6], [1, 1, 2, 3, 3, 2]);
    for (name, place, value) in [
        ("share number 0", 1, 0),
        ("share number 4 of 3", 1, 4),
        ("17 shares", 3, 17),
        ("a share that is enough alone", 5, 1),
        ("more shares needed than there are", 5, 4),
    ] {
        let mut share = share.clone();
        share[numbers + place] = value;
        refused.push(case(name, "share", &hex::encode(share)));
    }
    refused
}

#[test]
fn every_message_is_remade_byte_for_byte() {
    assert_remade(&file()["messages"], &recipes(), fill);
}

#[test]
fn every_message_reads_back_as_written() {
    for case in list(file(), "messages") {
        let bytes = bytes(case, "bytes");
        let again = read(text(case, "kind"), &bytes);
        assert_eq!(again, Some(bytes), "{}", case["name"]);
    }
}

#[test]
fn every_message_that_must_be_refused_is_refused() {
    assert_eq!(list(file(), "refused"), refused_recipes());
    for case in list(file(), "refused") {
        let again = read(text(case, "kind"), &bytes(case, "bytes"));
        assert_eq!(again, None, "{}", case["name"]);
    }
}

#[test]
fn every_share_is_remade_and_reads_back_from_its_text() {
    assert_remade(&file()["shares"], &share_recipes(), fill_share);
    for case in list(file(), "shares") {
        let written = text(case, "text");
        let share = share(&case["value"]);
        for text in [
            written.to_owned(),
            format!("{written}\n"),
            format!("{written}\r\n"),
        ] {
            assert_eq!(Share::from_text(&text).unwrap(), share);
        }
    }
}

#[test]
fn every_text_that_is_no_share_is_refused() {
    assert_eq!(list(file(), "refused_shares"), refused_shares());
    for case in list(file(), "refused_shares") {
        assert!(Share::from_text(text(case, "text")).is_err(), "{case}");
    }
}

#[test]
fn refusal_codes_and_data_types_keep_their_numbers() {
    assert_eq!(list(file(), "refusal_codes"), refusal_codes());
    assert_eq!(list(file(), "data_types"), data_types());
}
