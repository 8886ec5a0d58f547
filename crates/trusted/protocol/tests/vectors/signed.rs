//! Signed commands and receipts: `signed.json`.

use std::sync::OnceLock;

use minicbor::Encoder;
use minicbor::data::Tag;
use serde_json::{Value, json};
use sesemi_protocol::command::{self, Action, Command};
use sesemi_protocol::cose::{CoseError, sign1};
use sesemi_protocol::receipt::{Receipt, SignedError};
use sesemi_protocol::{Digest, PublicIdentity, SecretKey, cbor};

use crate::support::{
    array, assert_remade, bytes, counting, list, named, number, parsed, text, vectors, with,
};
use crate::values::{
    identity, key_id, model_text, owner_seed, service_seed, state_point, user_seed,
};

const COMMAND: &str = "sesemi/v1/command";
const RECEIPT: &str = "sesemi/v1/receipt";

fn file() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| {
        vectors("signed.json", || {
            let commands: Vec<Value> = command_recipes().iter().map(fill_command).collect();
            let commands = Value::Array(commands);
            let receipts: Vec<Value> = receipt_recipes(&commands).iter().map(fill_receipt).collect();
            let receipts = Value::Array(receipts);
            json!({
                "about": "Signed commands and receipts: spec/commands-and-receipts.md. A refused message is checked with \
                          the key 'public_key', which the reader has on record ('null': it has none, as before a \
                          registration); 'refused_as' is the first check that fails.",
                "refused": refused_recipes(&commands, &receipts),
                "commands": commands,
                "receipts": receipts,
            })
        })
    })
}

fn command_recipes() -> Vec<Value> {
    let case = |name: &str, seed: String, sequence: u64, action: Value| {
        json!({
            "name": name, "seed": seed, "service": key_id(&service_seed()), "sequence": sequence, "action": action,
        })
    };
    let public_key = |seed: &str| hex::encode(identity(seed).public().key());
    vec![
        case(
            "the owner registers",
            owner_seed(),
            1,
            json!({ "register": { "public_key": public_key(&owner_seed()) } }),
        ),
        case(
            "the user registers",
            user_seed(),
            0,
            json!({ "register": { "public_key": public_key(&user_seed()) } }),
        ),
        case(
            "the owner puts a model key",
            owner_seed(),
            2,
            json!({ "put_model_key": {
                "name": "breast-cancer", "version": 1, "key": counting(0x10, 32), "manifest": counting(0x70, 32),
            } }),
        ),
        case(
            "the owner grants",
            owner_seed(),
            1_753_900_000_000,
            json!({ "grant": {
                "name": "breast-cancer", "version": 1, "user": key_id(&user_seed()), "code": counting(0x90, 32),
            } }),
        ),
        case(
            "the user puts a request key for one code",
            user_seed(),
            256,
            json!({ "put_request_key": {
                "model": model_text(1), "epoch": 1, "key": counting(0x60, 32), "codes": [counting(0x90, 32)],
            } }),
        ),
        case(
            "the user puts a request key for two codes",
            user_seed(),
            65_536,
            json!({ "put_request_key": {
                "model": model_text(1), "epoch": 70_000, "key": counting(0x61, 32),
                "codes": [counting(0xb0, 32), counting(0x90, 32)],
            } }),
        ),
    ]
}

fn action(value: &Value) -> Action {
    let (kind, fields) = value.as_object().unwrap().iter().next().unwrap();
    let key = |field| SecretKey::from_bytes(array(fields, field));
    match kind.as_str() {
        "register" => Action::Register {
            public_key: array(fields, "public_key"),
        },
        "put_model_key" => Action::PutModelKey {
            name: parsed(fields, "name"),
            version: version(fields),
            key: key("key"),
            manifest: parsed(fields, "manifest"),
        },
        "grant" => Action::Grant {
            name: parsed(fields, "name"),
            version: version(fields),
            user: parsed(fields, "user"),
            code: parsed(fields, "code"),
        },
        "put_request_key" => Action::PutRequestKey {
            model: parsed(fields, "model"),
            epoch: number(fields, "epoch"),
            key: key("key"),
            codes: list(fields, "codes")
                .iter()
                .map(|code| code.as_str().unwrap().parse().unwrap())
                .collect(),
        },
        other => panic!("no action '{other}'"),
    }
}

