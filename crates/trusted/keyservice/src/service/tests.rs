//! Commands become durable, receipts verify, replays have no second effect, and only enclaves get keys.

use sesemi_attest::code_identity::{CodeIdentity, SgxMeasurement, TrustDomain};
use sesemi_attest::{Claims, SystemClock};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::{
    CodeIdentityDigest, ModelName, ModelRef, ModelVersion, ServiceId, SystemEntropy,
};

use super::*;

fn start(folder: &Path) -> KeyService {
    let resources = Resources {
        sealing_key: SecretKey::from_bytes([9; 32]),
        policy: Digest([8; 32]),
        floor: Arc::default(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        lease_seconds: 60,
    };
    KeyService::start(&folder.join("state.redb"), resources, Metrics::new()).unwrap()
}

fn principal(seed: u8) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
}

fn service_id(service: &KeyService) -> ServiceId {
    service.identity().public().service_id()
}

fn signed(service: &KeyService, who: &SigningIdentity, sequence: u64, action: Action) -> Vec<u8> {
    let command = Command {
        service: service_id(service),
        sequence,
        action,
    };
    command.sign(who).unwrap()
}

fn register(who: &SigningIdentity) -> Action {
    Action::Register {
        public_key: *who.public().key(),
    }
}

fn put_model() -> Action {
    Action::PutModelKey {
        name: ModelName::new("m").unwrap(),
        version: ModelVersion::new(1).unwrap(),
        key: SecretKey::from_bytes([1; 32]),
        manifest: Digest([2; 32]),
    }
}

async fn submit(service: &KeyService, bytes: &[u8]) -> ReplyBody {
    let call = CallBody::Submit(bytes.to_vec().into());
    service.answer(&Peer::Principal, call).await
}

async fn accepted(service: &KeyService, bytes: &[u8]) -> Receipt {
    match submit(service, bytes).await {
        ReplyBody::Receipt(receipt) => {
            Receipt::verify(&receipt, service.identity().public(), bytes).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn claims() -> Claims {
    let identity = CodeIdentity::sgx(
        TrustDomain(Digest([0; 32])),
        &SgxMeasurement {
            mr_enclave: [1; 32],
            mr_signer: [0; 32],
            isv_prod_id: 1,
            isv_svn: 1,
            config_id: [0; 64],
        },
    );
    Claims {
        code: identity.digest().unwrap(),
        identity,
        platform: vec![],
        simulated: true,
    }
}

fn refused(reply: &ReplyBody) -> Option<RefusalCode> {
    match reply {
        ReplyBody::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (owner, user) = (principal(1), principal(2));
    let model = ModelRef::new(
        owner.public().principal_id(),
        ModelName::new("m").unwrap(),
        ModelVersion::new(1).unwrap(),
    );
    let code = claims().code;
    let service = start(folder.path());
    let before = service_id(&service);
    accepted(&service, &signed(&service, &owner, 1, register(&owner))).await;
    accepted(&service, &signed(&service, &user, 1, register(&user))).await;
    accepted(&service, &signed(&service, &owner, 2, put_model())).await;
    let grant = Action::Grant {
        name: ModelName::new("m").unwrap(),
        version: ModelVersion::new(1).unwrap(),
        user: user.public().principal_id(),
        code,
    };
    accepted(&service, &signed(&service, &owner, 3, grant)).await;
    let key = Action::PutRequestKey {
        model: model.clone(),
        epoch: 1,
        key: SecretKey::from_bytes([3; 32]),
        codes: vec![code],
    };
    let last = accepted(&service, &signed(&service, &user, 2, key)).await;
    assert_eq!(last.state.sequence, 5);
    service.stop();

    let service = start(folder.path());
    assert_eq!(service_id(&service), before);
    let request = ReleaseRequest {
        model,
        user: user.public().principal_id(),
        epoch: 1,
        at_least: 5,
    };
    let enclave = Peer::Enclave(Box::new(claims()));
    let reply = service
        .answer(&enclave, CallBody::Release(request.clone()))
        .await;
    let ReplyBody::Lease(lease) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(lease.model_key, SecretKey::from_bytes([1; 32]));
    assert_eq!(lease.request_key, SecretKey::from_bytes([3; 32]));

    let as_principal = service
        .answer(&Peer::Principal, CallBody::Release(request.clone()))
        .await;
    assert_eq!(refused(&as_principal), Some(RefusalCode::NotAttested));
    let other = Claims {
        code: CodeIdentityDigest([8; 32]),
        ..claims()
    };
    let elsewhere = service
        .answer(&Peer::Enclave(Box::new(other)), CallBody::Release(request))
        .await;
    assert_eq!(refused(&elsewhere), Some(RefusalCode::NotGranted));
}

#[tokio::test]
async fn a_replayed_command_gets_its_old_receipt_and_has_no_second_effect() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path());
    let owner = principal(1);
    let first = signed(&service, &owner, 1, register(&owner));
    let receipt = accepted(&service, &first).await;
    assert_eq!(accepted(&service, &first).await, receipt);
    let second = signed(&service, &owner, 2, put_model());
    accepted(&service, &second).await;
    // Older than the last: no receipt any more, and no effect.
    assert_eq!(submit(&service, &first).await, ReplyBody::SequenceBehind(2));
    let state = service.answer(&Peer::Principal, CallBody::State).await;
    assert_eq!(state, ReplyBody::State(2));
}

#[tokio::test]
async fn what_is_not_authentic_or_not_allowed_is_refused_and_not_logged() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path());
    let (owner, stranger) = (principal(1), principal(2));
    accepted(&service, &signed(&service, &owner, 1, register(&owner))).await;

    let unknown = signed(&service, &stranger, 1, put_model());
    assert_eq!(
        refused(&submit(&service, &unknown).await),
        Some(RefusalCode::UnknownPrincipal)
    );
    let mut tampered = signed(&service, &owner, 2, put_model());
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    assert_eq!(
        refused(&submit(&service, &tampered).await),
        Some(RefusalCode::NotAuthentic)
    );
    let again = signed(&service, &owner, 2, register(&owner));
    assert_eq!(
        refused(&submit(&service, &again).await),
        Some(RefusalCode::AlreadyExists)
    );
    assert!(refused(&submit(&service, b"garbage").await).is_some());
    assert_eq!(
        service.answer(&Peer::Principal, CallBody::State).await,
        ReplyBody::State(1)
    );
}
