//! Signed commands, receipts and heads: `signed.json`.

use std::sync::OnceLock;

use minicbor::Encoder;
use minicbor::data::Tag;
use serde_json::{Value, json};
use sesemi_protocol::command;
use sesemi_protocol::cose::{CoseError, sign1};
use sesemi_protocol::receipt::{Head, Receipt, SignedError};
use sesemi_protocol::{Digest, PublicIdentity, cbor};

use crate::actions::command as command_of;
use crate::commands::command_recipes;
use crate::signed_refused;
use crate::support::{
    array, assert_remade, bytes, list, named, number, parsed, text, vectors, with,
};
use crate::values::{
    identity, key_id, owner_seed, service_seed, some_point, state_at, state_point, user_seed,
};

pub(crate) const COMMAND: &str = "sesemi/v1/command";
pub(crate) const RECEIPT: &str = "sesemi/v1/receipt";
pub(crate) const HEAD: &str = "sesemi/v1/head";
pub(crate) const QUERY: &str = "sesemi/v1/query";

pub(crate) fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("signed.json", || {
            let fill = |recipes: Vec<Value>, fill: fn(&Value) -> Value| -> Value {
                recipes.iter().map(fill).collect()
            };
            let commands = fill(command_recipes(), fill_command);
            let receipts = fill(receipt_recipes(&commands), fill_receipt);
            let heads = fill(head_recipes(), fill_head);
            json!({
                "about": "Signed commands, receipts and heads: spec/commands-and-receipts.md. 'key_beside' is the key that \
                          travels beside a command. A refused message is checked with the key 'public_key', which the \
                          reader has on record ('null': it has none, as before a registration); 'refused_as' is the first \
                          check that fails.",
                "refused": signed_refused::recipes(&commands, &receipts, &heads),
                "commands": commands,
                "receipts": receipts,
                "heads": heads,
            })
        })
    })
}

/// `Sig_structure` of RFC 9052, section 4.4, encoded here a second time and proved right by the signature.
fn to_be_signed(seed: &str, label: &str, payload: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(&protected_of(seed)).unwrap();
    e.bytes(label.as_bytes()).unwrap();
    e.bytes(payload).unwrap();
    e.into_writer()
}

/// `{1: -8, 4: key id}`.
pub(crate) fn protected_of(seed: &str) -> Vec<u8> {
    let mut header = Encoder::new(Vec::new());
    header.map(2).unwrap().u8(1).unwrap().i8(-8).unwrap();
    let kid = identity(seed).public().key_id();
    header.u8(4).unwrap().bytes(&kid).unwrap();
    header.into_writer()
}

/// A message in parts, as a writer that errs may put them together: no part is checked.
pub(crate) fn sign1_with(protected: &[u8], payload: &[u8], seed: &str, label: &str) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(protected).unwrap().bytes(label.as_bytes()).unwrap();
    e.bytes(payload).unwrap();
    let signature = identity(seed).sign(e.writer());
    let mut e = Encoder::new(Vec::new());
    e.tag(Tag::new(18)).unwrap().array(4).unwrap();
    e.bytes(protected).unwrap().map(0).unwrap();
    e.bytes(payload).unwrap().bytes(&signature).unwrap();
    e.into_writer()
}

/// What stands in a file beside a signed message's inputs.
pub(crate) fn signed_fields(seed: &str, label: &str, payload: &[u8], message: &[u8]) -> Value {
    let to_be_signed = to_be_signed(seed, label, payload);
    let signature = &message[message.len() - 64..];
    identity(seed)
        .public()
        .verify(&to_be_signed, signature)
        .unwrap();
    json!({
        "payload": hex::encode(payload),
        "to_be_signed": hex::encode(to_be_signed),
        "bytes": hex::encode(message),
        "digest": Digest::of(message).to_string(),
    })
}

fn fill_command(case: &Value) -> Value {
    let command = command_of(case);
    let seed = text(case, "seed");
    let message = command.sign(&identity(seed)).unwrap();
    let payload = cbor::encode(&command).unwrap();
    with(case, signed_fields(seed, COMMAND, &payload, &message))
}

fn receipt_recipes(commands: &Value) -> Vec<Value> {
    let case = |name: &str, of: &str, principal: &str, sequence: u64| {
        json!({
            "name": name,
            "seed": service_seed(),
            "state": state_at(some_point(sequence)),
            "principal": key_id(principal),
            "command": text(named(commands, of), "digest"),
            "command_name": of,
        })
    };
    vec![
        case(
            "for the owner's registration",
            "the owner registers",
            &owner_seed(),
            2,
        ),
        case(
            "for the grant",
            "the owner grants all versions",
            &owner_seed(),
            1000,
        ),
    ]
}

pub(crate) fn receipt(case: &Value) -> Receipt {
    Receipt {
        state: state_point(&case["state"]),
        principal: parsed(case, "principal"),
        command: parsed(case, "command"),
    }
}

fn fill_receipt(case: &Value) -> Value {
    let receipt = receipt(case);
    let seed = text(case, "seed");
    let message = receipt.sign(&identity(seed)).unwrap();
    let payload = cbor::encode(&receipt).unwrap();
    with(case, signed_fields(seed, RECEIPT, &payload, &message))
}