fn version(value: &Value) -> sesemi_protocol::ModelVersion {
    sesemi_protocol::ModelVersion::new(number(value, "version")).unwrap()
}

fn command(case: &Value) -> Command {
    Command {
        service: parsed(case, "service"),
        sequence: number(case, "sequence"),
        action: action(&case["action"]),
    }
}

/// `Sig_structure` of RFC 9052, section 4.4, encoded here a second time and proved right by the signature.
fn to_be_signed(seed: &str, label: &str, payload: &[u8]) -> Vec<u8> {
    let mut header = Encoder::new(Vec::new());
    header.map(2).unwrap().u8(1).unwrap().i8(-8).unwrap();
    let kid = identity(seed).public().key_id();
    header.u8(4).unwrap().bytes(&kid).unwrap();
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(header.writer()).unwrap();
    e.bytes(label.as_bytes()).unwrap();
    e.bytes(payload).unwrap();
    e.into_writer()
}

fn signed_fields(seed: &str, label: &str, payload: &[u8], message: &[u8]) -> Value {
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
    let command = command(case);
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
            "state": { "service": key_id(&service_seed()), "sequence": sequence },
            "chain": counting(0xc0, 32),
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
            1,
        ),
        case("for the grant", "the owner grants", &owner_seed(), 1000),
    ]
}

fn fill_receipt(case: &Value) -> Value {
    let receipt = receipt(case);
    let seed = text(case, "seed");
    let message = receipt.sign(&identity(seed)).unwrap();
    let payload = cbor::encode(&receipt).unwrap();
    with(case, signed_fields(seed, RECEIPT, &payload, &message))
}

fn receipt(case: &Value) -> Receipt {
    Receipt {
        state: state_point(&case["state"]),
        chain: parsed(case, "chain"),
        principal: parsed(case, "principal"),
        command: parsed(case, "command"),
    }
}

#[test]
fn every_command_is_remade_byte_for_byte() {
    assert_remade(&file()["commands"], &command_recipes(), fill_command);
}

#[test]
fn every_receipt_is_remade_byte_for_byte() {
    let recipes = receipt_recipes(&file()["commands"]);
    assert_remade(&file()["receipts"], &recipes, fill_receipt);
}

