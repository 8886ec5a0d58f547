//! Key releases by the real KeyService, in this process: its state on disk, its server, its decision.
//!
//! An owner and a user set it up with the SDK, as they would from their own machines.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::memory::InMemory;
use sesemi::{
    AppraisalPolicy, Client, DataType, Dimension, Identity, Manifest, ModelFormat, ObjectStore,
    ServiceId, TensorSpec, Trust,
};
use sesemi_attest::attester::{Attester as _, SealBinding};
use sesemi_attest::channel::ExpectedService;
use sesemi_attest::session::KeyServiceSession;
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{Bounds, Server};
use sesemi_keyservice::service::{KeyService, Resources};
use sesemi_protocol::release::ReleaseRequest;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::enclave::Lab;
use crate::error::BenchError;
use crate::stopwatch::{Lap, Stopwatch};

/// How long a lease is, in seconds. It changes no work.
const LEASE: u32 = 300;
/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(15);
/// Epoch of the user's first request key.
const EPOCH: u32 = 1;

/// A running KeyService and an enclave that may have one key of it.
pub(super) struct Releases {
    lab: Lab,
    server: Running,
    request: ReleaseRequest,
    kept: KeyServiceSession,
}

impl Releases {
    /// Starts KeyService, registers a model and a user there, and opens the connection that is kept.
    pub(super) async fn start(lab: Lab) -> Result<Self, BenchError> {
        let server = Running::start(&lab).await?;
        let request = register(&lab, &server).await?;
        let kept = server.session(&lab)?;
        let releases = Self {
            lab,
            server,
            request,
            kept,
        };
        releases.release(&releases.kept).await?;
        Ok(releases)
    }

    /// A new instance of SeMIRT gets its first key: connect, attest, ask.
    pub(super) async fn on_a_new_connection(&self) -> Result<Lap, BenchError> {
        let session = self.server.session(&self.lab)?;
        let lap = self.release(&session).await?;
        drop(session);
        self.server.settle().await?;
        Ok(lap)
    }

    /// An instance gets one more key on its open connection.
    pub(super) async fn on_the_kept_connection(&self) -> Result<Lap, BenchError> {
        self.release(&self.kept).await
    }

    async fn release(&self, session: &KeyServiceSession) -> Result<Lap, BenchError> {
        let call = CallBody::Release(self.request.clone());
        let watch = Stopwatch::start();
        let reply = session.call(call, ANSWER).await?;
        let lap = watch.stop();
        match reply {
            ReplyBody::Lease(lease) if lease.seconds == LEASE => Ok(lap),
            _ => Err(BenchError::Unexpected("KeyService gave no lease")),
        }
    }

    /// Stops KeyService as its operator would.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        drop(self.kept);
        self.server.stop().await
    }
}

/// KeyService with its server.
struct Running {
    address: SocketAddr,
    service: Arc<KeyService>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    _state: TempDir,
}

impl Running {
    async fn start(lab: &Lab) -> Result<Self, BenchError> {
        let state = tempfile::tempdir()?;
        let metrics = Metrics::new();
        let resources = Resources {
            sealing_key: lab.keyservice.sealing_key(SealBinding::Measurement)?,
            policy: AppraisalPolicy::per_release().digest()?,
            floor: Arc::default(),
            clock: lab.clock.clone(),
            entropy: lab.entropy.clone(),
            lease_seconds: LEASE,
        };
        let path = state.path().join("state.redb");
        let service = Arc::new(KeyService::start(&path, resources, metrics.clone())?);
        let acceptor = lab.acceptor(service.identity().clone())?;
        let server = Server::new(
            acceptor,
            service.clone(),
            metrics.clone(),
            Bounds::default(),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self {
            address: listener.local_addr()?,
            service,
            metrics,
            stop,
            task: tokio::spawn(server.run(listener, stopped)),
            _state: state,
        })
    }

    fn id(&self) -> ServiceId {
        self.service.identity().public().service_id()
    }

    /// A session of an enclave that has just started: a key, a certificate and a memory of its own.
    fn session(&self, lab: &Lab) -> Result<KeyServiceSession, BenchError> {
        let expected = ExpectedService::Pinned(self.id());
        Ok(KeyServiceSession::new(
            lab.connector()?,
            self.address,
            expected,
        ))
    }

    /// Waits until no channel but the kept one is open, so that no work of one measurement falls into the next.
    async fn settle(&self) -> Result<(), BenchError> {
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

    async fn stop(self) -> Result<(), BenchError> {
        // Without a receiver the server has stopped already, and its task says why.
        let _ = self.stop.send(true);
        self.task.await?;
        if let Some(service) = Arc::into_inner(self.service) {
            service.stop();
        }
        Ok(())
    }
}

/// An owner registers a model and grants it to a user in SeMIRT's code; the user deposits its key. What comes back is what
/// SeMIRT then asks for.
async fn register(lab: &Lab, server: &Running) -> Result<ReleaseRequest, BenchError> {
    let trust = Trust {
        verifier: lab.verifier(),
        policy: lab.keyservice_policy()?,
        service_policy: AppraisalPolicy::per_release().digest()?,
        service: Some(server.id()),
    };
    let mut owner = Client::connect(Identity::generate()?, server.address, trust.clone()).await?;
    let mut user = Client::connect(Identity::generate()?, server.address, trust).await?;
    let code = lab.code(&lab.semirt)?;
    // Its bytes never leave this store: only its key is released.
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let model = owner
        .push_model(&store, "model", 1, &manifest(), b"model")
        .await?;
    owner.grant(&model, user.id(), code).await?;
    user.approve_code(&model, [code]).await?;
    Ok(ReleaseRequest {
        model,
        user: user.id(),
        epoch: EPOCH,
        at_least: user.seen().sequence,
    })
}

fn manifest() -> Manifest {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        data_type: DataType::Fp32,
        shape: vec![Dimension::Fixed(1)],
    };
    Manifest {
        format: ModelFormat::Onnx,
        inputs: vec![tensor("input")],
        outputs: vec![tensor("output")],
    }
}
