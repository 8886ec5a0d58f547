//! A service in a folder, a clock that stands still until it is told to move, and principals that remember what they have seen.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sesemi_attest::channel::Peer;
use sesemi_attest::code_identity::{CodeIdentity, SgxMeasurement, TrustDomain};
use sesemi_attest::{Claims, Clock};
use sesemi_keyservice::limits::{Limits, Rate};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::service::{KeyService, Resources};
use sesemi_keyservice::start::{Opening, Setup, StartError};
use sesemi_protocol::command::{Action, Command, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::query::{Query, QueryAnswer, Question};
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest, RequestKeyName};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, ModelName, ModelRef, ModelTarget, ModelVersion,
    PrincipalId, Refusal, RefusalCode, SecretKey, SigningIdentity, SystemEntropy,
};

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const CODE: u8 = 1;
pub(crate) const LEASE: u32 = 60;

/// A clock that tests turn.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(pub(crate) Arc<AtomicU64>);

impl Clock for TestClock {
    fn unix_seconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

pub(crate) fn limits(per_second: u32) -> Limits<PrincipalId> {
    let burst = NonZeroU32::new(per_second).unwrap();
    let rate = Rate::new(burst, Duration::from_secs(1) / per_second).unwrap();
    Limits::new(rate, rate, NonZeroUsize::new(1000).unwrap())
}

pub(crate) fn resources(clock: &TestClock) -> Resources {
    Resources {
        floor: Arc::default(),
        clock: Arc::new(clock.clone()),
        entropy: Arc::new(SystemEntropy::new()),
        metrics: Metrics::new(),
        lease_seconds: LEASE,
        limits: limits(1_000_000),
        snapshot_every: sesemi_keyservice::service::writer::SNAPSHOT_EVERY,
    }
}

/// This code on this platform, under policy 8.
pub(crate) fn setup(folder: &Path) -> Setup {
    Setup {
        folder: folder.to_owned(),
        code: CodeIdentityDigest([0xaa; 32]),
        policy: Digest([8; 32]),
        sealing_key: Some(SecretKey::from_bytes([9; 32])),
    }
}

pub(crate) fn try_open(setup: &Setup, clock: &TestClock) -> Result<Arc<KeyService>, StartError> {
    match setup.open(resources(clock))? {
        Opening::Service(service) => Ok(Arc::new(*service)),
        Opening::Locked(_) => panic!("locked"),
    }
}

pub(crate) fn open(folder: &Path, clock: &TestClock) -> Arc<KeyService> {
    try_open(&setup(folder), clock).unwrap()
}

/// Ends the service as SIGTERM does.
pub(crate) fn stop(service: Arc<KeyService>) {
    Arc::into_inner(service).unwrap().stop();
}

/// A principal with what its client keeps.
pub(crate) struct Actor {
    pub(crate) identity: SigningIdentity,
    pub(crate) sequence: u64,
    pub(crate) seen: Point,
}

impl Actor {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            identity: SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap(),
            sequence: 0,
            seen: Point::START,
        }
    }

    pub(crate) async fn registered(seed: u8, service: &Arc<KeyService>) -> Self {
        let mut actor = Self::new(seed);
        let public_key = *actor.identity.public().key();
        actor
            .submit(service, Action::Register { public_key }, None)
            .await
            .unwrap();
        actor
    }

    pub(crate) fn id(&self) -> PrincipalId {
        self.identity.public().principal_id()
    }

    pub(crate) fn sign(&mut self, service: &KeyService, action: Action) -> Vec<u8> {
        self.sequence += 1;
        let command = Command {
            service: service.id(),
            sequence: self.sequence,
            seen: self.seen,
            action,
        };
        command.sign(&self.identity).unwrap()
    }

    pub(crate) async fn submit(
        &mut self,
        service: &Arc<KeyService>,
        action: Action,
        key: Option<SecretKey>,
    ) -> Result<Receipt, RefusalCode> {
        let signed = self.sign(service, action);
        match send(service, &signed, key).await {
            ReplyBody::Receipt(bytes) => {
                let receipt =
                    Receipt::verify(&bytes, service.identity().public(), &signed).unwrap();
                assert!(receipt.state.point.sequence > self.seen.sequence);
                self.seen = receipt.state.point;
                Ok(receipt)
            }
            ReplyBody::Refused(refusal) => Err(refusal.code),
            ReplyBody::SequenceBehind(_) => Err(RefusalCode::Replayed),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask(
        &self,
        service: &Arc<KeyService>,
        at: u64,
        question: Question,
    ) -> Result<QueryAnswer, RefusalCode> {
        let query = Query {
            service: service.id(),
            at,
            seen: self.seen,
            question,
        };
        let call = CallBody::Query(query.sign(&self.identity).unwrap().into());
        match service.answer(&Peer::Principal, call).await {
            ReplyBody::Answer(answer) => Ok(*answer),
            ReplyBody::Refused(refusal) => Err(refusal.code),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn send(
    service: &Arc<KeyService>,
    signed: &[u8],
    key: Option<SecretKey>,
) -> ReplyBody {
    let signed = signed.to_vec().into();
    let call = CallBody::Submit { signed, key };
    service.answer(&Peer::Principal, call).await
}

pub(crate) fn claims(code: u8) -> Claims {
    let identity = CodeIdentity::sgx(
        TrustDomain(Digest([0; 32])),
        &SgxMeasurement {
            mr_enclave: [code; 32],
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
        evidence: Digest([code; 32]),
    }
}

pub(crate) fn code(n: u8) -> CodeIdentityDigest {
    claims(n).code
}

pub(crate) fn enclave(n: u8) -> Peer {
    Peer::Enclave(Box::new(claims(n)))
}

pub(crate) fn name() -> ModelName {
    ModelName::new("m").unwrap()
}

pub(crate) fn version(n: u32) -> ModelVersion {
    ModelVersion::new(n).unwrap()
}

pub(crate) fn put_model(n: u32) -> (Action, Option<SecretKey>) {
    let key = SecretKey::from_bytes([u8::try_from(n).unwrap(); 32]);
    let action = Action::PutModel {
        name: name(),
        version: version(n),
        key: key.digest(),
        manifest: Digest([2; 32]),
        isolation: Isolation::default(),
    };
    (action, Some(key))
}

pub(crate) fn grant(owner: &Actor, user: &Actor, expires: Option<u64>) -> Action {
    Action::Grant {
        owner: owner.id(),
        name: name(),
        versions: GrantedVersions::All,
        subject: Subject::User(user.id()),
        codes: vec![code(CODE)],
        expires,
        note: String::new(),
    }
}

pub(crate) fn put_key(epoch: u32, earlier_end: Option<u64>) -> (Action, Option<SecretKey>) {
    let key = SecretKey::from_bytes([0x40 + u8::try_from(epoch).unwrap(); 32]);
    let action = Action::PutRequestKey {
        scope: KeyScope::AllModels,
        epoch,
        key: key.digest(),
        codes: vec![code(CODE)],
        isolation: Isolation::default(),
        earlier_end,
    };
    (action, Some(key))
}

/// An owner with a model and a user who may use it.
pub(crate) struct Pair {
    pub(crate) owner: Actor,
    pub(crate) user: Actor,
    pub(crate) grant: u64,
}

pub(crate) async fn pair(service: &Arc<KeyService>) -> Pair {
    let mut owner = Actor::registered(1, service).await;
    let mut user = Actor::registered(2, service).await;
    let (action, key) = put_model(1);
    owner.submit(service, action, key).await.unwrap();
    let receipt = owner
        .submit(service, grant(&owner, &user, None), None)
        .await
        .unwrap();
    let (action, key) = put_key(1, None);
    user.submit(service, action, key).await.unwrap();
    Pair {
        owner,
        user,
        grant: receipt.state.point.sequence,
    }
}

impl Pair {
    pub(crate) fn request(&self) -> ReleaseRequest {
        ReleaseRequest {
            model: ModelTarget::from(ModelRef::new(self.owner.id(), name(), version(1))),
            user: self.user.id(),
            key: RequestKeyName::all_models(1),
            seen: Point::START,
        }
    }

    pub(crate) async fn release(&self, service: &Arc<KeyService>) -> Result<Lease, Refusal> {
        release(service, CODE, self.request()).await
    }
}

pub(crate) async fn release(
    service: &Arc<KeyService>,
    code: u8,
    request: ReleaseRequest,
) -> Result<Lease, Refusal> {
    let call = CallBody::Release(vec![request]);
    match service.answer(&enclave(code), call).await {
        ReplyBody::Released(mut outcomes) => match outcomes.remove(0) {
            ReleaseOutcome::Lease(lease) => Ok(*lease),
            ReleaseOutcome::Refused(refusal) => Err(refusal),
        },
        other => panic!("{other:?}"),
    }
}

/// Copies a state folder, as a host can at any time.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
