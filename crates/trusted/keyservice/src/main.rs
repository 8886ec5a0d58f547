//! The KeyService binary: find the TEE, come to the state (open it, take it over, or wait for custodians), serve until told
//! to stop or handed over.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use sesemi_attest::channel::{Acceptor, ChannelError, Connector};
use sesemi_attest::{
    AppraisalError, AppraisalPolicy, Attester, AttesterError, Clock as _, EvidenceVerifier,
    OwnCodeError, SealBinding, SystemClock, own_code, tee,
};
use sesemi_keyservice::admin::{self, Admin};
use sesemi_keyservice::config::{Cli, CliCommand, Config, RestoreArgs};
use sesemi_keyservice::limits::{Limits, Rate, RateError};
use sesemi_keyservice::locked::LockedService;
use sesemi_keyservice::log::restore;
use sesemi_keyservice::log::{LogError, backup::BackupError};
use sesemi_keyservice::metrics::Metrics;
use sesemi_keyservice::server::{AddressLimits, Bounds, Server};
use sesemi_keyservice::service::pages::PAGES;
use sesemi_keyservice::service::{KeyService, Resources};
use sesemi_keyservice::start::{DATABASE, How, Opening, Setup, StartError};
use sesemi_keyservice::takeover::{TakeOverError, take_over};
use sesemi_keyservice::unlock::{Recovery, UnlockError, Unlocked};
use sesemi_process::sandbox::{self, HardenError, Paths};
use sesemi_process::settings::SettingsError;
use sesemi_process::trust::TrustError;
use sesemi_process::{WipingAllocator, http, lifecycle, traced};
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::{SigningIdentity, SystemEntropy};
use sesemi_traces::TracesError;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Threads of the runtime: fixed, because some TEEs must know their number in advance.
const THREADS: usize = 2;
/// Threads that wait for the TEE's evidence, which it makes one piece at a time, and that read pages of the log. Fixed for the same
/// reason.
const BLOCKING_THREADS: usize = 4;
/// Backups at once.
const BACKUPS: usize = 1;
// However many pages and backups are asked for, a thread is left for evidence, without which nobody connects.
const _: () = assert!(PAGES + BACKUPS < BLOCKING_THREADS);
/// How often what waits to be recorded is recorded.
const TICK: Duration = Duration::from_millis(200);
/// How often renewals are recorded, the freshness floor is kept, and ended keys are wiped.
const KEEP: Duration = Duration::from_secs(60);
/// How long a successor waits for its predecessor to let go of the state.
const LET_GO: Duration = Duration::from_secs(60);
/// Callers that are told apart at once.
const CALLERS: usize = 65_536;

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
    Traces(#[from] TracesError),
    #[error(transparent)]
    Tee(#[from] AttesterError),
    #[error(transparent)]
    OwnCode(#[from] OwnCodeError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error(transparent)]
    Restore(#[from] BackupError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Appraisal(#[from] AppraisalError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Rate(#[from] RateError),
    #[error("a task of KeyService ended early")]
    Task,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        CliCommand::Serve(args) => {
            lifecycle::start_logs();
            lifecycle::exit_code(args.resolve().map_err(MainError::from).and_then(run))
        }
        CliCommand::Restore(args) => lifecycle::exit_code(restore_backup(&args)),
    }
}

fn restore_backup(args: &RestoreArgs) -> Result<(), MainError> {
    let shown = args.from.display().to_string();
    let file = std::fs::File::open(&args.from).map_err(|e| MainError::Io(shown, e))?;
    let summary = restore::read(std::io::BufReader::new(file), &args.state)?;
    lifecycle::announce(&serde_json::json!({
        "event": "restored",
        "state": args.state,
        "entries": summary.entries,
        "files": summary.files,
    }))
    .map_err(|e| MainError::Io("standard output".into(), e))
}

fn run(config: Config) -> Result<(), MainError> {
    std::fs::create_dir_all(&config.state)
        .map_err(|e| MainError::Io(config.state.display().to_string(), e))?;
    // What is read once is read before the sandbox, so that its folders need not stay open.
    let verifier = config.trust.verifier()?;
    let policy = config.trust.service_policy()?;
    let traces = config.traces.as_ref();
    let traces = traces.map(|to| to.open("sesemi-keyservice")).transpose()?;
    let folders = Paths {
        write: vec![config.state.clone()],
        ..Paths::default()
    };
    sandbox::enter(folders, &config.trust)?;
    // Only now: some TEEs are waited for on threads of their own, and the sandbox has to be entered before the first.
    let attester = traced::evidence(tee::detect()?);
    // Ends last: what the others record at their end is still written.
    let _traces = traces
        .map(|it| it.start(env!("CARGO_PKG_VERSION"), Some(attester.name())))
        .transpose()?;
    let program = Program {
        metrics: Metrics::new(),
        config,
        verifier,
        policy,
        attester,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|e| MainError::Io("the runtime".into(), e))?
        .block_on(program.run())
}

/// What every part of the program needs.
struct Program {
    config: Config,
    verifier: EvidenceVerifier,
    policy: AppraisalPolicy,
    attester: Arc<dyn Attester>,
    metrics: Arc<Metrics>,
}

impl Program {
    async fn run(mut self) -> Result<(), MainError> {
        let stop = lifecycle::stop_signal().map_err(|e| MainError::Io("signals".into(), e))?;
        let setup = self.setup()?;
        let service = match self.opening(&setup).await? {
            Opening::Service(service) => *service,
            Opening::Locked(recovery) => {
                let Some((unlocked, shares)) = self.wait_for_shares(recovery, stop.clone()).await?
                else {
                    return Ok(());
                };
                // The log first: this code may open the state by itself only once the log says that it goes on.
                let service =
                    setup.open_with(&unlocked, &How::Recovered(shares), self.resources()?)?;
                setup.keep_key(&unlocked, &SystemEntropy::new())?;
                service
            }
        };
        self.serve(Arc::new(service), stop).await
    }

    fn setup(&self) -> Result<Setup, MainError> {
        let now = SystemClock.unix_seconds();
        let code = own_code(&*self.attester, &self.verifier, &SystemEntropy::new(), now)?;
        let sealing_key = match self.attester.sealing_key(SealBinding::Measurement) {
            Ok(key) => Some(key),
            Err(error @ AttesterError::NoSealingKey { .. }) => {
                tracing::warn!(%error, "this TEE cannot seal");
                None
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Setup {
            folder: self.config.state.clone(),
            code,
            policy: self.policy.digest()?,
            sealing_key,
        })
    }

    fn resources(&self) -> Result<Resources, MainError> {
        Ok(Resources {
            floor: self.verifier.floor().clone(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            metrics: self.metrics.clone(),
            lease_seconds: self.config.lease_seconds,
            limits: limits(self.config.commands_per_second, 5)?,
            snapshot_every: self.config.snapshot_every,
        })
    }

    async fn opening(&self, setup: &Setup) -> Result<Opening, MainError> {
        let Some(predecessor) = self.config.predecessor else {
            return Ok(setup.open(self.resources()?)?);
        };
        let connector = Connector::for_enclave(
            self.verifier.clone(),
            self.config.trust.policy_for([predecessor.code])?,
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::new()),
            self.attester.clone(),
        )?;
        let taken = take_over(setup, connector, predecessor.address, &SystemEntropy::new()).await;
        match taken {
            Ok((unlocked, end)) => {
                tracing::info!(entries = end.sequence, "taken over; waiting for the state");
                let service = self
                    .open_when_free(setup, &unlocked, &How::TookOver(end))
                    .await?;
                Ok(Opening::Service(Box::new(service)))
            }
            // It may have handed over to this very code before, and stopped.
            Err(TakeOverError::Channel(error)) if self.config.state.join(DATABASE).exists() => {
                tracing::warn!(%error, "the predecessor does not answer; trying the state as it is");
                Ok(setup.open(self.resources()?)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The predecessor ends its last calls before it lets go of the state.
    async fn open_when_free(
        &self,
        setup: &Setup,
        unlocked: &Unlocked,
        how: &How,
    ) -> Result<KeyService, MainError> {
        let started = tokio::time::Instant::now();
        loop {
            match setup.open_with(unlocked, how, self.resources()?) {
                Err(StartError::Log(LogError::InUse)) if started.elapsed() < LET_GO => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                result => return Ok(result?),
            }
        }
    }

    /// Serves custodians until their shares open the state; `None` if it was told to stop before.
    async fn wait_for_shares(
        &mut self,
        recovery: Recovery,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Option<(Unlocked, Vec<u8>)>, MainError> {
        let service_id = recovery.service();
        let locked = Arc::new(LockedService::new(recovery));
        let mut unlocked = locked.unlocked();
        // Nobody pins this identity: it is for this wait only.
        let identity = Arc::new(SigningIdentity::generate(&SystemEntropy::new())?);
        let listener = bind(self.config.listen).await?;
        let admin_listener = bind(self.config.admin_listen).await?;
        // Once it is open it is found where it was, also if the system chose the ports.
        let chosen = |listener: &TcpListener| {
            let address = listener.local_addr();
            address.map_err(|e| MainError::Io("the address".into(), e))
        };
        self.config.listen = chosen(&listener)?;
        self.config.admin_listen = chosen(&admin_listener)?;
        self.announce(
            &listener,
            &admin_listener,
            &service_id.to_string(),
            "locked",
        )?;
        tracing::warn!(service = %service_id, "LOCKED: custodians must hand in shares (sesemi keyservice recover)");
        let (done, finished) = watch::channel(false);
        let server = self.server(identity, locked.clone())?;
        let admin = self.admin(None, &finished);
        let admin = http::serve(admin_listener, admin, admin::BOUNDS, finished.clone());
        let serving =
            tokio::spawn(async move { tokio::join!(server.run(listener, finished), admin) });
        tokio::select! {
            _ = unlocked.wait_for(|unlocked| *unlocked) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        done.send_replace(true);
        serving.await.map_err(|_| MainError::Task)?;
        Ok(locked.take())
    }

    async fn serve(
        self,
        service: Arc<KeyService>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), MainError> {
        let listener = bind(self.config.listen).await?;
        let admin_listener = bind(self.config.admin_listen).await?;
        self.announce(
            &listener,
            &admin_listener,
            &service.id().to_string(),
            "open",
        )?;
        let stop = either(stop, service.retired());
        let keeping = tokio::spawn(keep(service.clone()));
        let refreshing = tokio::spawn(self.config.trust.clone().refresh(self.verifier.clone()));
        let server = self.server(service.identity().clone(), service.clone())?;
        let admin = self.admin(Some(service.clone()), &stop);
        let admin = http::serve(admin_listener, admin, admin::BOUNDS, stop.clone());
        tokio::join!(server.run(listener, stop), admin);
        refreshing.abort();
        keeping.abort();
        // An aborted task gives its share of the service back once it was joined.
        let _ = keeping.await;
        match Arc::into_inner(service) {
            Some(service) => service.stop(),
            None => tracing::error!("somebody still uses the service; it ends without a snapshot"),
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn server<S: sesemi_keyservice::server::Answers>(
        &self,
        identity: Arc<SigningIdentity>,
        service: Arc<S>,
    ) -> Result<Server<S>, MainError> {
        let acceptor = Acceptor::new(
            identity,
            self.attester.clone(),
            self.verifier.clone(),
            self.policy.clone(),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy::new()),
        )?;
        let addresses = AddressLimits {
            connections: limits(self.config.connections_per_second, 10)?,
            strangers: limits(self.config.strangers_per_second, 10)?,
        };
        let usual = Bounds::default();
        let bounds = Bounds {
            per_address: self.config.connections_per_address,
            // Where many come from behind one address, many come at once too.
            arriving_per_address: usual
                .arriving_per_address
                .max(self.config.connections_per_address / 4),
            ..usual
        };
        let metrics = self.metrics.clone();
        Ok(Server::new(acceptor, service, metrics, bounds, addresses))
    }

    fn admin(&self, service: Option<Arc<KeyService>>, stop: &watch::Receiver<bool>) -> Arc<Admin> {
        Arc::new(Admin {
            metrics: self.metrics.clone(),
            service,
            folder: self.config.state.clone(),
            stopping: stop.clone(),
            backups: Arc::new(Semaphore::new(BACKUPS)),
        })
    }

    fn announce(
        &self,
        listener: &TcpListener,
        admin: &TcpListener,
        service: &str,
        state: &str,
    ) -> Result<(), MainError> {
        let said = || {
            lifecycle::announce(&serde_json::json!({
                "event": "listening",
                "state": state,
                "address": listener.local_addr()?.to_string(),
                "admin": admin.local_addr()?.to_string(),
                "service": service,
                "tee": self.attester.name(),
                "pid": std::process::id(),
            }))
        };
        said().map_err(|e| MainError::Io("standard output".into(), e))
    }
}

/// So many a second for each caller, and `burst` times as many at once; callers that find no room share ten times as much.
fn limits<K: Ord + Clone>(per_second: u32, burst: u32) -> Result<Limits<K>, RateError> {
    let rate = |per_second: u32| {
        let refill = Duration::from_secs(1)
            .checked_div(per_second)
            .unwrap_or(Duration::from_secs(1));
        let burst = NonZeroU32::new(per_second.saturating_mul(burst)).unwrap_or(NonZeroU32::MIN);
        Rate::new(burst, refill)
    };
    let callers = NonZeroUsize::new(CALLERS).unwrap_or(NonZeroUsize::MIN);
    Ok(Limits::new(
        rate(per_second)?,
        rate(per_second.saturating_mul(10))?,
        callers,
    ))
}

/// The service's chores.
async fn keep(service: Arc<KeyService>) {
    let mut kept = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        service.tick();
        if kept.elapsed() >= KEEP {
            kept = tokio::time::Instant::now();
            service.keep();
        }
    }
}

/// Turns true when one of two does.
fn either(mut a: watch::Receiver<bool>, mut b: watch::Receiver<bool>) -> watch::Receiver<bool> {
    let (send, receive) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = a.wait_for(|on| *on) => {}
            _ = b.wait_for(|on| *on) => {}
        }
        send.send_replace(true);
        send.closed().await;
    });
    receive
}

async fn bind(address: SocketAddr) -> Result<TcpListener, MainError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| MainError::Io(format!("the address {address}"), e))
}