fn head_recipes() -> Vec<Value> {
    let case = |name: &str, point: Value, at: u64| json!({ "name": name, "seed": service_seed(), "state": state_at(point), "at": at });
    vec![
        case("after 1000 entries", some_point(1000), 1_795_000_000),
        case("after the first entry", some_point(1), 0),
    ]
}

pub(crate) fn head(case: &Value) -> Head {
    Head {
        state: state_point(&case["state"]),
        at: number(case, "at"),
    }
}

pub(crate) fn fill_head(case: &Value) -> Value {
    let head = head(case);
    let seed = text(case, "seed");
    let message = head.sign(&identity(seed)).unwrap();
    let payload = cbor::encode(&head).unwrap();
    with(case, signed_fields(seed, HEAD, &payload, &message))
}

#[test]
fn every_command_is_remade_byte_for_byte() {
    assert_remade(&file()["commands"], &command_recipes(), fill_command);
}

#[test]
fn every_receipt_and_head_is_remade_byte_for_byte() {
    let recipes = receipt_recipes(&file()["commands"]);
    assert_remade(&file()["receipts"], &recipes, fill_receipt);
    assert_remade(&file()["heads"], &head_recipes(), fill_head);
}

#[test]
fn every_command_verifies_and_reads_back() {
    for case in list(file(), "commands") {
        let message = bytes(case, "bytes");
        let parsed = command::parse(&message).unwrap();
        let signer = identity(text(case, "seed"));
        assert_eq!(parsed.claimed_principal(), signer.public().principal_id());
        assert_eq!(parsed.verify(signer.public()).unwrap(), command_of(case));
        let registered = parsed.verify_registration().map(|(who, _)| who);
        if case["action"].get("register").is_some() {
            assert_eq!(registered.unwrap(), *signer.public());
        } else {
            assert!(registered.is_err());
        }
    }
}

#[test]
fn a_command_holds_the_digest_of_the_key_that_comes_beside_it() {
    for case in list(file(), "commands") {
        let held = command_of(case).action.key().copied();
        let beside = case["key_beside"]
            .as_str()
            .map(|key| Digest::of(&hex::decode(key).unwrap()));
        assert_eq!(held, beside, "{}", case["name"]);
    }
}

#[test]
fn every_receipt_verifies_for_its_command_and_no_other() {
    for case in list(file(), "receipts") {
        let message = bytes(case, "bytes");
        let service = identity(text(case, "seed"));
        let of = named(&file()["commands"], text(case, "command_name"));
        let read = Receipt::verify(&message, service.public(), &bytes(of, "bytes"));
        assert_eq!(read.unwrap(), receipt(case));
        assert!(Receipt::verify(&message, service.public(), b"another").is_err());
    }
}

#[test]
fn every_head_verifies_for_its_service_alone() {
    for case in list(file(), "heads") {
        let message = bytes(case, "bytes");
        let service = identity(text(case, "seed"));
        assert_eq!(
            Head::verify(&message, service.public()).unwrap(),
            head(case)
        );
        let other = identity(&user_seed());
        assert!(Head::verify(&message, other.public()).is_err());
    }
}

pub(crate) fn reason(error: &SignedError) -> &'static str {
    match error {
        SignedError::Cose(CoseError::NotAuthentic) => "authenticity",
        SignedError::Cose(_) => "form",
        SignedError::Cbor(_) => "content",
        SignedError::WrongParty(_) | SignedError::UnknownSigner => "party",
        SignedError::Action(_) => "action",
    }
}

#[test]
fn every_signed_message_that_must_be_refused_is_refused_for_the_reason_given() {
    let file = file();
    let expected = signed_refused::recipes(&file["commands"], &file["receipts"], &file["heads"]);
    assert_eq!(file["refused"], expected, "cases are missing");
    for case in list(file, "refused") {
        let message = bytes(case, "bytes");
        let key = || PublicIdentity::from_key(array(case, "public_key"));
        let error = match (text(case, "as"), &case["public_key"]) {
            ("command", Value::Null) => command::parse(&message)
                .and_then(|parsed| parsed.verify_registration())
                .map(drop),
            ("command", _) => command::parse(&message)
                .and_then(|parsed| parsed.verify(&key()))
                .map(drop),
            ("receipt", _) => Receipt::verify(&message, &key(), &bytes(case, "command")).map(drop),
            ("head", _) => Head::verify(&message, &key()).map(drop),
            (other, _) => panic!("no kind '{other}'"),
        }
        .unwrap_err();
        assert_eq!(reason(&error), text(case, "refused_as"), "{}", case["name"]);
    }
}

#[test]
fn a_signature_for_one_kind_of_message_is_none_for_another() {
    let labels = [COMMAND, RECEIPT, HEAD, QUERY];
    for (field, label) in [
        ("commands", COMMAND),
        ("receipts", RECEIPT),
        ("heads", HEAD),
    ] {
        for case in list(file(), field) {
            let message = bytes(case, "bytes");
            let signer = identity(text(case, "seed"));
            let parsed = sign1::parse(&message).unwrap();
            for other in labels {
                let verified = parsed.verify(signer.public(), other);
                assert_eq!(verified.is_ok(), other == label, "{}", case["name"]);
            }
        }
    }
}
