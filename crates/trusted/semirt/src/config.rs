//! The command line and the settings of SeMIRT.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use sesemi_process::settings::{SettingsError, read_file, within};
use sesemi_process::trust::TrustSettings;
use sesemi_protocol::{CodeIdentityDigest, ServiceId};
use sesemi_traces::{Export, Ratio};

/// SeMIRT: the enclave runtime that opens models and requests and runs them.
#[derive(Debug, Parser)]
#[command(name = "sesemi-semirt", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Serve until SIGTERM or Ctrl-C, then drain and stop. A serverless platform starts this.
    ///
    /// Prints one line of JSON on standard output once it listens; logs go to standard error.
    #[command(
        after_help = "Example (simulated TEE, protects nothing; PLATFORM was made by `simtee init`):\n  \
        simtee run --state PLATFORM -- ./sesemi-semirt serve \\\n    \
        --keyservice 127.0.0.1:7400 --keyservice-id ID --keyservice-code DIGEST --store models \\\n    \
        --simulated-root PLATFORM/public/root.der --endorsements PLATFORM/public/collateral.json"
    )]
    Serve(Box<ServeArgs>),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file with the same settings, by their long names.
    #[arg(long, env = "SESEMI_SEMIRT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    trust: TrustSettings,
}

/// Settings as flags, environment variables or keys of the file; whatever is missing has a default or is an error.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    /// Address for requests [default: 127.0.0.1:8080].
    #[arg(long, env = "SESEMI_SEMIRT_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address of KeyService.
    #[arg(long, env = "SESEMI_SEMIRT_KEYSERVICE", value_name = "ADDR")]
    keyservice: Option<SocketAddr>,
    /// Service id of KeyService.
    #[arg(long, env = "SESEMI_SEMIRT_KEYSERVICE_ID", value_name = "ID")]
    keyservice_id: Option<String>,
    /// Code identity of KeyService.
    #[arg(long, env = "SESEMI_SEMIRT_KEYSERVICE_CODE", value_name = "DIGEST")]
    keyservice_code: Option<String>,
    /// Folder of the object store with encrypted model packages.
    #[arg(long, env = "SESEMI_SEMIRT_STORE", value_name = "DIR")]
    store: Option<PathBuf>,
    /// Runs at once, 1 to 256 [default: 2].
    #[arg(long, env = "SESEMI_SEMIRT_SLOTS", value_name = "N")]
    slots: Option<usize>,
    /// Requests that may wait for a slot, 0 to 65536 [default: 64].
    #[arg(long, env = "SESEMI_SEMIRT_QUEUE", value_name = "N")]
    queue: Option<usize>,
    /// How long a request waits for others that it may be run with in one batch, in milliseconds, 0 to 1000: requests of the same
    /// user for the same model, if its owner allows batches, and of several users if owner and users ask for that with isolation
    /// `batched` [default: 0, no batches].
    #[arg(long, env = "SESEMI_SEMIRT_BATCH_WINDOW_MS", value_name = "MS")]
    batch_window_ms: Option<u64>,
    /// Threads of the engine, 1 to 256 [default: 1].
    #[arg(long, env = "SESEMI_SEMIRT_ENGINE_THREADS", value_name = "N")]
    engine_threads: Option<usize>,
    /// Memory for models and the buffers of their runs, in MiB, 16 at least [default: 256].
    #[arg(long, env = "SESEMI_SEMIRT_MODEL_MEMORY_MIB", value_name = "MIB")]
    model_memory_mib: Option<u64>,
    /// Memory for the bodies of requests and responses on their way, in MiB, 1 to 4095. A request that does not fit waits, and is
    /// refused if its time ends; one that is longer than all of it is refused at once [default: 256].
    #[arg(long, env = "SESEMI_SEMIRT_BODY_MEMORY_MIB", value_name = "MIB")]
    body_memory_mib: Option<usize>,
    /// Folder of the object store in which sealed requests and responses are exchanged by reference; not that of the models, nor
    /// around or inside it [default: requests by reference are refused].
    #[arg(long, env = "SESEMI_SEMIRT_EXCHANGE", value_name = "DIR")]
    exchange: Option<PathBuf>,
    /// Longest that a run or the loading of a model may take, in seconds, 1 to 3600; an engine that takes longer hangs, and
    /// the instance ends [default: 300].
    #[arg(long, env = "SESEMI_SEMIRT_RUN_LIMIT", value_name = "SECONDS")]
    run_limit: Option<u64>,
    /// Folder for ciphertext of a remote store, which instances on this host may share; it must be there. A store in a folder, the only
    /// kind that can be set today, is read where it is and needs none [default: no cache].
    #[arg(long, env = "SESEMI_SEMIRT_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The longest that the cache gets, in MiB [default: 4096].
    #[arg(long, env = "SESEMI_SEMIRT_CACHE_MAX_MIB", value_name = "MIB")]
    cache_max_mib: Option<u64>,
    /// File for traces (OTLP/JSON lines), or a folder, in which each process makes a file of its own [default: no traces].
    #[arg(long, env = "SESEMI_TRACES", value_name = "PATH")]
    traces: Option<PathBuf>,
    /// Share of the traces that begin here which is recorded, 0 to 1; a caller's own trace is recorded if it says so [default: 1].
    #[arg(long, env = "SESEMI_TRACES_RATIO", value_name = "RATIO")]
    traces_ratio: Option<Ratio>,
    /// The longest that the file for traces gets, in MiB; spans beyond it are lost until somebody shortens it [default: 256].
    #[arg(long, env = "SESEMI_TRACES_MAX_MIB", value_name = "MIB")]
    traces_max_mib: Option<NonZeroU32>,
    /// Only in the file: a table `[trust]` with `simulated-root` and `endorsements`.
    #[arg(skip)]
    trust: TrustSettings,
}

