//! The command line and the settings of KeyService.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use sesemi_process::settings::{SettingsError, read_file, within};
use sesemi_process::trust::TrustSettings;
use sesemi_protocol::CodeIdentityDigest;
use sesemi_traces::{Export, Ratio};

use crate::server::PER_ADDRESS;
use crate::service::writer::SNAPSHOT_EVERY;

/// KeyService: keeps model and request keys and releases them only to approved enclaves.
#[derive(Debug, Parser)]
#[command(name = "sesemi-keyservice", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Serve until SIGTERM or Ctrl-C, then drain and stop.
    ///
    /// Prints one line of JSON on standard output once it listens; logs go to standard error.
    #[command(after_help = "Example (simulated TEE, protects nothing):\n  \
        simtee init --state platform\n  \
        simtee run --state platform -- ./sesemi-keyservice serve --state keys \\\n    \
        --simulated-root platform/public/root.der --endorsements platform/public/collateral.json")]
    Serve(Box<ServeArgs>),
    /// Make a state folder of a backup. It needs no TEE: a backup is sealed, and stays so.
    ///
    /// The service then notices by its clients if the backup is older than what they have seen.
    #[command(after_help = "Example:\n  \
        sesemi-keyservice restore --from keys.backup --state keys")]
    Restore(RestoreArgs),
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// The new state folder; it must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    pub state: PathBuf,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A TOML file with the same settings, by their long names.
    #[arg(long, env = "SESEMI_KEYSERVICE_CONFIG", value_name = "FILE")]
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
    /// Folder for the sealed state; created if missing.
    #[arg(long, env = "SESEMI_KEYSERVICE_STATE", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Address for attested channels [default: 127.0.0.1:7400].
    #[arg(long, env = "SESEMI_KEYSERVICE_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for health and metrics over HTTP [default: 127.0.0.1:7401].
    #[arg(long, env = "SESEMI_KEYSERVICE_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// How long SeMIRT may use released keys, in seconds, 1 to 3600 [default: 60].
    #[arg(long, env = "SESEMI_KEYSERVICE_LEASE_SECONDS", value_name = "SECONDS")]
    lease_seconds: Option<u32>,
    /// Commands and questions that each principal may send, a second; five times as many at once [default: 100].
    #[arg(long, env = "SESEMI_KEYSERVICE_COMMANDS_PER_SECOND", value_name = "N")]
    commands_per_second: Option<u32>,
    /// Connections that each address may open, a second; ten times as many at once [default: 100].
    #[arg(
        long,
        env = "SESEMI_KEYSERVICE_CONNECTIONS_PER_SECOND",
        value_name = "N"
    )]
    connections_per_second: Option<u32>,
    /// Connections that each address may have at once, 1 to 1024; raise it if many come from behind one address [default: 128].
    #[arg(
        long,
        env = "SESEMI_KEYSERVICE_CONNECTIONS_PER_ADDRESS",
        value_name = "N"
    )]
    connections_per_address: Option<u32>,
    /// Calls of whoever is not registered, registrations and status among them, that each address may send, a second; ten times
    /// as many at once [default: 100].
    #[arg(long, env = "SESEMI_KEYSERVICE_STRANGERS_PER_SECOND", value_name = "N")]
    strangers_per_second: Option<u32>,
    /// Entries of the log after which a new snapshot is written [default: 50000]. For tests, which cannot wait for so many.
    #[arg(
        long,
        env = "SESEMI_KEYSERVICE_SNAPSHOT_EVERY",
        value_name = "ENTRIES",
        hide = true
    )]
    snapshot_every: Option<NonZeroU64>,
    /// Take the service over from the KeyService at this address, once its custodians approved this code.
    #[arg(long, env = "SESEMI_KEYSERVICE_PREDECESSOR", value_name = "ADDR")]
    predecessor: Option<SocketAddr>,
    /// Code identity that the predecessor must have.
    #[arg(
        long,
        env = "SESEMI_KEYSERVICE_PREDECESSOR_CODE",
        value_name = "DIGEST"
    )]
    predecessor_code: Option<String>,
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
    /// Folder of the sealed state.
    pub state: PathBuf,
    /// Address for attested channels.
    pub listen: SocketAddr,
    /// Address for health and metrics.
    pub admin_listen: SocketAddr,
    /// Whose evidence to believe.
    pub trust: TrustSettings,
    /// Where traces go, if anywhere.
    pub traces: Option<Export>,
    /// Length of a lease, in seconds.
    pub lease_seconds: u32,
    /// Commands and questions of one principal, a second.
    pub commands_per_second: u32,
    /// Connections of one address, a second.
    pub connections_per_second: u32,
    /// Connections of one address at once.
    pub connections_per_address: usize,
    /// Calls of one address that no enclave and no registered principal sends, a second.
    pub strangers_per_second: u32,
    /// Entries after which a new snapshot is made.
    pub snapshot_every: NonZeroU64,
    /// From whom to take over.
    pub predecessor: Option<Predecessor>,
}

/// A KeyService to take over from.
#[derive(Debug, Clone, Copy)]
pub struct Predecessor {
    /// Where it listens.
    pub address: SocketAddr,
    /// The code that it must be.
    pub code: CodeIdentityDigest,
}

