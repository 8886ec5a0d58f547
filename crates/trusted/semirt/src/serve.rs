//! What every SeMIRT binary does, whatever its engine: find the TEE, then serve until told to stop. The line to KeyService is opened
//! meanwhile; keys and models come with the first request.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
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
use sesemi_process::{http, keep_what_is_freed, lifecycle, traced};
use sesemi_protocol::SystemEntropy;
use sesemi_traces::TracesError;
use tokio::net::TcpListener;

use crate::config::{Cli, CliCommand, Config};
use crate::engine::Engine;
use crate::http::{Endpoints, Exchange, bounds};
use crate::keys::{FromKeyService, Keys};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::models::cache::Cache;
use crate::runtime::{Capacity, Runtime};
use crate::slots::Watchdog;

/// Threads of the runtime: fixed, because some TEEs must know their number in advance.
const THREADS: usize = 2;

/// Threads beside it for what blocks, at most.
const BLOCKING: usize = 10;
/// Exit code of an instance whose engine hung (EX_SOFTWARE of sysexits.h).
const HUNG: i32 = 70;

/// Why an engine is not there.
pub type EngineFailure = Box<dyn Error + Send + Sync>;

/// How a binary's engine comes into the process.
#[derive(Debug, Clone, Copy)]
pub struct EngineStart<P, S> {
    /// Refuses an environment in which the engine would not do what was measured, or talk about it.
    pub check_environment: fn(Vec<OsString>) -> Result<(), SettingsError>,
    /// While the process may still open files and make memory executable, and has no second thread, which it must not start.
    pub prepare: P,
    /// Once it may not: makes the engine of what was prepared, for so many threads. What takes time belongs on a thread of
    /// its own, so that the rest of the start goes on meanwhile.
    pub start: S,
}

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
    #[error("the engine cannot be used")]
    Engine(#[source] EngineFailure),
    #[error(transparent)]
    Harden(#[from] HardenError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(transparent)]
    Tee(#[from] AttesterError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// The whole program, with this engine.
pub fn main<T, E, P, S>(engine: EngineStart<P, S>) -> ExitCode
where
    P: FnOnce() -> Result<T, EngineFailure>,
    E: Engine + 'static,
    S: FnOnce(T, usize) -> Result<E, EngineFailure>,
{
    let CliCommand::Serve(args) = Cli::parse().command;
    lifecycle::start_logs();
    let names = std::env::vars_os().map(|(name, _)| name).collect();
    let config = (engine.check_environment)(names)
        .and_then(|()| args.resolve())
        .map_err(MainError::from);
    lifecycle::exit_code(config.and_then(|config| run(config, engine)))
}

fn run<T, E, P, S>(config: Config, engine: EngineStart<P, S>) -> Result<(), MainError>
where
    P: FnOnce() -> Result<T, EngineFailure>,
    E: Engine + 'static,
    S: FnOnce(T, usize) -> Result<E, EngineFailure>,
{
    let prepared = (engine.prepare)().map_err(MainError::Engine)?;
    // What is read once is read before the sandbox, so that its folders need not stay open.
    let verifier = config.trust.verifier()?;
    let policy = config.trust.policy_for([config.keyservice_code])?;
    let traces = config.traces.as_ref();
    let traces = traces.map(|to| to.open("sesemi-semirt")).transpose()?;
    let folders = Paths {
        read: vec![config.store.clone()],
        write: written(&config),
    };
    sandbox::enter(folders, &config.trust)?;
    if !keep_what_is_freed() {
        tracing::warn!(
            "the allocator cannot be told to keep what is freed: switches of models take longer"
        );
    }
    let engine = (engine.start)(prepared, config.engine_threads);
    let engine: Arc<dyn Engine> = Arc::new(engine.map_err(MainError::Engine)?);
    // Only now: some TEEs are waited for on threads of their own, and the sandbox has to be entered before the first.
    let attester = traced::evidence(tee::detect()?);
    // Ends last: what the others record at their end is still written.
    let _traces = traces
        .map(|it| it.start(env!("CARGO_PKG_VERSION"), Some(attester.name())))
        .transpose()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        // Loads, file reads and waits for evidence; runs have threads of their own.
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .map_err(|e| MainError::Io("the runtime".into(), e))?
        .block_on(serve(config, engine, verifier, policy, attester))
}

/// The folders that are written to.
fn written(config: &Config) -> Vec<PathBuf> {
    let cache = config.cache.iter().map(|(folder, _)| folder);
    cache.chain(&config.exchange).cloned().collect()
}

async fn serve(
    config: Config,
    engine: Arc<dyn Engine>,
    verifier: EvidenceVerifier,
    policy: AppraisalPolicy,
    attester: Arc<dyn Attester>,
) -> Result<(), MainError> {
    let source = key_source(&config, verifier.clone(), policy, attester.clone())?;
    let runtime = Arc::new(assemble(&config, engine, source.clone())?);
    let exchange = match &config.exchange {
        None => None,
        Some(folder) => Some(Exchange::new(Arc::new(LocalFileSystem::new_with_prefix(
            folder,
        )?))),
    };
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| MainError::Io(format!("the address {}", config.listen), e))?;
    let stop = lifecycle::stop_signal().map_err(|e| MainError::Io("signals".into(), e))?;
    announce(&listener, &*attester).map_err(|e| MainError::Io("standard output".into(), e))?;

    // Attestation takes longer than anything else of a cold start, and needs nothing that only a request says.
    let opening = tokio::spawn(async move { source.tend().await });
    let tending = {
        let runtime = runtime.clone();
        tokio::spawn(async move { runtime.keys().tend().await })
    };
    let watching = tokio::spawn(end_if_it_hangs(runtime.watchdog().clone()));
    let refreshing = tokio::spawn(config.trust.clone().refresh(verifier));
    let endpoints = Endpoints::new(runtime, exchange, stop.clone());
    let bounds = bounds(config.body_memory);
    http::serve(listener, Arc::new(endpoints), bounds, stop).await;
    opening.abort();
    tending.abort();
    refreshing.abort();
    watching.abort();
    tracing::info!("stopped");
    Ok(())
}

/// The thread of an engine that hangs cannot be stopped: nothing less than this takes back its slot, its memory and its
/// processor. The platform starts another instance.
async fn end_if_it_hangs(watchdog: Arc<Watchdog>) {
    let overdue = watchdog.overdue().await;
    tracing::error!(%overdue, "the engine hangs; this instance ends");
    std::process::exit(HUNG);
}

/// The line to KeyService, which is not open yet.
fn key_source(
    config: &Config,
    verifier: EvidenceVerifier,
    policy: AppraisalPolicy,
    attester: Arc<dyn Attester>,
) -> Result<FromKeyService, MainError> {
    let connector = Connector::for_enclave(
        verifier,
        policy,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
        attester,
    )?;
    let expected = ExpectedService::Pinned(config.keyservice_id);
    let session = KeyServiceSession::new(connector, config.keyservice, expected);
    Ok(FromKeyService(Arc::new(session)))
}

fn assemble(
    config: &Config,
    engine: Arc<dyn Engine>,
    source: FromKeyService,
) -> Result<Runtime, MainError> {
    let entropy = Arc::new(SystemEntropy::new());
    let keys = Keys::new(Arc::new(source), entropy.clone());
    let store = LocalFileSystem::new_with_prefix(&config.store)?;
    let watchdog = Watchdog::new(config.run_limit);
    let mut models = Models::new(
        Arc::new(store),
        engine,
        config.model_memory,
        watchdog.clone(),
    );
    if let Some((folder, most)) = &config.cache {
        models = models.with_cache(Cache::new(folder.clone(), *most));
    }
    let models = Arc::new(models);
    let capacity = Capacity {
        slots: config.slots,
        queue: config.queue,
        batch_window: config.batch_window,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_for_gramine_counts_the_threads_that_there_are() {
        let manifest = include_str!("../../../../deploy/gramine/sesemi-semirt.manifest.template");
        // Main, decryption, quoting, traces, and Gramine's own.
        let others = 1 + 2 + 1 + 1 + 3;
        let least = format!("{} + slots + engine-threads", THREADS + BLOCKING + others);
        assert!(manifest.contains(&least), "{least}");
    }
}
