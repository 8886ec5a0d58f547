//! Where the configuration may be written: flags over environment variables over one TOML file. One name everywhere: the
//! flag `--idle-timeout`, the variable `SESEMI_FNPACKER_IDLE_TIMEOUT` and the key `idle-timeout` are the same thing.
//!
//! Types refuse bad values where they are read, so that the message points at the flag or at the line of the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use sesemi_traces::{Export, Ratio};

use crate::config::OpenWhiskSettings;
use crate::packing::policy::Policy;
use crate::{Config, ConfigError};

/// A positive length of time, written as seconds, with a fraction if need be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds(Duration);

/// `KEY=VALUE`, for the environment of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable(String, String);

/// Everything that can be set. What is not set has a default; `image` and `log-dir` have none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Where the gateway listens; port 0 picks one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "SESEMI_FNPACKER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Command before the image, as one string of words, for example "simtee run --state DIR --"; may be repeated
    #[arg(
        long,
        value_name = "COMMAND",
        env = "SESEMI_FNPACKER_LAUNCHER",
        allow_hyphen_values = true
    )]
    #[serde(deserialize_with = "words_or_list")]
    pub launcher: Vec<Words>,
    /// The program that an instance runs
    #[arg(long, value_name = "PATH", env = "SESEMI_FNPACKER_IMAGE")]
    pub image: Option<PathBuf>,
    /// One argument of the image; may be repeated, in the environment one a line
    #[arg(
        long = "image-arg",
        value_name = "ARG",
        env = "SESEMI_FNPACKER_IMAGE_ARG",
        allow_hyphen_values = true
    )]
    #[arg(value_delimiter = '\n')]
    #[serde(rename = "image-arg")]
    pub image_args: Vec<String>,
    /// One variable of the image's environment; may be repeated, in the environment one a line
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "SESEMI_FNPACKER_IMAGE_ENV",
        hide_env_values = true
    )]
    #[arg(value_delimiter = '\n')]
    #[serde(deserialize_with = "table_of_variables")]
    pub image_env: Vec<Variable>,
    /// Name of the pool: its endpoints are NAME-0, NAME-1, ... [default: pool]
    #[arg(long, value_name = "NAME", env = "SESEMI_FNPACKER_POOL")]
    pub pool: Option<String>,
    /// Endpoints of the pool [default: 2]
    #[arg(long, value_name = "N", env = "SESEMI_FNPACKER_ENDPOINTS")]
    pub endpoints: Option<NonZeroU32>,
    /// Requests that each endpoint serves at once [default: 4]
    #[arg(long, value_name = "N", env = "SESEMI_FNPACKER_SLOTS")]
    pub slots: Option<NonZeroU32>,
    /// Memory that one instance is charged for, in MiB [default: 512]
    #[arg(long, value_name = "MIB", env = "SESEMI_FNPACKER_MEMORY_MIB")]
    pub memory_mib: Option<NonZeroU32>,
    /// Memory of all instances together, in MiB [default: enough for every endpoint]
    #[arg(long, value_name = "MIB", env = "SESEMI_FNPACKER_USER_MEMORY_MIB")]
    pub user_memory_mib: Option<NonZeroU32>,
    /// An instance idle for so long ends [default: 180]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_IDLE_TIMEOUT")]
    pub idle_timeout: Option<Seconds>,
    /// Time an instance has to become ready [default: 60]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_START_TIMEOUT")]
    pub start_timeout: Option<Seconds>,
    /// Time between asking an instance to end and killing it [default: 10]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_STOP_GRACE")]
    pub stop_grace: Option<Seconds>,
    /// Requests that may wait for a slot [default: 256]
    #[arg(long, value_name = "N", env = "SESEMI_FNPACKER_QUEUE")]
    pub queue: Option<usize>,
    /// Requests of one caller that may wait for a slot [default: half of the queue]
    #[arg(long, value_name = "N", env = "SESEMI_FNPACKER_QUEUE_PER_USER")]
    pub queue_per_user: Option<usize>,
    /// How requests are placed: cost, paper, prototype, one-to-one or all-in-one [default: cost]
    #[arg(long, value_name = "POLICY", env = "SESEMI_FNPACKER_POLICY")]
    pub policy: Option<Policy>,
    /// Milliseconds of waiting that are worth one GB-second of memory, for the policy cost [default: 20]
    #[arg(long, value_name = "MS", env = "SESEMI_FNPACKER_MEMORY_PRICE")]
    pub memory_price: Option<u32>,
    /// Time for a request that does not say how long it can wait [default: 60]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_TIMEOUT")]
    pub timeout: Option<Seconds>,
    /// The most that a request may ask for, and the longest run in an instance [default: 300]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_MAX_TIMEOUT")]
    pub max_timeout: Option<Seconds>,
    /// Largest request body [default: 16 MiB]
    #[arg(long, value_name = "BYTES", env = "SESEMI_FNPACKER_MAX_BODY_BYTES")]
    pub max_body_bytes: Option<NonZeroUsize>,
    /// Largest response body [default: 64 MiB]
    #[arg(long, value_name = "BYTES", env = "SESEMI_FNPACKER_MAX_RESPONSE_BYTES")]
    pub max_response_bytes: Option<NonZeroUsize>,
    /// Connections served at once [default: 1024]
    #[arg(long, value_name = "N", env = "SESEMI_FNPACKER_MAX_CONNECTIONS")]
    pub max_connections: Option<NonZeroUsize>,
    /// Time for requests in flight after SIGTERM [default: 30]
    #[arg(long, value_name = "SECS", env = "SESEMI_FNPACKER_DRAIN_GRACE")]
    pub drain_grace: Option<Seconds>,
    /// Directory for what the instances print
    #[arg(long, value_name = "DIR", env = "SESEMI_FNPACKER_LOG_DIR")]
    pub log_dir: Option<PathBuf>,
    /// Directory for copies of all that the host sees, for audits; keeps the last 256 activations
    #[arg(long, value_name = "DIR", env = "SESEMI_FNPACKER_TAP")]
    pub tap: Option<PathBuf>,
    /// Where OpenWhisk's REST interface listens, for OpenWhisk's own clients; port 0 picks one [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "SESEMI_FNPACKER_OPENWHISK_LISTEN")]
    pub openwhisk_listen: Option<SocketAddr>,
    /// File with UUID:KEY that such clients must know; made, for its owner alone, if it is not there
    #[arg(long, value_name = "FILE", env = "SESEMI_FNPACKER_OPENWHISK_AUTH")]
    pub openwhisk_auth: Option<PathBuf>,
    /// What such clients call the image, which is the only one that their actions can run [default: semirt]
    #[arg(long, value_name = "NAME", env = "SESEMI_FNPACKER_OPENWHISK_IMAGE")]
    pub openwhisk_image: Option<String>,
    /// File for traces (OTLP/JSON lines), or a folder, in which each process makes a file of its own [default: no traces]
    #[arg(long, value_name = "PATH", env = "SESEMI_TRACES")]
    pub traces: Option<PathBuf>,
    /// Share of the traces that begin here which is recorded, 0 to 1; a caller's own is recorded if it says so [default: 1]
    #[arg(long, value_name = "RATIO", env = "SESEMI_TRACES_RATIO")]
    pub traces_ratio: Option<Ratio>,
    /// The longest that the file for traces gets, in MiB; spans beyond it are lost until somebody shortens it [default: 256]
    #[arg(long, value_name = "MIB", env = "SESEMI_TRACES_MAX_MIB")]
    pub traces_max_mib: Option<NonZeroU32>,
}

