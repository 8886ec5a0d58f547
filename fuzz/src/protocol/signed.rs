//! Signed commands, receipts, heads and queries.

use sesemi_protocol::cbor;
use sesemi_protocol::command::{self, Action, Command};
use sesemi_protocol::cose::{CoseError, sign1};
use sesemi_protocol::limits::MAX_SIGNED;
use sesemi_protocol::query::{self, Query};
use sesemi_protocol::receipt::{Head, Point, Receipt, SignedError};
use sesemi_protocol::{Digest, PrincipalId, SigningIdentity};

use crate::samples::{self, identity, state};

const COMMAND: &str = "sesemi/v1/command";
const RECEIPT: &str = "sesemi/v1/receipt";
const HEAD: &str = "sesemi/v1/head";
const QUERY: &str = "sesemi/v1/query";

/// Reads the bytes as a signed command, and as the content of one that a registered principal signed.
pub fn command(bytes: &[u8]) {
    let signer = identity(1);
    let accepted = accept_command(bytes, &signer);
    assert!(accepted.is_none_or(|command| command.sign(&signer).unwrap() == bytes));

    let Ok(signed) = sign1::sign(&signer, COMMAND, bytes) else {
        return;
    };
    let parsed = command::parse(&signed).expect("the form is right whatever is inside");
    let verified = parsed.verify(signer.public());
    assert!(!matches!(verified, Err(SignedError::Cose(_))));
    if let Some(command) = accept_command(&signed, &signer) {
        assert_eq!(cbor::encode(&command).unwrap().as_slice(), bytes);
        in_bounds(&command.action);
    }
    assert!(Receipt::verify(&signed, signer.public(), bytes).is_err());
    assert!(Head::verify(&signed, signer.public()).is_err());
    assert!(accept_query(&signed, &signer).is_none());
}

/// The bytes as the payload of a command.
pub(super) fn sign_command(payload: &[u8]) -> Result<Vec<u8>, CoseError> {
    sign1::sign(&identity(1), COMMAND, payload)
}

/// What spec/commands-and-receipts.md says of each action, whatever the state.
fn in_bounds(action: &Action) {
    fn ascending<T: Ord + Clone>(items: &[T]) {
        let mut sorted = items.to_vec();
        sorted.sort();
        sorted.dedup();
        assert!(sorted == items);
    }
    match action {
        Action::Grant { codes, note, .. } => {
            assert!((1..=64).contains(&codes.len()) && note.len() <= 256);
            assert!(!note.contains(['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}']));
            ascending(codes);
        }
        Action::PutModel { isolation, .. } => assert!(isolation.quantum_ms <= 60_000),
        Action::PutRequestKey {
            codes,
            epoch,
            isolation,
            ..
        } => {
            assert!(isolation.quantum_ms <= 60_000);
            assert!((1..=64).contains(&codes.len()) && *epoch >= 1);
            ascending(codes);
        }
        Action::SetLease { seconds, .. } => {
            assert!(seconds.is_none_or(|seconds| (1..=3600).contains(&seconds)));
        }
        Action::Revoke { grants, .. } => {
            assert!((1..=256).contains(&grants.len()));
            ascending(grants);
        }
        Action::NameCustodians {
            custodians,
            threshold,
        } => {
            assert!((2..=16).contains(&custodians.len()));
            assert!((2..=custodians.len()).contains(&usize::from(*threshold)));
            ascending(custodians);
        }
        _ => {}
    }
}

/// What KeyService would make of it, with `signer` on record.
fn accept_command(message: &[u8], signer: &SigningIdentity) -> Option<Command> {
    let parsed = command::parse(message).ok()?;
    if let Ok((introduced, command)) = parsed.verify_registration() {
        assert_eq!(introduced.principal_id(), parsed.claimed_principal());
        let key = *introduced.key();
        assert_eq!(command.action, Action::Register { public_key: key });
    }
    assert!(
        parsed.verify(identity(9).public()).is_err(),
        "another's key verifies it"
    );
    let command = parsed.verify(signer.public()).ok()?;
    assert_eq!(parsed.claimed_principal(), signer.public().principal_id());
    Some(command)
}

