//! Signed messages that must be refused: wrong in form, changed on the way, or authentic with a content that is wrong.
//!
//! The last kind is signed with the right key by a writer that errs.

use minicbor::Encoder;
use serde_json::{Value, json};
use sesemi_protocol::command::{Action, Command, Delegation};
use sesemi_protocol::{Digest, PrincipalId, cbor};

use crate::actions::command as command_of;
use crate::signed::{COMMAND, HEAD, QUERY, RECEIPT, head, protected_of, receipt, sign1_with};
use crate::support::{bytes, named, text, with};
use crate::values::{identity, owner_seed, service_seed, user_seed};

/// All of them, made from good messages of the file.
pub(crate) fn recipes(commands: &Value, receipts: &Value, heads: &Value) -> Value {
    let user = user_seed();
    let good = named(commands, "the user puts a request key for all models");
    let mut out = Vec::new();
    let mut add = |refused_as: &str, cases: Vec<(&'static str, Vec<u8>)>| {
        for (name, message) in cases {
            out.push(case(name, "command", refused_as, Some(&user), message));
        }
    };
    add("form", malformed(good));
    add("authenticity", changed(good));
    add("content", wrong_payloads(good));
    add("action", senseless_actions(commands));
    out.extend(parties(&bytes(good, "bytes")));
    out.extend(receipts_and_heads(commands, receipts, heads));
    out.into()
}

fn case(name: &str, kind: &str, refused_as: &str, seed: Option<&str>, message: Vec<u8>) -> Value {
    let key = seed.map(|seed| hex::encode(identity(seed).public().key()));
    json!({
        "name": name, "as": kind, "refused_as": refused_as, "public_key": key, "bytes": hex::encode(message),
    })
}

fn malformed(case: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let user = user_seed();
    let (good, payload) = (bytes(case, "bytes"), bytes(case, "payload"));
    let protected = protected_of(&user);
    assert_eq!(sign1_with(&protected, &payload, &user, COMMAND), good);
    let signed = |protected: &[u8]| sign1_with(protected, &payload, &user, COMMAND);
    let unprotected = {
        let place = 1 + 1 + 2 + protected.len();
        assert_eq!(good[place], 0xa0);
        [&good[..place], &[0xa1, 0x04, 0x40], &good[place + 1..]].concat()
    };
    let above = sign1_with(&protected, &vec![0; 16 * 1024], &user, COMMAND);
    vec![
        ("no bytes", vec![]),
        ("cut by one byte", good[..good.len() - 1].to_vec()),
        ("a byte follows", [&good[..], &[0]].concat()),
        ("no tag", good[1..].to_vec()),
        ("the tag of COSE_Encrypt0", [&[0xd0], &good[1..]].concat()),
        ("an unprotected header", unprotected),
        (
            "another algorithm: ES256",
            signed(&[&[0xa2, 0x01, 0x26][..], &protected[3..]].concat()),
        ),
        (
            "a key id of 15 bytes",
            signed(&[&[0xa2, 0x01, 0x27, 0x04, 0x4f][..], &protected[6..21]].concat()),
        ),
        ("above 16 KiB", above),
    ]
}

fn changed(case: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let user = user_seed();
    let (good, payload) = (bytes(case, "bytes"), bytes(case, "payload"));
    let protected = protected_of(&user);
    let mut flipped_payload = good.clone();
    flipped_payload[60] ^= 1;
    let mut flipped_signature = good;
    *flipped_signature.last_mut().unwrap() ^= 1;
    vec![
        ("a bit of the payload is changed", flipped_payload),
        ("a bit of the signature is changed", flipped_signature),
        (
            "signed as a receipt",
            sign1_with(&protected, &payload, &user, RECEIPT),
        ),
        (
            "signed as a query",
            sign1_with(&protected, &payload, &user, QUERY),
        ),
        (
            "signed by another key",
            sign1_with(&protected, &payload, &owner_seed(), COMMAND),
        ),
    ]
}

