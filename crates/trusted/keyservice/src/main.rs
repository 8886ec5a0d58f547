//! The KeyService binary: find the TEE, open the sealed state, serve until told to stop.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use sesemi_attest::channel::{Acceptor, ChannelError};
use sesemi_attest::{
    AppraisalError, AppraisalPolicy, Attester, AttesterError, EvidenceVerifier, SealBinding,
    SystemClock, tee,
};
use sesemi_keyservice::admin::{self, Admin};
use sesemi_keyservice::config::{Cli, CliCommand, Config};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{Bounds, Server};
use sesemi_keyservice::service::{KeyService, Resources, StartError};
use sesemi_process::sandbox::{self, HardenError, Paths};
use sesemi_process::settings::SettingsError;
use sesemi_process::trust::TrustError;
use sesemi_process::{WipingAllocator, http, lifecycle};
use sesemi_protocol::SystemEntropy;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Threads of the runtime: fixed, because some TEEs must know their number in advance.
const THREADS: usize = 2;
/// Threads that wait for the TEE's evidence, which it makes one piece at a time. Fixed for the same reason.
const BLOCKING_THREADS: usize = 4;

/// How often the freshness floor is kept with the state, if it rose.
const KEEP_FLOOR: Duration = Duration::from_secs(60);

/// Why KeyService ended.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot use {0}")]
    Io(String, #[source] std::io::Error),
    #[error(transparent)]
    Harden(#[from] HardenError),
    #[error(transparent)]
    Tee(#[from] AttesterError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Appraisal(#[from] AppraisalError),
}

fn main() -> ExitCode {
    let CliCommand::Serve(args) = Cli::parse().command;
    lifecycle::start_logs();
    lifecycle::exit_code(args.resolve().map_err(MainError::from).and_then(run))
}

fn run(config: Config) -> Result<(), MainError> {
    std::fs::create_dir_all(&config.state)
        .map_err(|e| MainError::Io(config.state.display().to_string(), e))?;
    // What is read once is read before the sandbox, so that its folders need not stay open.
    let verifier = config.trust.verifier()?;
    let policy = config.trust.service_policy()?;
    let folders = Paths {
        write: vec![config.state.clone()],
        ..Paths::default()
    };
    sandbox::enter(folders, &config.trust)?;
    // Only now: some TEEs are waited for on threads of their own, and the sandbox has to be entered before the first.
    let attester = tee::detect()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|e| MainError::Io("the runtime".into(), e))?
        .block_on(serve(config, verifier, policy, attester))
}

async fn serve(
    config: Config,
    verifier: EvidenceVerifier,
    policy: AppraisalPolicy,
    attester: Arc<dyn Attester>,
) -> Result<(), MainError> {
    let metrics = Metrics::new();
    let resources = Resources {
        sealing_key: attester.sealing_key(SealBinding::Measurement)?,
        policy: policy.digest()?,
        floor: verifier.floor().clone(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy::new()),
        lease_seconds: config.lease_seconds,
    };
    let service = Arc::new(KeyService::start(
        &config.state.join("state.redb"),
        resources,
        metrics.clone(),
    )?);
    let acceptor = Acceptor::new(
        service.identity().clone(),
        attester.clone(),
        verifier.clone(),
        policy,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
    )?;

    let listener = bind(config.listen).await?;
    let admin_listener = bind(config.admin_listen).await?;
    let stop = lifecycle::stop_signal().map_err(|e| MainError::Io("signals".into(), e))?;
    announce(&listener, &admin_listener, &service, &*attester)
        .map_err(|e| MainError::Io("standard output".into(), e))?;

    let admin = Admin {
        metrics: metrics.clone(),
        stopping: stop.clone(),
    };
    let keeping = {
        let service = service.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_FLOOR).await;
                service.keep_floor();
            }
        })
    };
    let refreshing = tokio::spawn(config.trust.clone().refresh(verifier));
    let admin = http::serve(admin_listener, Arc::new(admin), admin::BOUNDS, stop.clone());
    let server = Server::new(acceptor, service.clone(), metrics, Bounds::default());
    tokio::join!(server.run(listener, stop), admin);
    refreshing.abort();
    keeping.abort();
    // An aborted task gives its share of the service back once it was joined.
    let _ = keeping.await;
    if let Some(service) = Arc::into_inner(service) {
        service.stop();
    }
    tracing::info!("stopped");
    Ok(())
}

async fn bind(address: std::net::SocketAddr) -> Result<TcpListener, MainError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| MainError::Io(format!("the address {address}"), e))
}

fn announce(
    listener: &TcpListener,
    admin: &TcpListener,
    service: &KeyService,
    attester: &dyn Attester,
) -> std::io::Result<()> {
    lifecycle::announce(&serde_json::json!({
        "event": "listening",
        "address": listener.local_addr()?.to_string(),
        "admin": admin.local_addr()?.to_string(),
        "service": service.identity().public().service_id().to_string(),
        "tee": attester.name(),
        "pid": std::process::id(),
    }))
}
