use super::*;
use crate::id::{CodeIdentityDigest, Digest, ModelName, ModelVersion};
use crate::isolation::{Isolation, IsolationLevel};
use crate::limits::{MAX_APPROVED_IDENTITIES, MAX_NOTE};
use crate::secret::SecretKey;

fn identity(seed: u8) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
}

fn code(n: u8) -> CodeIdentityDigest {
    CodeIdentityDigest([n; 32])
}

fn command(action: Action) -> Command {
    Command {
        service: ServiceId([1; 32]),
        sequence: 2,
        seen: Point::START,
        action,
    }
}

fn grant(codes: Vec<CodeIdentityDigest>, note: &str) -> Action {
    Action::Grant {
        owner: PrincipalId([9; 32]),
        name: ModelName::new("m").unwrap(),
        versions: GrantedVersions::Exact(ModelVersion::new(1).unwrap()),
        subject: Subject::User(PrincipalId([3; 32])),
        codes,
        expires: Some(7),
        note: note.into(),
    }
}

#[test]
fn a_command_reads_back_as_signed() {
    let command = command(grant(vec![code(4)], "for the study"));
    let bytes = command.sign(&identity(1)).unwrap();
    let parsed = parse(&bytes).unwrap();
    assert_eq!(
        parsed.claimed_principal(),
        identity(1).public().principal_id()
    );
    assert_eq!(parsed.verify(identity(1).public()).unwrap(), command);
    assert!(parsed.verify(identity(2).public()).is_err());
}

#[test]
fn only_a_registration_brings_its_own_key() {
    let bytes = command(grant(vec![code(4)], ""))
        .sign(&identity(1))
        .unwrap();
    assert!(parse(&bytes).unwrap().verify_registration().is_err());

    let registration = |signer: u8, key: u8| {
        let public_key = *identity(key).public().key();
        let bytes = command(Action::Register { public_key })
            .sign(&identity(signer))
            .unwrap();
        parse(&bytes)
            .unwrap()
            .verify_registration()
            .map(|(who, _)| who)
    };
    assert_eq!(registration(1, 1).unwrap(), *identity(1).public());
    assert!(
        registration(1, 2).is_err(),
        "registering somebody else's key"
    );
}

#[test]
fn a_quantum_out_of_bounds_is_neither_signed_nor_read() {
    let isolation = |quantum_ms| Isolation {
        level: IsolationLevel::Shared,
        quantum_ms,
    };
    let put = |quantum_ms| Action::PutModel {
        name: ModelName::new("m").unwrap(),
        version: ModelVersion::new(1).unwrap(),
        key: Digest([1; 32]),
        manifest: Digest([2; 32]),
        isolation: isolation(quantum_ms),
    };
    let key = |quantum_ms| Action::PutRequestKey {
        scope: KeyScope::AllModels,
        epoch: 1,
        key: Digest([1; 32]),
        codes: vec![code(1)],
        isolation: isolation(quantum_ms),
        earlier_end: None,
    };
    for good in [put(60_000), key(60_000)] {
        let bytes = command(good).sign(&identity(1)).unwrap();
        assert!(parse(&bytes).unwrap().verify(identity(1).public()).is_ok());
    }
    for bad in [put(60_001), key(60_001)] {
        let command = command(bad);
        assert!(matches!(
            command.sign(&identity(1)),
            Err(SignedError::Action(ActionError::Quantum(_)))
        ));
        let bytes = sign1::sign(&identity(1), LABEL, &cbor::encode(&command).unwrap()).unwrap();
        assert!(matches!(
            parse(&bytes).unwrap().verify(identity(1).public()),
            Err(SignedError::Cbor(_))
        ));
    }
}

#[test]
fn an_action_out_of_bounds_is_neither_signed_nor_accepted() {
    let many = |n: u16| {
        (0..n)
            .map(|n| {
                let mut code = [0; 32];
                code[..2].copy_from_slice(&n.to_be_bytes());
                CodeIdentityDigest(code)
            })
            .collect::<Vec<_>>()
    };
    let limit = u16::try_from(MAX_APPROVED_IDENTITIES).unwrap();
    let custodians = |n: u8, threshold| Action::NameCustodians {
        custodians: (0..n).map(|n| PrincipalId([n; 32])).collect(),
        threshold,
    };
    let lease = |seconds| Action::SetLease {
        name: ModelName::new("m").unwrap(),
        seconds: Some(seconds),
    };
    let revoke = |grants: &[u64]| Action::Revoke {
        owner: PrincipalId([9; 32]),
        grants: grants.to_vec(),
    };
    let key = |epoch, codes| Action::PutRequestKey {
        scope: KeyScope::AllModels,
        epoch,
        key: Digest([1; 32]),
        codes,
        isolation: Isolation::default(),
        earlier_end: None,
    };
    for good in [
        grant(many(limit), &"n".repeat(MAX_NOTE)),
        key(1, vec![code(1)]),
        lease(1),
        lease(3600),
        revoke(&[1, 2]),
        custodians(2, 2),
        custodians(16, 9),
    ] {
        assert!(command(good).sign(&identity(1)).is_ok());
    }
    for bad in [
        grant(vec![], ""),
        grant(many(limit + 1), ""),
        grant(vec![code(2), code(1)], ""),
        grant(vec![code(1), code(1)], ""),
        grant(vec![code(1)], &"n".repeat(MAX_NOTE + 1)),
        grant(vec![code(1)], "\u{1b}[31m"),
        key(0, vec![code(1)]),
        key(1, vec![]),
        lease(0),
        lease(3601),
        revoke(&[]),
        revoke(&[2, 2]),
        custodians(1, 1),
        custodians(3, 1),
        custodians(3, 4),
        custodians(17, 2),
    ] {
        let command = command(bad);
        assert!(matches!(
            command.sign(&identity(1)),
            Err(SignedError::Action(_))
        ));
        // Signed by a client that does not check.
        let bytes = sign1::sign(&identity(1), LABEL, &cbor::encode(&command).unwrap()).unwrap();
        assert!(matches!(
            parse(&bytes).unwrap().verify(identity(1).public()),
            Err(SignedError::Action(_))
        ));
    }
}