/// `{0: service, 1: sequence, 2: seen, 3: action}` with an action from a writer that errs.
fn payload_with(action: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    let service = identity(&service_seed()).public().key_id();
    e.map(4).unwrap().u8(0).unwrap().bytes(&service).unwrap();
    e.u8(1).unwrap().u8(9).unwrap().u8(2).unwrap();
    e.map(2).unwrap().u8(0).unwrap().u8(0).unwrap();
    e.u8(1).unwrap().bytes(&[0; 32]).unwrap().u8(3).unwrap();
    action(&mut e);
    e.into_writer()
}

/// A version that is put, with a level of isolation and a quantum.
fn put_model(e: &mut Encoder<Vec<u8>>, isolation: Option<(u8, u32)>) {
    let fields = 4 + u64::from(isolation.is_some());
    e.array(2).unwrap().u8(1).unwrap().array(fields).unwrap();
    e.str("breast-cancer").unwrap().u8(1).unwrap();
    e.bytes(&[1; 32]).unwrap().bytes(&[2; 32]).unwrap();
    if let Some((level, quantum_ms)) = isolation {
        e.array(2).unwrap().u8(level).unwrap();
        e.u32(quantum_ms).unwrap();
    }
}

fn wrong_payloads(case: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let payload = bytes(case, "payload");
    let signed =
        |payload: &[u8]| sign1_with(&protected_of(&user_seed()), payload, &user_seed(), COMMAND);
    let with_action = |action: &dyn Fn(&mut Encoder<Vec<u8>>)| signed(&payload_with(|e| action(e)));
    let unknown_field = [&[0xa5], &payload[1..], &[0x04, 0x00]].concat();
    vec![
        (
            "the payload is not in deterministic form",
            signed(&long_sequence(&payload)),
        ),
        ("an unknown field", signed(&unknown_field)),
        (
            "an unknown action",
            with_action(&|e| {
                e.array(2).unwrap().u8(16).unwrap().array(0).unwrap();
            }),
        ),
        (
            "an action that lacks a field",
            with_action(&|e| {
                e.array(2).unwrap().u8(2).unwrap().array(1).unwrap();
                e.str("breast-cancer").unwrap();
            }),
        ),
        (
            "an action with a field too many",
            with_action(&|e| {
                e.array(2).unwrap().u8(4).unwrap().array(3).unwrap();
                e.str("breast-cancer").unwrap().str("stable").unwrap();
                e.u8(1).unwrap();
            }),
        ),
        (
            "an absent field at the end as null",
            with_action(&|e| {
                e.array(2).unwrap().u8(5).unwrap().array(2).unwrap();
                e.str("breast-cancer").unwrap().null().unwrap();
            }),
        ),
        (
            "an alias that could be a version",
            with_action(&|e| {
                e.array(2).unwrap().u8(4).unwrap().array(2).unwrap();
                e.str("breast-cancer").unwrap().str("1").unwrap();
            }),
        ),
        (
            "an unknown level of isolation",
            with_action(&|e| put_model(e, Some((4, 0)))),
        ),
        (
            "responses that wait for more than a minute",
            with_action(&|e| put_model(e, Some((2, 60_001)))),
        ),
        (
            "a model without isolation",
            with_action(&|e| put_model(e, None)),
        ),
        (
            "an unknown role",
            with_action(&|e| {
                e.array(2).unwrap().u8(11).unwrap().array(2).unwrap();
                e.bytes(&[9; 32]).unwrap().u8(2).unwrap();
            }),
        ),
        (
            "a delegation that is a role alone",
            with_action(&|e| {
                e.array(2).unwrap().u8(10).unwrap().array(2).unwrap();
                e.bytes(&[9; 32]).unwrap().u8(0).unwrap();
            }),
        ),
        (
            "a grantor without codes",
            with_action(&|e| {
                e.array(2).unwrap().u8(10).unwrap().array(2).unwrap();
                e.bytes(&[9; 32]).unwrap();
                e.array(2).unwrap().u8(0).unwrap().array(0).unwrap();
            }),
        ),
        (
            "an auditor with codes",
            with_action(&|e| {
                e.array(2).unwrap().u8(10).unwrap().array(2).unwrap();
                e.bytes(&[9; 32]).unwrap();
                e.array(2).unwrap().u8(1).unwrap().array(1).unwrap();
                e.array(1).unwrap().bytes(&[1; 32]).unwrap();
            }),
        ),
        (
            "a threshold above 255",
            with_action(&|e| {
                e.array(2).unwrap().u8(14).unwrap().array(2).unwrap();
                e.array(2).unwrap().bytes(&[1; 32]).unwrap();
                e.bytes(&[2; 32]).unwrap().u16(258).unwrap();
            }),
        ),
    ]
}