/// Why the settings are no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {cause}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file says something that it may not say; the cause names the line.
    #[error("{path}: {cause}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What and where.
        cause: toml::de::Error,
    },
    /// The values do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|cause| SettingsError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        Self::parse(&text).map_err(|cause| SettingsError::File {
            path: path.to_owned(),
            cause,
        })
    }

    /// Reads the text of a TOML file.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// These settings, and `under` where they say nothing. A list is taken from one of the two, never mixed.
    pub fn over(self, under: Self) -> Self {
        fn list<T>(over: Vec<T>, under: Vec<T>) -> Vec<T> {
            if over.is_empty() { under } else { over }
        }
        Self {
            listen: self.listen.or(under.listen),
            launcher: list(self.launcher, under.launcher),
            image: self.image.or(under.image),
            image_args: list(self.image_args, under.image_args),
            image_env: list(self.image_env, under.image_env),
            pool: self.pool.or(under.pool),
            endpoints: self.endpoints.or(under.endpoints),
            slots: self.slots.or(under.slots),
            memory_mib: self.memory_mib.or(under.memory_mib),
            user_memory_mib: self.user_memory_mib.or(under.user_memory_mib),
            idle_timeout: self.idle_timeout.or(under.idle_timeout),
            start_timeout: self.start_timeout.or(under.start_timeout),
            stop_grace: self.stop_grace.or(under.stop_grace),
            queue: self.queue.or(under.queue),
            queue_per_user: self.queue_per_user.or(under.queue_per_user),
            policy: self.policy.or(under.policy),
            memory_price: self.memory_price.or(under.memory_price),
            timeout: self.timeout.or(under.timeout),
            max_timeout: self.max_timeout.or(under.max_timeout),
            max_body_bytes: self.max_body_bytes.or(under.max_body_bytes),
            max_response_bytes: self.max_response_bytes.or(under.max_response_bytes),
            max_connections: self.max_connections.or(under.max_connections),
            drain_grace: self.drain_grace.or(under.drain_grace),
            log_dir: self.log_dir.or(under.log_dir),
            tap: self.tap.or(under.tap),
            openwhisk_listen: self.openwhisk_listen.or(under.openwhisk_listen),
            openwhisk_auth: self.openwhisk_auth.or(under.openwhisk_auth),
            openwhisk_image: self.openwhisk_image.or(under.openwhisk_image),
            traces: self.traces.or(under.traces),
            traces_ratio: self.traces_ratio.or(under.traces_ratio),
            traces_max_mib: self.traces_max_mib.or(under.traces_max_mib),
        }
    }

    /// The configuration that these settings describe.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let image = self.image.ok_or(ConfigError::Missing("image"))?;
        let log_dir = self.log_dir.ok_or(ConfigError::Missing("log-dir"))?;
        let mut config = Config::new(image, log_dir);
        set(&mut config.listen, self.listen);
        let pool = &mut config.pool;
        pool.image.args = self.image_args.into_iter().map(OsString::from).collect();
        pool.image.env = self
            .image_env
            .into_iter()
            .map(|Variable(key, value)| (key, value))
            .collect();
        set(&mut pool.name, self.pool);
        set(&mut pool.endpoints, self.endpoints.map(NonZeroU32::get));
        set(&mut pool.slots, self.slots.map(NonZeroU32::get));
        set(&mut pool.memory_mib, self.memory_mib.map(NonZeroU32::get));
        set(&mut pool.queue_capacity, self.queue);
        let half = self.queue.map(|all| all.div_ceil(2));
        set(&mut pool.queue_per_user, self.queue_per_user.or(half));
        set(&mut pool.policy, self.policy);
        set(&mut pool.prices.millis_per_gb_second, self.memory_price);
        let platform = &mut config.platform;
        platform.launcher = self
            .launcher
            .into_iter()
            .flat_map(|Words(words)| words)
            .map(OsString::from)
            .collect();
        platform.user_memory_mib = pool.endpoints.saturating_mul(pool.memory_mib);
        set(
            &mut platform.user_memory_mib,
            self.user_memory_mib.map(NonZeroU32::get),
        );
        set(
            &mut platform.idle_timeout,
            self.idle_timeout.map(Seconds::get),
        );
        set(
            &mut platform.start_timeout,
            self.start_timeout.map(Seconds::get),
        );
        set(&mut platform.stop_grace, self.stop_grace.map(Seconds::get));
        set(
            &mut platform.max_response_bytes,
            self.max_response_bytes.map(NonZeroUsize::get),
        );
        platform.tap = self.tap;
        pool.keep_warm = platform.idle_timeout;
        let http = &mut config.http;
        set(&mut http.max_timeout, self.max_timeout.map(Seconds::get));
        http.default_timeout = http.default_timeout.min(http.max_timeout);
        set(&mut http.default_timeout, self.timeout.map(Seconds::get));
        set(
            &mut http.max_body_bytes,
            self.max_body_bytes.map(NonZeroUsize::get),
        );
        set(
            &mut http.max_connections,
            self.max_connections.map(NonZeroUsize::get),
        );
        set(&mut http.drain_grace, self.drain_grace.map(Seconds::get));
        if let Some(listen) = self.openwhisk_listen {
            let auth = self.openwhisk_auth;
            let named = self.openwhisk_image;
            config.openwhisk = Some(OpenWhiskSettings {
                listen,
                auth: auth.ok_or(ConfigError::Missing("openwhisk-auth"))?,
                image: named.unwrap_or_else(|| OpenWhiskSettings::IMAGE.to_owned()),
            });
        }
        config.traces = Export::new(self.traces, self.traces_ratio, self.traces_max_mib);
        config.check()?;
        Ok(config)
    }
}

