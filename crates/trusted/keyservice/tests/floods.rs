//! A flood of connections that say nothing: they hold places, for a while and no longer, and who came with something to say
//! is served. And a channel does not live for ever.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sesemi_attest::channel::{Acceptor, Connector, ExpectedService};
use sesemi_attest::code_identity::SgxMeasurement;
use sesemi_attest::{
    AppraisalPolicy, Attester, AttesterError, CodeIdentity, Endorsements, Evidence,
    EvidenceVerifier, SealBinding, SystemClock, TeeKind, TrustAnchor,
};
use sesemi_keyservice::limits::{Limits, Rate};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{Bounds, Server};
use sesemi_keyservice::service::Resources;
use sesemi_keyservice::start::{Opening, Setup};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{CodeIdentityDigest, SecretKey, SystemEntropy};
use sesemi_simtee::{Machine, Measurement};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PROGRAM: &[u8] = b"KeyService";
const LIMIT: Duration = Duration::from_secs(30);

struct Enclave(Arc<Machine>);

impl Attester for Enclave {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let quote = self.0.quote(&Measurement::of_elf(PROGRAM), report_data);
        Ok(Evidence::from_bytes(quote.unwrap())?)
    }

    fn sealing_key(&self, _: SealBinding) -> Result<SecretKey, AttesterError> {
        Ok(SecretKey::from_bytes([1; 32]))
    }
}

struct Running {
    address: SocketAddr,
    connector: Connector,
    /// Dropping it would stop the server.
    _stop: watch::Sender<bool>,
}

fn verifier(machine: &Machine) -> EvidenceVerifier {
    let collateral = serde_json::to_vec(machine.collateral()).unwrap();
    EvidenceVerifier::new(
        TrustAnchor::simulated(machine.root_der().to_vec()).unwrap(),
        Endorsements::from_json(&collateral).unwrap(),
    )
}

fn connector(machine: &Machine) -> Connector {
    let measured = Measurement::of_elf(PROGRAM);
    let identity = CodeIdentity::sgx(
        verifier(machine).anchor().domain(),
        &SgxMeasurement {
            mr_enclave: measured.mr_enclave,
            mr_signer: measured.mr_signer,
            isv_prod_id: measured.isv_prod_id,
            isv_svn: measured.isv_svn,
            config_id: measured.config_id,
        },
    );
    Connector::for_principal(
        verifier(machine),
        AppraisalPolicy::reference_values([identity.digest().unwrap()]).unwrap(),
        AppraisalPolicy::per_release().digest().unwrap(),
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
    )
    .unwrap()
}

fn rate<K: Ord + Clone>(burst: u32) -> Limits<K> {
    let rate = Rate::new(NonZeroU32::new(burst).unwrap(), Duration::from_secs(3600)).unwrap();
    Limits::new(rate, rate, NonZeroUsize::new(16).unwrap())
}

async fn serve(folder: &Path, bounds: Bounds, connections: u32) -> Running {
    let machine = Arc::new(Machine::create(&folder.join("machine"), SystemTime::now()).unwrap());
    let policy = AppraisalPolicy::per_release();
    let metrics = Metrics::new();
    let resources = Resources {
        floor: Arc::default(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        metrics: metrics.clone(),
        lease_seconds: 60,
        limits: rate(100),
        snapshot_every: sesemi_keyservice::service::writer::SNAPSHOT_EVERY,
    };
    let setup = Setup {
        folder: folder.join("keys"),
        code: CodeIdentityDigest([1; 32]),
        policy: policy.digest().unwrap(),
        sealing_key: Some(SecretKey::from_bytes([1; 32])),
    };
    std::fs::create_dir(&setup.folder).unwrap();
    let Opening::Service(service) = setup.open(resources).unwrap() else {
        panic!("locked")
    };
    let service = Arc::new(*service);
    let acceptor = Acceptor::new(
        service.identity().clone(),
        Arc::new(Enclave(machine.clone())),
        verifier(&machine),
        policy,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let server = Server::new(acceptor, service, metrics, bounds, rate(connections));
    tokio::spawn(server.run(listener, stopping));
    Running {
        address,
        connector: connector(&machine),
        _stop: stop,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_hold_their_places_no_longer_than_a_handshake_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        handshakes: 4,
        handshake: Duration::from_secs(1),
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100).await;
    // Three times as many as there are places: the rest waits in the kernel's queue.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    let connecting = running
        .connector
        .connect(running.address, ExpectedService::FirstContact);
    tokio::time::timeout(LIMIT, connecting)
        .await
        .expect("the silent ones made room")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_connects_too_often_costs_no_handshake() {
    let folder = tempfile::tempdir().unwrap();
    let running = serve(folder.path(), Bounds::default(), 3).await;
    let connect = || {
        let expected = ExpectedService::FirstContact;
        tokio::time::timeout(LIMIT, running.connector.connect(running.address, expected))
    };
    let mut served = 0;
    for _ in 0..5 {
        served += u32::from(connect().await.expect("an answer or an end").is_ok());
    }
    assert_eq!(served, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_some_age_is_closed_after_its_call_and_its_peer_is_attested_anew() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        age: Duration::from_secs(1),
        ..Bounds::default()
    };
    let running = serve(folder.path(), bounds, 100).await;
    for _ in 0..2 {
        let expected = ExpectedService::FirstContact;
        let connected = running.connector.connect(running.address, expected).await;
        let mut channel = connected.unwrap().channel;
        let call = Call {
            number: 1,
            body: CallBody::Status { seen: Point::START },
        };
        channel.send(&call, LIMIT).await.unwrap();
        let reply: Option<Reply> = channel.receive(LIMIT).await.unwrap();
        assert!(matches!(reply.unwrap().body, ReplyBody::Status(_)));
        let end: Option<Reply> = channel.receive(LIMIT).await.unwrap();
        assert!(end.is_none(), "closed properly");
    }
}
