//! Signed commands and receipts.

use sesemi_protocol::cbor;
use sesemi_protocol::command::{self, Action, Command};
use sesemi_protocol::cose::sign1;
use sesemi_protocol::limits::MAX_APPROVED_IDENTITIES;
use sesemi_protocol::receipt::{Receipt, SignedError};
use sesemi_protocol::{Digest, ModelName, ModelVersion, PrincipalId, SigningIdentity};

use crate::samples::{self, identity, key, model, state};

const COMMAND: &str = "sesemi/v1/command";
const RECEIPT: &str = "sesemi/v1/receipt";

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
        if let Action::PutRequestKey { codes, .. } = &command.action {
            assert!((1..=MAX_APPROVED_IDENTITIES).contains(&codes.len()));
        }
    }
    assert!(Receipt::verify(&signed, signer.public(), bytes).is_err());
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

pub(crate) fn command_seeds() -> Vec<Vec<u8>> {
    let signer = identity(1);
    let name = || ModelName::new("m").unwrap();
    let version = ModelVersion::new(1).unwrap();
    let actions = [
        Action::Register {
            public_key: *signer.public().key(),
        },
        Action::PutModelKey {
            name: name(),
            version,
            key: key(3),
            manifest: Digest([4; 32]),
        },
        Action::Grant {
            name: name(),
            version,
            user: PrincipalId([5; 32]),
            code: sesemi_protocol::CodeIdentityDigest([6; 32]),
        },
        Action::PutRequestKey {
            model: model(),
            epoch: 1,
            key: key(7),
            codes: vec![sesemi_protocol::CodeIdentityDigest([8; 32]); 2],
        },
    ];
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes", "payload"]);
    for action in actions {
        let command = Command {
            service: state().service,
            sequence: 1,
            action,
        };
        seeds.push(command.sign(&signer).unwrap());
        seeds.push(cbor::encode(&command).unwrap().to_vec());
    }
    seeds
}

pub(crate) fn receipt_seeds() -> Vec<Vec<u8>> {
    let service = identity(2);
    let mut state = state();
    state.service = service.public().service_id();
    let receipt = Receipt {
        state,
        chain: Digest([3; 32]),
        principal: PrincipalId([4; 32]),
        command: Digest::of(b"a signed command"),
    };
    let mut seeds = samples::vectors(samples::SIGNED, &["bytes", "payload"]);
    seeds.push(receipt.sign(&service).unwrap());
    seeds.push(cbor::encode(&receipt).unwrap().to_vec());
    seeds
}