/// The payload with its sequence, 256, in eight bytes instead of two.
fn long_sequence(payload: &[u8]) -> Vec<u8> {
    let place = 1 + 1 + 34 + 1;
    assert_eq!(payload[place..place + 3], [0x19, 0x01, 0x00]);
    let long = [0x1b, 0, 0, 0, 0, 0, 0, 1, 0];
    [&payload[..place], &long, &payload[place + 3..]].concat()
}

/// Commands of the right form that ask for what makes no sense, signed by a client that does not check.
fn senseless_actions(commands: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let edit = |of: &str, change: &dyn Fn(&mut Action)| {
        let case = named(commands, of);
        let mut command: Command = command_of(case);
        change(&mut command.action);
        let payload = cbor::encode(&command).unwrap();
        sign1_with(&protected_of(&user_seed()), &payload, &user_seed(), COMMAND)
    };
    macro_rules! edit {
        ($of:literal, $action:ident.$field:ident = $value:expr) => {
            edit($of, &|action| match action {
                Action::$action { $field, .. } => *$field = $value,
                other => panic!("another action: {other:?}"),
            })
        };
    }
    let code = |n: u8| sesemi_protocol::CodeIdentityDigest([n; 32]);
    let custodian = |n: u8| PrincipalId([n; 32]);
    vec![
        (
            "a grant for no code",
            edit!("the owner grants all versions", Grant.codes = vec![]),
        ),
        (
            "a grant for codes that do not ascend",
            edit!(
                "the owner grants all versions",
                Grant.codes = vec![code(2), code(1)]
            ),
        ),
        (
            "a grant with a note of 257 bytes",
            edit!(
                "the owner grants all versions",
                Grant.note = "n".repeat(257)
            ),
        ),
        (
            "a grant with a control character in its note",
            edit!(
                "the owner grants all versions",
                Grant.note = "a\u{1b}[31m".into()
            ),
        ),
        (
            "a grant with a control character above U+007F in its note",
            edit!(
                "the owner grants all versions",
                Grant.note = "a\u{9b}31m".into()
            ),
        ),
        (
            "a grantor of no code",
            edit!(
                "the owner lets somebody grant",
                Delegate.delegation = Delegation::Grantor { codes: vec![] }
            ),
        ),
        (
            "a grantor of 65 codes",
            edit!(
                "the owner lets somebody grant",
                Delegate.delegation = Delegation::Grantor {
                    codes: (0..65).map(code).collect()
                }
            ),
        ),
        (
            "a grantor of codes that do not ascend",
            edit!(
                "the owner lets somebody grant",
                Delegate.delegation = Delegation::Grantor {
                    codes: vec![code(2), code(1)]
                }
            ),
        ),
        (
            "a request key for the same code twice",
            edit!(
                "the user puts a request key for all models",
                PutRequestKey.codes = vec![code(1); 2]
            ),
        ),
        (
            "a request key for 65 codes",
            edit!(
                "the user puts a request key for all models",
                PutRequestKey.codes = (0..65).map(code).collect()
            ),
        ),
        (
            "a request key of epoch 0",
            edit!(
                "the user puts a request key for all models",
                PutRequestKey.epoch = 0
            ),
        ),
        (
            "a lease of no time",
            edit!("the owner sets a lease", SetLease.seconds = Some(0)),
        ),
        (
            "a lease of more than an hour",
            edit!("the owner sets a lease", SetLease.seconds = Some(3601)),
        ),
        (
            "no grant is revoked",
            edit!("a grantor revokes", Revoke.grants = vec![]),
        ),
        (
            "a grant is revoked twice",
            edit!("a grantor revokes", Revoke.grants = vec![7, 7]),
        ),
        (
            "257 grants are revoked",
            edit!("a grantor revokes", Revoke.grants = (1..258).collect()),
        ),
        (
            "one custodian",
            edit!(
                "a principal names custodians",
                NameCustodians.custodians = vec![custodian(1)]
            ),
        ),
        (
            "17 custodians",
            edit!(
                "a principal names custodians",
                NameCustodians.custodians = (0..17).map(custodian).collect()
            ),
        ),
        (
            "custodians that do not ascend",
            edit!(
                "a principal names custodians",
                NameCustodians.custodians = vec![custodian(2), custodian(1)]
            ),
        ),
        (
            "a threshold of 1",
            edit!("a principal names custodians", NameCustodians.threshold = 1),
        ),
        (
            "a threshold above the number of custodians",
            edit!("a principal names custodians", NameCustodians.threshold = 4),
        ),
    ]
}