fn set<T>(value: &mut T, setting: Option<T>) {
    if let Some(setting) = setting {
        *value = setting;
    }
}

impl Seconds {
    /// The length of time.
    pub fn get(self) -> Duration {
        self.0
    }

    fn new(seconds: f64) -> Result<Self, &'static str> {
        let duration = Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|duration| !duration.is_zero());
        // More than a century is a mistake, and times beyond it cannot be computed with.
        let duration =
            duration.filter(|duration| *duration <= Duration::from_secs(100 * 366 * 86_400));
        duration
            .map(Self)
            .ok_or("a positive number of seconds is needed")
    }
}

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text.parse().unwrap_or(f64::NAN))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl FromStr for Variable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("KEY=VALUE is needed")?;
        Self::new(key.to_owned(), value.to_owned())
    }
}

impl Variable {
    fn new(key: String, value: String) -> Result<Self, &'static str> {
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            return Err("a variable's name is neither empty nor has it a '='");
        }
        Ok(Self(key, value))
    }
}

fn table_of_variables<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Variable>, D::Error> {
    let table = BTreeMap::<String, String>::deserialize(deserializer)?;
    table
        .into_iter()
        .map(|(key, value)| Variable::new(key, value).map_err(de::Error::custom))
        .collect()
}

/// Words of a command, separated as a shell would: quotes and backslashes keep what they enclose together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl FromStr for Words {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        shlex::split(text)
            .map(Self)
            .ok_or("a quote or a backslash has no end")
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

fn words_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Words>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string of words or a list of words is needed")]
    enum Either {
        Text(String),
        List(Vec<String>),
    }
    match Either::deserialize(deserializer)? {
        Either::Text(text) => Ok(vec![text.parse().map_err(de::Error::custom)?]),
        Either::List(words) => Ok(vec![Words(words)]),
    }
}

#[cfg(test)]
mod tests;