impl ServeArgs {
    /// Merges flags and environment over the file, and checks the result.
    ///
    /// # Errors
    /// [`SettingsError`], which names the setting or the line at fault.
    pub fn resolve(self) -> Result<Config, SettingsError> {
        let file: Settings = read_file(self.config.as_deref())?;
        let set = self.settings;
        let per_second = |name, flag: Option<u32>, file: Option<u32>| {
            within(
                name,
                flag.or(file).unwrap_or(100),
                1..=1_000_000,
                "1 to 1000000",
            )
        };
        let predecessor = predecessor(
            set.predecessor.or(file.predecessor),
            set.predecessor_code.or(file.predecessor_code),
        )?;
        let lease_seconds = set.lease_seconds.or(file.lease_seconds).unwrap_or(60);
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Config {
            state: set
                .state
                .or(file.state)
                .ok_or(SettingsError::Missing("state"))?,
            listen: set.listen.or(file.listen).unwrap_or(local(7400)),
            admin_listen: set
                .admin_listen
                .or(file.admin_listen)
                .unwrap_or(local(7401)),
            trust: self.trust.or(file.trust),
            traces: Export::new(
                set.traces.or(file.traces),
                set.traces_ratio.or(file.traces_ratio),
                set.traces_max_mib.or(file.traces_max_mib),
            ),
            lease_seconds: within("lease-seconds", lease_seconds, 1..=3600, "1 to 3600")?,
            commands_per_second: per_second(
                "commands-per-second",
                set.commands_per_second,
                file.commands_per_second,
            )?,
            connections_per_second: per_second(
                "connections-per-second",
                set.connections_per_second,
                file.connections_per_second,
            )?,
            connections_per_address: within(
                "connections-per-address",
                set.connections_per_address
                    .or(file.connections_per_address)
                    .map_or(PER_ADDRESS, |most| {
                        usize::try_from(most).unwrap_or(usize::MAX)
                    }),
                1..=1024,
                "1 to 1024",
            )?,
            strangers_per_second: per_second(
                "strangers-per-second",
                set.strangers_per_second,
                file.strangers_per_second,
            )?,
            snapshot_every: set
                .snapshot_every
                .or(file.snapshot_every)
                .unwrap_or(SNAPSHOT_EVERY),
            predecessor,
        })
    }
}

/// A predecessor has an address and a code, or is none: whose key is taken over is never left open.
fn predecessor(
    address: Option<SocketAddr>,
    code: Option<String>,
) -> Result<Option<Predecessor>, SettingsError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let code = code.ok_or(SettingsError::Missing("predecessor-code"))?;
    let code = code
        .parse()
        .map_err(|_| SettingsError::Range("predecessor-code", "64 hexadecimal digits"))?;
    Ok(Some(Predecessor { address, code }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(file: &str, flags: &[&str]) -> Result<Config, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keyservice.toml");
        std::fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let args = ["sesemi-keyservice", "serve", "--config", path];
        let cli = Cli::try_parse_from(args.iter().chain(flags)).unwrap();
        let CliCommand::Serve(args) = cli.command else {
            panic!("not serve")
        };
        args.resolve()
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = "state = \"keys\"\nlease-seconds = 10\n[trust]\nendorsements = \"c.json\"\n";
        let config = resolve(file, &[]).unwrap();
        assert_eq!(config.lease_seconds, 10);
        assert_eq!(config.trust.endorsements, Some("c.json".into()));
        let config = resolve(file, &["--lease-seconds", "20", "--endorsements", "d.json"]).unwrap();
        assert_eq!(config.lease_seconds, 20);
        assert_eq!(config.trust.endorsements, Some("d.json".into()));
    }

    #[test]
    fn traces_are_set_by_the_file_and_by_flags_and_have_a_bound_if_nobody_sets_one() {
        let traces = |file: &str, flags: &[&str]| {
            let file = format!("state = \"keys\"\n{file}");
            resolve(&file, flags).map(|config| config.traces)
        };
        assert_eq!(traces("", &[]).unwrap(), None);
        let only = traces("traces = \"t\"", &[]).unwrap().unwrap();
        assert_eq!((only.ratio, only.max_bytes), (Ratio::ALL, 256 << 20));
        let all = "traces = \"t\"\ntraces-ratio = 0.5\ntraces-max-mib = 2\n";
        let set = traces(all, &["--traces-max-mib", "3"]).unwrap().unwrap();
        assert_eq!(set.ratio, 0.5.try_into().unwrap());
        assert_eq!(set.max_bytes, 3 << 20);
        for bad in ["traces-max-mib = 0", "traces-ratio = 2"] {
            let error = traces(bad, &[]).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn a_mistake_in_the_file_is_shown_with_its_line() {
        let error = resolve("state = \"keys\"\nlease-secs = 10\n", &[]).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn limits_of_addresses_have_defaults_and_bounds() {
        let config = resolve("state = \"keys\"", &[]).unwrap();
        assert_eq!(config.connections_per_address, PER_ADDRESS);
        assert_eq!(config.strangers_per_second, 100);
        let file = "state = \"keys\"\nconnections-per-address = 1024\nstrangers-per-second = 1\n";
        let config = resolve(file, &["--strangers-per-second", "2"]).unwrap();
        assert_eq!(config.connections_per_address, 1024);
        assert_eq!(config.strangers_per_second, 2);
        for most in ["0", "1025", "4294967295"] {
            let error = resolve(file, &["--connections-per-address", most]).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("connections-per-address must be 1 to 1024"),
                "{error}"
            );
        }
        assert!(resolve(file, &["--strangers-per-second", "0"]).is_err());
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_named() {
        assert!(
            resolve("", &[])
                .unwrap_err()
                .to_string()
                .contains("--state")
        );
        let error = resolve("state = \"keys\"", &["--lease-seconds", "0"]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("lease-seconds must be 1 to 3600")
        );
    }
}
