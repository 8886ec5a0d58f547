//! The real KeyService in this process: its state on disk, its server on loopback, its chores.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sesemi_attest::channel::ExpectedService;
use sesemi_attest::session::KeyServiceSession;
use sesemi_attest::{AppraisalPolicy, Attester as _, SealBinding};
use sesemi_keyservice::limits::{Limits, Rate};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{AddressLimits, Bounds, Server};
use sesemi_keyservice::service::writer::SNAPSHOT_EVERY;
use sesemi_keyservice::service::{KeyService, Resources};
use sesemi_keyservice::start::{Opening, Setup};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{SecretKey, ServiceId, SigningIdentity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::enclave::Lab;
use crate::error::BenchError;

/// How long a lease is, in seconds. It changes no work.
pub(crate) const LEASE: u32 = 300;
/// Longest wait for one answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(15);
/// How often what waits to be recorded is recorded, as in the program.
const TICK: Duration = Duration::from_millis(200);

/// What KeyService is on this machine, with its state in `folder`.
pub(crate) fn setup(lab: &Lab, folder: &Path) -> Result<Setup, BenchError> {
    Ok(Setup {
        folder: folder.to_owned(),
        code: lab.keyservice.code(),
        policy: AppraisalPolicy::per_release().digest()?,
        sealing_key: Some(lab.keyservice.sealing_key(SealBinding::Measurement)?),
    })
}

/// Opens the service, or founds one. Nobody is limited: limits are not what is measured.
pub(crate) fn open(
    lab: &Lab,
    setup: &Setup,
    metrics: Arc<Metrics>,
) -> Result<KeyService, BenchError> {
    let rate = Rate::new(NonZeroU32::MAX, Duration::from_nanos(1))?;
    let resources = Resources {
        floor: Arc::default(),
        clock: lab.clock.clone(),
        entropy: lab.entropy.clone(),
        metrics,
        lease_seconds: LEASE,
        limits: Limits::new(rate, rate, NonZeroUsize::MIN.saturating_add(65_535)),
        snapshot_every: SNAPSHOT_EVERY,
    };
    match setup.open(resources)? {
        Opening::Service(service) => Ok(*service),
        Opening::Locked(_) => Err(BenchError::Unexpected("the state is locked")),
    }
}

/// KeyService with its server and its chores.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<KeyService>,
    pub(crate) metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    chores: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(lab: &Lab, folder: &Path) -> Result<Self, BenchError> {
        let metrics = Metrics::new();
        let service = Arc::new(open(lab, &setup(lab, folder)?, metrics.clone())?);
        let acceptor = lab.acceptor(service.identity().clone())?;
        let rate = Rate::new(NonZeroU32::MAX, Duration::from_nanos(1))?;
        let unlimited = Limits::new(rate, rate, NonZeroUsize::MIN);
        let addresses = AddressLimits {
            connections: unlimited.clone(),
            strangers: unlimited,
        };
        // All load comes from one address.
        let bounds = Bounds {
            per_address: usize::MAX,
            handshakes_per_address: Bounds::default().handshakes,
            ..Bounds::default()
        };
        let server = Server::new(
            acceptor,
            service.clone(),
            metrics.clone(),
            bounds,
            addresses,
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (stop, stopped) = watch::channel(false);
        let ticking = service.clone();
        let chores = async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        };
        Ok(Self {
            address: listener.local_addr()?,
            service,
            metrics,
            stop,
            server: tokio::spawn(server.run(listener, stopped)),
            chores: tokio::spawn(chores),
        })
    }

    pub(crate) fn id(&self) -> ServiceId {
        self.service.id()
    }

    /// A session of an enclave that has just started: a key, a certificate and a memory of its own.
    pub(crate) fn session(&self, lab: &Lab) -> Result<KeyServiceSession, BenchError> {
        let expected = ExpectedService::Pinned(self.id());
        Ok(KeyServiceSession::new(
            lab.connector()?,
            self.address,
            expected,
        ))
    }

    /// Waits until no channel but the kept one is open, so that no work of one measurement falls into the next.
    pub(crate) async fn settle(&self) -> Result<(), BenchError> {
        let started = Instant::now();
        while self.metrics.channels.get() > 1 {
            if started.elapsed() > ANSWER {
                return Err(BenchError::Unexpected(
                    "KeyService keeps a closed channel open",
                ));
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        Ok(())
    }

    /// Stops it as its operator would: it leaves a snapshot.
    pub(crate) async fn stop(self) -> Result<(), BenchError> {
        // Without a receiver the server has stopped already, and its task says why.
        let _ = self.stop.send(true);
        self.server.await?;
        self.chores.abort();
        // An aborted task gives its share of the service back once it was joined.
        let _ = self.chores.await;
        if let Some(service) = Arc::into_inner(self.service) {
            service.stop();
        }
        Ok(())
    }
}

/// An owner or user, which signs commands one after the other.
pub(crate) struct Principal {
    pub(crate) identity: SigningIdentity,
    service: ServiceId,
    sequence: u64,
}

impl Principal {
    pub(crate) fn new(identity: SigningIdentity, service: ServiceId) -> Self {
        Self {
            identity,
            service,
            sequence: 0,
        }
    }

    /// The next command, signed.
    pub(crate) fn sign(&mut self, action: Action) -> Result<Vec<u8>, BenchError> {
        self.sequence += 1;
        let command = Command {
            service: self.service,
            sequence: self.sequence,
            seen: Point::START,
            action,
        };
        Ok(command.sign(&self.identity)?)
    }

    /// Makes itself known.
    pub(crate) fn register(&mut self) -> Result<Vec<u8>, BenchError> {
        let public_key = *self.identity.public().key();
        self.sign(Action::Register { public_key })
    }
}

/// Has a command carried out, without a channel between.
pub(crate) async fn order(
    service: &Arc<KeyService>,
    signed: Vec<u8>,
    key: Option<SecretKey>,
) -> Result<(), BenchError> {
    let signed = signed.into();
    let call = CallBody::Submit { signed, key };
    let peer = sesemi_attest::channel::Peer::Principal;
    match service.answer(&peer, call).await {
        ReplyBody::Receipt(_) => Ok(()),
        _ => Err(BenchError::Unexpected("a command was not carried out")),
    }
}
