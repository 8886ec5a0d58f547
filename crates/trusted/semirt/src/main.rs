//! The SeMIRT binary with the embedded engine: find the TEE, then serve until told to stop. Keys and models come with the
//! first request.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use object_store::local::LocalFileSystem;
use sesemi_attest::channel::{ChannelError, Connector, ExpectedService};
use sesemi_attest::session::KeyServiceSession;
use sesemi_attest::{AppraisalPolicy, Attester, AttesterError, EvidenceVerifier, SystemClock, tee};
use sesemi_process::sandbox::{self, HardenError, Paths};
use sesemi_process::settings::SettingsError;
use sesemi_process::trust::TrustError;
use sesemi_process::{WipingAllocator, http, lifecycle, traced};
use sesemi_protocol::SystemEntropy;
use sesemi_semirt::config::{Cli, CliCommand, Config, check_environment};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::http::{BOUNDS, Endpoints};
use sesemi_semirt::keys::{FromKeyService, Keys};
use sesemi_semirt::metrics::Metrics;
use sesemi_semirt::models::Models;
use sesemi_semirt::runtime::{Capacity, Runtime};
use sesemi_semirt::slots::Watchdog;
use sesemi_traces::TracesError;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Threads of the runtime: fixed, because some TEEs must know their number in advance.
const THREADS: usize = 2;

/// Exit code of an instance whose engine hung (EX_SOFTWARE of sysexits.h).
const HUNG: i32 = 70;

/// Why SeMIRT ended.
#[derive(Debug, thiserror::Error)]
enum MainError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("cannot use {0}")]
    Io(String, #[source] std::io::Error),
    #[error("cannot use the object store")]
    Store(#[from] object_store::Error),
    #[error(transparent)]
    Harden(#[from] HardenError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(transparent)]
    Tee(#[from] AttesterError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

fn main() -> ExitCode {
    let CliCommand::Serve(args) = Cli::parse().command;
    lifecycle::start_logs();
    let config = check_environment(std::env::vars_os().map(|(name, _)| name))
        .and_then(|()| args.resolve())
        .map_err(MainError::from);
    lifecycle::exit_code(config.and_then(run))
}

fn run(config: Config) -> Result<(), MainError> {
    // What is read once is read before the sandbox, so that its folders need not stay open.
    let verifier = config.trust.verifier()?;
    let policy = config.trust.policy_for([config.keyservice_code])?;
    let traces = config.traces.as_ref();
    let traces = traces.map(|to| to.open("sesemi-semirt")).transpose()?;
    let folders = Paths {
        read: vec![config.store.clone()],
        ..Paths::default()
    };
    sandbox::enter(folders, &config.trust)?;
    // Only now: some TEEs are waited for on threads of their own, and the sandbox has to be entered before the first.
    let attester = traced::evidence(tee::detect()?);
    // Ends last: what the others record at their end is still written.
    let _traces = traces
        .map(|it| it.start(env!("CARGO_PKG_VERSION"), Some(attester.name())))
        .transpose()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        // Runs, loads, file reads and waits for evidence; each run holds a slot, so this many can never all be busy with runs.
        .max_blocking_threads(config.slots.saturating_add(8))
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
    let runtime = assemble(&config, verifier.clone(), policy, attester.clone())?;
    let runtime = Arc::new(runtime);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| MainError::Io(format!("the address {}", config.listen), e))?;
    let stop = lifecycle::stop_signal().map_err(|e| MainError::Io("signals".into(), e))?;
    announce(&listener, &*attester).map_err(|e| MainError::Io("standard output".into(), e))?;

    let tending = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.keys().tend().await })
    };
    let watching = {
        let watchdog = runtime.watchdog().clone();
        tokio::spawn(async move {
            let overdue = watchdog.overdue().await;
            tracing::error!(%overdue, "the engine hangs; this instance ends");
            // Its thread cannot be stopped: nothing less takes back its slot, its memory and its processor.
            std::process::exit(HUNG);
        })
    };
    let refreshing = tokio::spawn(config.trust.clone().refresh(verifier));
    let endpoints = Endpoints::new(runtime, stop.clone());
    http::serve(listener, Arc::new(endpoints), BOUNDS, stop).await;
    tending.abort();
    refreshing.abort();
    watching.abort();
    tracing::info!("stopped");
    Ok(())
}

fn assemble(
    config: &Config,
    verifier: EvidenceVerifier,
    policy: AppraisalPolicy,
    attester: Arc<dyn Attester>,
) -> Result<Runtime, MainError> {
    let entropy = Arc::new(SystemEntropy::new());
    let connector = Connector::for_enclave(
        verifier,
        policy,
        Arc::new(SystemClock),
        entropy.clone(),
        attester,
    )?;
    let expected = ExpectedService::Pinned(config.keyservice_id);
    let session = KeyServiceSession::new(connector, config.keyservice, expected);
    let keys = Keys::new(Arc::new(FromKeyService(Arc::new(session))), entropy.clone());
    let store = LocalFileSystem::new_with_prefix(&config.store)?;
    let engine = Arc::new(Rten::new(config.engine_threads));
    let models = Arc::new(Models::new(Arc::new(store), engine, config.model_memory));
    let capacity = Capacity {
        slots: config.slots,
        queue: config.queue,
    };
    let watchdog = Watchdog::new(config.run_limit);
    Runtime::new(keys, models, capacity, watchdog, entropy, Metrics::new())
        .map_err(|e| MainError::Io("a thread for a slot".into(), e))
}

fn announce(listener: &TcpListener, attester: &dyn Attester) -> std::io::Result<()> {
    lifecycle::announce(&serde_json::json!({
        "event": "listening",
        "address": listener.local_addr()?.to_string(),
        "tee": attester.name(),
        "pid": std::process::id(),
    }))
}