/// Reads the bytes as a receipt, and as the content of one that the service signed.
pub fn receipt(bytes: &[u8]) {
    let service = identity(2);
    let command = b"a signed command";
    if let Ok(receipt) = Receipt::verify(bytes, service.public(), command) {
        assert_eq!(receipt.sign(&service).unwrap(), bytes);
    }
    let Ok(signed) = sign1::sign(&service, RECEIPT, bytes) else {
        return;
    };
    let verified = Receipt::verify(&signed, service.public(), command);
    assert!(!matches!(verified, Err(SignedError::Cose(_))));
    if let Ok(receipt) = verified {
        assert_eq!(cbor::encode(&receipt).unwrap().as_slice(), bytes);
        assert_eq!(receipt.state.service, service.public().service_id());
        assert_eq!(receipt.command, Digest::of(command));
        assert!(Receipt::verify(&signed, service.public(), b"another").is_err());
        assert!(Receipt::verify(&signed, identity(9).public(), command).is_err());
    }
    assert!(accept_command(&signed, &service).is_none());
}

/// Reads the bytes as the end of a log, and as the content of one that the service signed.
pub fn head(bytes: &[u8]) {
    let service = identity(2);
    if let Ok(head) = Head::verify(bytes, service.public()) {
        assert_eq!(head.sign(&service).unwrap(), bytes);
    }
    let Ok(signed) = sign1::sign(&service, HEAD, bytes) else {
        return;
    };
    let verified = Head::verify(&signed, service.public());
    assert!(!matches!(verified, Err(SignedError::Cose(_))));
    if let Ok(head) = verified {
        assert_eq!(cbor::encode(&head).unwrap().as_slice(), bytes);
        assert_eq!(head.state.service, service.public().service_id());
        assert!(Head::verify(&signed, identity(9).public()).is_err());
    }
    assert!(Receipt::verify(&signed, service.public(), b"a signed command").is_err());
}

/// Reads the bytes as a signed query, and as the content of one that a registered principal signed.
pub fn query(bytes: &[u8]) {
    let asker = identity(1);
    let accepted = accept_query(bytes, &asker);
    assert!(accepted.is_none_or(|query| query.sign(&asker).unwrap() == bytes));

    let Ok(signed) = sign1::sign(&asker, QUERY, bytes) else {
        return;
    };
    let parsed = query::parse(&signed).expect("the form is right whatever is inside");
    assert!(!matches!(
        parsed.verify(asker.public()),
        Err(SignedError::Cose(_))
    ));
    if let Some(query) = accept_query(&signed, &asker) {
        assert_eq!(cbor::encode(&query).unwrap().as_slice(), bytes);
    }
    assert!(accept_command(&signed, &asker).is_none());
}

fn accept_query(message: &[u8], asker: &SigningIdentity) -> Option<Query> {
    let parsed = query::parse(message).ok()?;
    assert!(
        parsed.verify(identity(9).public()).is_err(),
        "another's key verifies it"
    );
    let query = parsed.verify(asker.public()).ok()?;
    assert_eq!(parsed.claimed_principal(), asker.public().principal_id());
    Some(query)
}

pub(crate) fn command_seeds() -> Vec<Vec<u8>> {
    let signer = identity(1);
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes", "payload"]);
    // The vectors' commands once more, by the signer that this target has on record.
    for payload in samples::vectors(samples::SIGNED, &["payload"]) {
        if let Ok(command) = cbor::decode::<Command>(&payload, MAX_SIGNED) {
            seeds.push(command.sign(&signer).unwrap());
        }
    }
    let registration = Command {
        service: state().service,
        sequence: 1,
        seen: Point::START,
        action: Action::Register {
            public_key: *signer.public().key(),
        },
    };
    seeds.push(registration.sign(&signer).unwrap());
    seeds.push(cbor::encode(&registration).unwrap().to_vec());
    seeds
}

pub(crate) fn receipt_seeds() -> Vec<Vec<u8>> {
    let service = identity(2);
    let mut state = state();
    state.service = service.public().service_id();
    let receipt = Receipt {
        state,
        principal: PrincipalId([4; 32]),
        command: Digest::of(b"a signed command"),
    };
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes", "payload"]);
    seeds.push(receipt.sign(&service).unwrap());
    seeds.push(cbor::encode(&receipt).unwrap().to_vec());
    seeds
}

pub(crate) fn head_seeds() -> Vec<Vec<u8>> {
    let service = identity(2);
    let mut state = state();
    state.service = service.public().service_id();
    let head = Head { state, at: 5 };
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes", "payload"]);
    seeds.push(head.sign(&service).unwrap());
    seeds.push(cbor::encode(&head).unwrap().to_vec());
    seeds
}

pub(crate) fn query_seeds() -> Vec<Vec<u8>> {
    let asker = identity(1);
    let mut seeds = samples::vectors(samples::QUERIES, &["bytes", "payload"]);
    for payload in samples::vectors(samples::QUERIES, &["payload"]) {
        if let Ok(query) = cbor::decode::<Query>(&payload, MAX_SIGNED) {
            seeds.push(query.sign(&asker).unwrap());
        }
    }
    seeds
}