/// A complete, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address for requests.
    pub listen: SocketAddr,
    /// Address of KeyService.
    pub keyservice: SocketAddr,
    /// Who KeyService must be.
    pub keyservice_id: ServiceId,
    /// Which code KeyService must run.
    pub keyservice_code: CodeIdentityDigest,
    /// Folder of model packages.
    pub store: PathBuf,
    /// Runs at once.
    pub slots: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// How long a request waits for others to be run with.
    pub batch_window: Duration,
    /// Threads of the engine.
    pub engine_threads: usize,
    /// Bytes for models.
    pub model_memory: u64,
    /// Bytes for bodies on their way.
    pub body_memory: usize,
    /// Folder for requests by reference, if they are allowed.
    pub exchange: Option<PathBuf>,
    /// Longest that a run or the loading of a model may take.
    pub run_limit: Duration,
    /// Folder for ciphertext of a remote store, and how many bytes of it.
    pub cache: Option<(PathBuf, u64)>,
    /// Whose evidence to believe.
    pub trust: TrustSettings,
    /// Where traces go, if anywhere.
    pub traces: Option<Export>,
}

impl ServeArgs {
    /// Merges flags and environment over the file, and checks the result.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting or the line at fault.
    pub fn resolve(self) -> Result<Config, SettingsError> {
        let file: Settings = read_file(self.config.as_deref())?;
        let set = self.settings;
        let missing = SettingsError::Missing;
        let digest = |text: Option<String>, name| {
            let text = text.ok_or(SettingsError::Missing(name))?;
            text.parse::<ServiceId>()
                .map_err(|_| SettingsError::Range(name, "64 hexadecimal digits"))
        };
        let slots = set.slots.or(file.slots).unwrap_or(2);
        let queue = set.queue.or(file.queue).unwrap_or(64);
        let window = set.batch_window_ms.or(file.batch_window_ms).unwrap_or(0);
        let threads = set.engine_threads.or(file.engine_threads).unwrap_or(1);
        let mib = set
            .model_memory_mib
            .or(file.model_memory_mib)
            .unwrap_or(256);
        let bodies = set.body_memory_mib.or(file.body_memory_mib).unwrap_or(256);
        let bodies = within("body-memory-mib", bodies, 1..=4095, "1 to 4095")?;
        let store = set.store.or(file.store).ok_or(missing("store"))?;
        let exchange = set.exchange.or(file.exchange);
        apart(exchange.as_deref(), &store)?;
        if let Some(cache) = set.cache.as_ref().or(file.cache.as_ref()) {
            apart(exchange.as_deref(), cache)?;
        }
        let limit = set.run_limit.or(file.run_limit).unwrap_or(300);
        // A package's head alone takes half of the least.
        let mib = within("model-memory-mib", mib, 16..=1 << 20, "16 to 1048576")?;
        let cached = set.cache_max_mib.or(file.cache_max_mib).unwrap_or(4096);
        let cached = within("cache-max-mib", cached, 1..=1 << 24, "1 to 16777216")?;
        let cached = cached.saturating_mul(1024 * 1024);
        let id = digest(set.keyservice_id.or(file.keyservice_id), "keyservice-id")?;
        let code = digest(
            set.keyservice_code.or(file.keyservice_code),
            "keyservice-code",
        )?;
        Ok(Config {
            listen: set
                .listen
                .or(file.listen)
                .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            keyservice: set
                .keyservice
                .or(file.keyservice)
                .ok_or(missing("keyservice"))?,
            keyservice_id: id,
            keyservice_code: CodeIdentityDigest(code.0),
            store,
            slots: within("slots", slots, 1..=256, "1 to 256")?,
            queue: within("queue", queue, 0..=65536, "0 to 65536")?,
            batch_window: Duration::from_millis(within(
                "batch-window-ms",
                window,
                0..=1000,
                "0 to 1000",
            )?),
            engine_threads: within("engine-threads", threads, 1..=256, "1 to 256")?,
            model_memory: mib.saturating_mul(1024 * 1024),
            body_memory: bodies.saturating_mul(1024 * 1024),
            exchange,
            run_limit: Duration::from_secs(within("run-limit", limit, 1..=3600, "1 to 3600")?),
            cache: set.cache.or(file.cache).map(|folder| (folder, cached)),
            trust: self.trust.or(file.trust),
            traces: Export::new(
                set.traces.or(file.traces),
                set.traces_ratio.or(file.traces_ratio),
                set.traces_max_mib.or(file.traces_max_mib),
            ),
        })
    }
}