#[test]
fn every_command_verifies_and_reads_back() {
    for case in list(file(), "commands") {
        let message = bytes(case, "bytes");
        let parsed = command::parse(&message).unwrap();
        let signer = identity(text(case, "seed"));
        assert_eq!(parsed.claimed_principal(), signer.public().principal_id());
        assert_eq!(parsed.verify(signer.public()).unwrap(), command(case));
        let registered = parsed.verify_registration().map(|(who, _)| who);
        if case["action"].get("register").is_some() {
            assert_eq!(registered.unwrap(), *signer.public());
        } else {
            assert!(registered.is_err());
        }
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

/// A message in parts, as a writer that errs may put them together: no part is checked.
fn sign1_with(protected: &[u8], payload: &[u8], seed: &str, label: &str) -> Vec<u8> {
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

/// `{0: service, 1: sequence, 2: action}` with an action from a writer that errs.
fn command_payload(action: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    let service = identity(&service_seed()).public().key_id();
    e.map(3).unwrap().u8(0).unwrap().bytes(&service).unwrap();
    e.u8(1).unwrap().u8(9).unwrap().u8(2).unwrap();
    action(&mut e);
    e.into_writer()
}

fn put_request_key(codes: u64) -> Vec<u8> {
    command_payload(|e| {
        e.array(2).unwrap().u8(3).unwrap().array(4).unwrap();
        let owner = identity(&owner_seed()).public().key_id();
        e.array(2).unwrap().array(2).unwrap().bytes(&owner).unwrap();
        e.str("breast-cancer").unwrap().u8(1).unwrap();
        e.u8(1).unwrap().bytes(&[0x60; 32]).unwrap();
        e.array(codes).unwrap();
        for _ in 0..codes {
            e.bytes(&[0x90; 32]).unwrap();
        }
    })
}

fn refused_recipes(commands: &Value, receipts: &Value) -> Value {
    let user = user_seed();
    let case = |name: &str, kind: &str, refused_as: &str, seed: Option<&str>, message: Vec<u8>| {
        let key = seed.map(|seed| hex::encode(identity(seed).public().key()));
        json!({
            "name": name, "as": kind, "refused_as": refused_as, "public_key": key, "bytes": hex::encode(message),
        })
    };
    let good = named(commands, "the user puts a request key for one code");
    let payload = bytes(good, "payload");
    let good = bytes(good, "bytes");
    let grant = named(commands, "the owner grants");
    let kid = identity(&user).public().key_id();
    let protected = [&[0xa2, 0x01, 0x27, 0x04, 0x58, 0x20][..], &kid].concat();
    let command = |name: &str, refused_as: &str, message| {
        case(name, "command", refused_as, Some(&user), message)
    };
    let signed = |payload: &[u8]| sign1_with(&protected, payload, &user, COMMAND);
    assert_eq!(signed(&payload), good);
    let es256 = [&[0xa2, 0x01, 0x26][..], &protected[3..]].concat();
    let short_kid = [&[0xa2, 0x01, 0x27, 0x04, 0x4f][..], &kid[..15]].concat();
    let mut flipped_payload = good.clone();
    flipped_payload[60] ^= 1;
    let mut flipped_signature = good.clone();
    *flipped_signature.last_mut().unwrap() ^= 1;
    let unprotected = {
        let place = 1 + 1 + 2 + protected.len();
        assert_eq!(good[place], 0xa0);
        [&good[..place], &[0xa1, 0x04, 0x40], &good[place + 1..]].concat()
    };
    let foreign_registration = sign1_with(
        &protected,
        &command_payload(|e| {
            e.array(2).unwrap().u8(0).unwrap().array(1).unwrap();
            e.bytes(identity(&owner_seed()).public().key()).unwrap();
        }),
        &user,
        COMMAND,
    );
    let receipt = named(receipts, "for the grant");
    let service = service_seed();
    let other_service = {
        let message = super::signed::receipt(receipt)
            .sign(&identity(&user))
            .unwrap();
        case(
            "a receipt of another service in this one's name",
            "receipt",
            "party",
            Some(&user),
            message,
        )
    };
    let of_grant = |case: Value| with(&case, json!({ "command": text(grant, "bytes") }));
    let of_other = |case: Value| with(&case, json!({ "command": hex::encode(&good) }));
    json!([
        command("no bytes", "form", vec![]),
        command("cut by one byte", "form", good[..good.len() - 1].to_vec()),
        command("a byte follows", "form", [&good[..], &[0]].concat()),
        command("no tag", "form", good[1..].to_vec()),
        command(
            "the tag of COSE_Encrypt0",
            "form",
            [&[0xd0], &good[1..]].concat()
        ),
        command("an unprotected header", "form", unprotected),
        command(
            "another algorithm: ES256",
            "form",
            sign1_with(&es256, &payload, &user, COMMAND)
        ),
        command(
            "a key id of 15 bytes",
            "form",
            sign1_with(&short_kid, &payload, &user, COMMAND)
        ),
        command("above 16 KiB", "form", signed(&vec![0; 16 * 1024])),
        command(
            "a bit of the payload is changed",
            "authenticity",
            flipped_payload
        ),
        command(
            "a bit of the signature is changed",
            "authenticity",
            flipped_signature
        ),
        command(
            "signed as a receipt",
            "authenticity",
            sign1_with(&protected, &payload, &user, RECEIPT)
        ),
        command(
            "signed by another key",
            "authenticity",
            sign1_with(&protected, &payload, &owner_seed(), COMMAND)
        ),
        case(
            "from another principal",
            "command",
            "authenticity",
            Some(&owner_seed()),
            good.clone()
        ),
        case(
            "not a registration, from an unknown principal",
            "command",
            "party",
            None,
            good.clone()
        ),
        case(
            "a registration of somebody else's key",
            "command",
            "authenticity",
            None,
            foreign_registration
        ),
        command(
            "the payload is not in deterministic form",
            "content",
            signed(&long_sequence(&payload))
        ),
        command(
            "an unknown field",
            "content",
            signed(&[&[0xa4], &payload[1..], &[0x03, 0x00]].concat())
        ),
        command(
            "an unknown action",
            "content",
            signed(&command_payload(|e| {
                e.array(2).unwrap().u8(4).unwrap().array(0).unwrap();
            }))
        ),
        command(
            "an action that lacks a field",
            "content",
            signed(&command_payload(|e| {
                e.array(2).unwrap().u8(2).unwrap().array(2).unwrap();
                e.str("breast-cancer").unwrap().u8(1).unwrap();
            }))
        ),
        command(
            "a request key for no code",
            "party",
            signed(&put_request_key(0))
        ),
        command(
            "a request key for 65 codes",
            "party",
            signed(&put_request_key(65))
        ),
        of_other(case(
            "a receipt for another command",
            "receipt",
            "party",
            Some(&service),
            bytes(receipt, "bytes")
        )),
        of_grant(case(
            "a receipt by another service",
            "receipt",
            "authenticity",
            Some(&user),
            bytes(receipt, "bytes")
        )),
        of_grant(other_service),
        of_grant(case(
            "a command in a receipt's place",
            "receipt",
            "authenticity",
            Some(&user),
            good.clone()
        )),
    ])
}

/// The payload with its sequence, 256, in eight bytes instead of two.
fn long_sequence(payload: &[u8]) -> Vec<u8> {
    let place = 1 + 1 + 34 + 1;
    assert_eq!(payload[place..place + 3], [0x19, 0x01, 0x00]);
    let long = [0x1b, 0, 0, 0, 0, 0, 0, 1, 0];
    [&payload[..place], &long, &payload[place + 3..]].concat()
}

fn reason(error: &SignedError) -> &'static str {
    match error {
        SignedError::Cose(CoseError::NotAuthentic) => "authenticity",
        SignedError::Cose(_) => "form",
        SignedError::Cbor(_) => "content",
        SignedError::WrongParty(_) | SignedError::UnknownSigner | SignedError::Approvals => "party",
    }
}

#[test]
fn every_signed_message_that_must_be_refused_is_refused_for_the_reason_given() {
    let expected = refused_recipes(&file()["commands"], &file()["receipts"]);
    assert_eq!(file()["refused"], expected, "cases are missing");
    for case in list(file(), "refused") {
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
            (other, _) => panic!("no kind '{other}'"),
        }
        .unwrap_err();
        assert_eq!(reason(&error), text(case, "refused_as"), "{}", case["name"]);
    }
}

#[test]
fn a_signature_for_a_command_is_none_for_a_receipt() {
    for case in list(file(), "commands") {
        let message = bytes(case, "bytes");
        let signer = identity(text(case, "seed"));
        let parsed = sign1::parse(&message).unwrap();
        assert!(parsed.verify(signer.public(), COMMAND).is_ok());
        let other = parsed.verify(signer.public(), RECEIPT);
        assert_eq!(other, Err(CoseError::NotAuthentic));
    }
}
