//! KeyService behind a socket, and who connects to it.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sesemi_attest::channel::{Acceptor, Channel, Connector, ExpectedService};
use sesemi_attest::{AppraisalPolicy, SystemClock};
use sesemi_keyservice::limits::{Limits, Rate};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{AddressLimits, Bounds, Server};
use sesemi_keyservice::service::{KeyService, Resources};
use sesemi_keyservice::start::{Opening, Setup};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::query::{Query, Question};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{CodeIdentityDigest, SecretKey, SigningIdentity, SystemEntropy};
use sesemi_simtee::{Machine, Measurement};
use sesemi_testkit::enclave::{Enclave, verifier};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// Commands and questions of one principal.
pub(crate) const PRINCIPALS_BURST: u32 = 100;
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<KeyService>,
    pub(crate) metrics: Arc<Metrics>,
    connector: Connector,
    enclaves: Connector,
    /// Dropping it would stop the server.
    _stop: watch::Sender<bool>,
}

fn keyservice(machine: &Arc<Machine>) -> Enclave {
    Enclave::new(machine.clone(), Measurement::of_elf(b"KeyService"))
}

/// Of principals, or of enclaves. Which code an enclave runs matters to no flood: it is KeyService's own.
fn connector(machine: &Arc<Machine>, enclave: bool) -> Connector {
    let keyservice = keyservice(machine);
    let policy = AppraisalPolicy::reference_values([keyservice.code()]).unwrap();
    let verifier = verifier(machine);
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
    if enclave {
        Connector::for_enclave(verifier, policy, clock, entropy, Arc::new(keyservice)).unwrap()
    } else {
        let appraised_by = AppraisalPolicy::per_release().digest().unwrap();
        Connector::for_principal(verifier, policy, appraised_by, clock, entropy).unwrap()
    }
}

/// So many at once, and no more for as long as a test takes.
fn rate<K: Ord + Clone>(burst: u32) -> Limits<K> {
    let rate = Rate::new(NonZeroU32::new(burst).unwrap(), Duration::from_secs(3600)).unwrap();
    Limits::new(rate, rate, NonZeroUsize::new(16).unwrap())
}

pub(crate) async fn serve(
    folder: &Path,
    bounds: Bounds,
    connections: u32,
    strangers: u32,
) -> Running {
    let machine = Arc::new(Machine::create(&folder.join("machine"), SystemTime::now()).unwrap());
    let policy = AppraisalPolicy::per_release();
    let metrics = Metrics::new();
    let resources = Resources {
        floor: Arc::default(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        metrics: metrics.clone(),
        lease_seconds: 60,
        limits: rate(PRINCIPALS_BURST),
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
        Arc::new(keyservice(&machine)),
        verifier(&machine),
        policy,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    let limits = AddressLimits {
        connections: rate(connections),
        strangers: rate(strangers),
    };
    let server = Server::new(acceptor, service.clone(), metrics.clone(), bounds, limits);
    tokio::spawn(server.run(listener, stopping));
    Running {
        address,
        service,
        metrics,
        connector: connector(&machine, false),
        enclaves: connector(&machine, true),
        _stop: stop,
    }
}

impl Running {
    /// A principal's channel, or the end that the server made of it.
    pub(crate) async fn try_principal(&self) -> Option<Channel> {
        try_connect(&self.connector, self.address).await
    }

    pub(crate) async fn principal(&self) -> Channel {
        self.try_principal().await.expect("it is let in")
    }

    pub(crate) async fn enclave(&self) -> Channel {
        let connected = try_connect(&self.enclaves, self.address).await;
        connected.expect("it is let in")
    }

    /// A connection from another address of this machine that says nothing.
    pub(crate) async fn silent(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Whether the metrics have this line.
    pub(crate) fn counted(&self, line: &str) -> bool {
        let metrics = self.metrics.render();
        metrics.lines().any(|found| found == line)
    }
}

async fn try_connect(connector: &Connector, address: SocketAddr) -> Option<Channel> {
    let connecting = connector.connect(address, ExpectedService::FirstContact);
    let connected = tokio::time::timeout(LIMIT, connecting).await;
    let connected = connected.expect("an answer or an end");
    connected.ok().map(|connected| connected.channel)
}

/// The answer to one call; `None` if the server closed the channel instead.
pub(crate) async fn call(channel: &mut Channel, body: CallBody) -> Option<ReplyBody> {
    let call = Call { number: 1, body };
    channel.send(&call, LIMIT).await.ok()?;
    let reply: Option<Reply> = channel.receive(LIMIT).await.ok()?;
    reply.map(|reply| reply.body)
}

pub(crate) fn somebody(seed: u8) -> SigningIdentity {
    SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
}

pub(crate) fn registration(running: &Running, of: &SigningIdentity) -> CallBody {
    let command = Command {
        service: running.service.id(),
        sequence: 1,
        seen: Point::START,
        action: Action::Register {
            public_key: *of.public().key(),
        },
    };
    let signed = command.sign(of).unwrap().into();
    CallBody::Submit { signed, key: None }
}

pub(crate) fn question(running: &Running, of: &SigningIdentity) -> CallBody {
    let at = SystemTime::now().duration_since(UNIX_EPOCH);
    let query = Query {
        service: running.service.id(),
        at: at.unwrap().as_secs(),
        seen: Point::START,
        question: Question::GrantsToMe { after: 0 },
    };
    CallBody::Query(query.sign(of).unwrap().into())
}

pub(crate) fn status() -> CallBody {
    CallBody::Status { seen: Point::START }
}

pub(crate) async fn has_status(channel: &mut Channel) -> bool {
    matches!(call(channel, status()).await, Some(ReplyBody::Status(_)))
}