/// Refuses an exchange that is the models' store or the cache, or around or inside one: whoever asks by reference names objects
/// there.
fn apart(exchange: Option<&Path>, store: &Path) -> Result<(), SettingsError> {
    let Some(exchange) = exchange else {
        return Ok(());
    };
    // A folder that is missing is told later, by its own error.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let (exchange, store) = (real(exchange), real(store));
    if exchange.starts_with(&store) || store.starts_with(&exchange) {
        return Err(SettingsError::Range(
            "exchange",
            "a folder apart from those of the models and of the cache",
        ));
    }
    Ok(())
}

/// Refuses an environment in which the engine would print shapes, names and times of what it computes.
///
/// # Errors
/// [`SettingsError::Environment`], which names the variable.
pub fn check_environment(
    variables: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<(), SettingsError> {
    let harmless = "RTEN_NUM_THREADS";
    let found = variables
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| name.starts_with("RTEN_") && name != harmless);
    match found {
        Some(name) => Err(SettingsError::Environment(name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flags: &[&str]) -> Result<Config, SettingsError> {
        let cli = Cli::try_parse_from(["sesemi-semirt", "serve"].iter().chain(flags)).unwrap();
        let CliCommand::Serve(args) = cli.command;
        args.resolve()
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_named() {
        let id = "ab".repeat(32);
        let base = [
            "--keyservice",
            "127.0.0.1:1",
            "--keyservice-id",
            &id,
            "--keyservice-code",
            &id,
            "--store",
            "s",
        ];
        assert!(resolve(&base).is_ok());
        assert!(
            resolve(&base[..6])
                .unwrap_err()
                .to_string()
                .contains("--store")
        );
        let slots: Vec<&str> = base.iter().copied().chain(["--slots", "0"]).collect();
        assert!(
            resolve(&slots)
                .unwrap_err()
                .to_string()
                .contains("slots must be 1 to 256")
        );
        let cache = ["--cache", "c", "--cache-max-mib", "3"];
        let cache: Vec<&str> = base.iter().copied().chain(cache).collect();
        let cache = resolve(&cache).unwrap().cache;
        assert_eq!(cache, Some((PathBuf::from("c"), 3 << 20)));
    }

    #[test]
    fn the_exchange_is_apart_from_the_models() {
        let id = "ab".repeat(32);
        let with = |store: &str, exchange: &str| {
            resolve(&[
                "--keyservice",
                "127.0.0.1:1",
                "--keyservice-id",
                &id,
                "--keyservice-code",
                &id,
                "--store",
                store,
                "--exchange",
                exchange,
            ])
        };
        assert!(with("data/models", "data/exchange").is_ok());
        for (store, exchange) in [("a", "a"), ("a", "a/b"), ("a/b", "a"), (".", "../.")] {
            let refused = with(store, exchange).unwrap_err().to_string();
            assert!(refused.contains("exchange must be"), "{refused}");
        }
    }

    #[test]
    fn an_environment_that_makes_the_engine_talk_is_refused() {
        let check = |name: &str| check_environment([name.into()]);
        assert!(
            check("RTEN_TIMING")
                .unwrap_err()
                .to_string()
                .contains("RTEN_TIMING")
        );
        assert!(check("RTEN_NUM_THREADS").is_ok());
        assert!(check("PATH").is_ok());
    }
}