fn parties(good: &[u8]) -> Vec<Value> {
    let foreign_registration = payload_with(|e| {
        e.array(2).unwrap().u8(0).unwrap().array(1).unwrap();
        e.bytes(identity(&owner_seed()).public().key()).unwrap();
    });
    let foreign_registration = sign1_with(
        &protected_of(&user_seed()),
        &foreign_registration,
        &user_seed(),
        COMMAND,
    );
    vec![
        case(
            "from another principal",
            "command",
            "authenticity",
            Some(&owner_seed()),
            good.to_vec(),
        ),
        case(
            "not a registration, from an unknown principal",
            "command",
            "party",
            None,
            good.to_vec(),
        ),
        case(
            "a registration of somebody else's key",
            "command",
            "authenticity",
            None,
            foreign_registration,
        ),
    ]
}

fn receipts_and_heads(commands: &Value, receipts: &Value, heads: &Value) -> Vec<Value> {
    let (service, user) = (service_seed(), user_seed());
    let grant = bytes(named(commands, "the owner grants all versions"), "bytes");
    let other = bytes(named(commands, "the owner registers"), "bytes");
    let good = named(receipts, "for the grant");
    let good_head = named(heads, "after 1000 entries");
    let of = |command: &[u8], case: Value| with(&case, json!({ "command": hex::encode(command) }));
    let receipt_case = |name: &str, refused_as: &str, seed: &str, message: Vec<u8>| {
        of(
            &grant,
            case(name, "receipt", refused_as, Some(seed), message),
        )
    };
    let head_case = |name: &str, refused_as: &str, seed: &str, message: Vec<u8>| {
        case(name, "head", refused_as, Some(seed), message)
    };
    let by_user = |label, payload: &[u8]| sign1_with(&protected_of(&user), payload, &user, label);
    let mut trailing = bytes(good_head, "payload");
    trailing.push(0);
    assert_eq!(text(good, "command"), Digest::of(&grant).to_string());
    vec![
        of(
            &other,
            case(
                "a receipt for another command",
                "receipt",
                "party",
                Some(&service),
                bytes(good, "bytes"),
            ),
        ),
        receipt_case(
            "a receipt by another service",
            "authenticity",
            &user,
            bytes(good, "bytes"),
        ),
        receipt_case(
            "a receipt of another service in this one's name",
            "party",
            &user,
            receipt(good).sign(&identity(&user)).unwrap(),
        ),
        receipt_case(
            "a command in a receipt's place",
            "authenticity",
            &user,
            by_user(COMMAND, &bytes(good, "payload")),
        ),
        receipt_case(
            "a head in a receipt's place",
            "authenticity",
            &service,
            bytes(good_head, "bytes"),
        ),
        head_case(
            "a receipt in a head's place",
            "authenticity",
            &service,
            bytes(good, "bytes"),
        ),
        head_case(
            "a head by another service",
            "authenticity",
            &user,
            bytes(good_head, "bytes"),
        ),
        head_case(
            "a head of another service in this one's name",
            "party",
            &user,
            head(good_head).sign(&identity(&user)).unwrap(),
        ),
        head_case(
            "a head with a byte behind its payload's CBOR",
            "content",
            &service,
            sign1_with(&protected_of(&service), &trailing, &service, HEAD),
        ),
    ]
}
