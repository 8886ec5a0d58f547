//! What FnPacker is told once, at its start, as plain checked values. Where they come from is of no interest here: see
//! [`settings`](crate::settings) for flags, environment and file, or fill the structs in for use in a process.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::packing::Rules;
use crate::packing::ledger::Capacity;
use crate::packing::policy::{Policy, Prices};
use crate::packing::queue;
use sesemi_platform::http::Bounds;
use sesemi_platform::{
    ActionName, ActionSpec, Credentials, CredentialsError, Image, LocalConfig, Program, RestConfig,
};
use sesemi_traces::Export;

/// Memory of an instance that is not for models, in MiB.
const PROGRAM_MIB: u32 = 64;

/// Everything that the embedded platform and the gateway before it need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the gateway listens; port 0 picks one.
    pub listen: SocketAddr,
    /// The endpoints.
    pub pool: PoolConfig,
    /// The HTTP side.
    pub http: HttpConfig,
    /// The platform that runs the endpoints.
    pub platform: LocalConfig,
    /// OpenWhisk's REST interface beside the gateway, before the same platform, if there is to be one.
    pub openwhisk: Option<OpenWhiskSettings>,
    /// Where the program's traces go, if anywhere; a gateway within another program leaves that to it.
    pub traces: Option<Export>,
}

/// OpenWhisk's REST interface, for OpenWhisk's own clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWhiskSettings {
    /// Where it listens; port 0 picks one.
    pub listen: SocketAddr,
    /// File with the `UUID:KEY` that clients must know; made if it is not there.
    pub auth: PathBuf,
    /// The name by which they call the pool's image.
    pub image: String,
}

impl OpenWhiskSettings {
    /// What the pool's image is called unless somebody says otherwise.
    pub const IMAGE: &'static str = "semirt";

    /// Everything that the interface is told: actions run the pool's image and nothing else, and each may have the memory, the time and
    /// the concurrency that an endpoint of the pool has.
    pub(crate) fn interface(
        &self,
        pool: &PoolConfig,
        http: &HttpConfig,
    ) -> Result<RestConfig, CredentialsError> {
        let images = [(self.image.clone(), pool.image.clone())].into();
        let defaults = RestConfig::new(Credentials::read_or_create(&self.auth)?, images);
        Ok(RestConfig {
            max_memory_mib: defaults.max_memory_mib.max(pool.memory_mib),
            max_timeout: defaults.max_timeout.min(http.max_timeout),
            max_concurrency: defaults.max_concurrency.max(pool.slots),
            bounds: Bounds {
                max_connections: defaults.bounds.max_connections,
                ..http.bounds()
            },
            ..defaults
        })
    }
}

/// The endpoints of a pool and the queue before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Endpoints are actions named `NAME-0`, `NAME-1`, ...
    pub name: String,
    /// How many endpoints; at least 1.
    pub endpoints: u32,
    /// Requests that each endpoint serves at once; at least 1.
    pub slots: u32,
    /// Memory of one instance, in MiB; at least 1.
    pub memory_mib: u32,
    /// What the endpoints run.
    pub image: Program,
    /// How requests are placed.
    pub policy: Policy,
    /// What the policy `cost` weighs.
    pub prices: Prices,
    /// Requests that may wait for a slot.
    pub queue_capacity: usize,
    /// Requests of one caller that may wait for a slot.
    pub queue_per_user: usize,
    /// How long an idle endpoint is taken to keep its model: the platform's idle timeout.
    pub keep_warm: Duration,
}

/// The HTTP side of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Time for a request that does not say how long it can wait.
    pub default_timeout: Duration,
    /// The most that a request may ask for; also the longest run inside an instance.
    pub max_timeout: Duration,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Largest request head, in bytes; at least 8192.
    pub max_head_bytes: usize,
    /// Connections served at once; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Time for a request's head, and for the next request on a kept connection.
    pub head_timeout: Duration,
    /// A client that takes nothing of its response for so long is cut off.
    pub stall_timeout: Duration,
    /// Time for requests in flight after a shutdown was asked for.
    pub drain_grace: Duration,
}

/// Values that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value is needed and not there.
    #[error("{0} is missing: give the flag --{0}, the environment variable or the key in the file")]
    Missing(&'static str),
    /// A count is zero or beyond its bound.
    #[error("{name} must be {from} to {to}")]
    OutOfRange {
        /// The flag.
        name: &'static str,
        /// The least.
        from: u64,
        /// The most.
        to: u64,
    },
    /// One instance does not fit into the platform.
    #[error(
        "memory-mib ({memory_mib}) is more than user-memory-mib ({user_memory_mib}): no instance could start"
    )]
    MemoryBudget {
        /// Memory of one instance.
        memory_mib: u32,
        /// Memory of all.
        user_memory_mib: u32,
    },
    /// The default timeout is beyond the maximum.
    #[error("timeout is more than max-timeout")]
    Timeouts,
    /// The pool's name is no part of an action's name.
    #[error(
        "pool {0:?} is no good name: it and a number must be at most 64 characters of a-z, 0-9 and '-'"
    )]
    PoolName(String),
}

impl Config {
    /// One pool of two endpoints on the embedded platform, which has room for both; everything else as documented in the
    /// command line's help.
    pub fn new(image: PathBuf, log_dir: PathBuf) -> Self {
        let image = Program {
            binary: image,
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        let (endpoints, memory_mib) = (2, 512);
        let mut platform = LocalConfig::new(log_dir);
        platform.user_memory_mib = endpoints * memory_mib;
        let pool = PoolConfig {
            name: "pool".to_owned(),
            endpoints,
            slots: 4,
            memory_mib,
            image,
            policy: Policy::default(),
            prices: Prices::default(),
            queue_capacity: 256,
            queue_per_user: 128,
            keep_warm: platform.idle_timeout,
        };
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            pool,
            http: HttpConfig::default(),
            platform,
            openwhisk: None,
            traces: None,
        }
    }

    /// Checks that the values go together.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.pool.check()?;
        self.http.check()?;
        let (memory_mib, user_memory_mib) = (self.pool.memory_mib, self.platform.user_memory_mib);
        if memory_mib > user_memory_mib {
            return Err(ConfigError::MemoryBudget {
                memory_mib,
                user_memory_mib,
            });
        }
        Ok(())
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            default_timeout: Duration::from_secs(60),
            max_timeout: Duration::from_secs(300),
            max_body_bytes: 16 << 20,
            max_head_bytes: 64 << 10,
            max_connections: 1024,
            head_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(30),
            drain_grace: Duration::from_secs(30),
        }
    }
}

impl HttpConfig {
    /// What bounds connections.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            max_connections: self.max_connections,
            max_head_bytes: self.max_head_bytes,
            head_timeout: self.head_timeout,
            stall_timeout: self.stall_timeout,
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        in_range("max-connections", self.max_connections as u64, 1, 1 << 20)?;
        // The HTTP library does not go below.
        in_range("max-head-bytes", self.max_head_bytes as u64, 8192, 1 << 20)?;
        if self.default_timeout > self.max_timeout {
            return Err(ConfigError::Timeouts);
        }
        Ok(())
    }
}

impl PoolConfig {
    fn check(&self) -> Result<(), ConfigError> {
        in_range("endpoints", self.endpoints.into(), 1, 10_000)?;
        in_range("slots", self.slots.into(), 1, 10_000)?;
        in_range("memory-mib", self.memory_mib.into(), 1, u32::MAX.into())?;
        self.actions().map(drop)
    }

    /// The names of the endpoints' actions.
    pub fn actions(&self) -> Result<Vec<ActionName>, ConfigError> {
        let action = |n| ActionName::new(&format!("{}-{n}", self.name));
        let actions: Result<_, _> = (0..self.endpoints).map(action).collect();
        actions.map_err(|_| ConfigError::PoolName(self.name.clone()))
    }

    /// How the pool packs.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules {
            policy: self.policy,
            prices: self.prices,
            queue: queue::Bounds {
                all: self.queue_capacity,
                each: self.queue_per_user,
            },
            keep_warm: self.keep_warm,
        }
    }

    /// What one endpoint offers: its models have its memory but for what the program itself takes.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let models = (self.memory_mib / 2).max(self.memory_mib.saturating_sub(PROGRAM_MIB));
        Capacity {
            slots: self.slots,
            room: u64::from(models) << 20,
            memory: u64::from(self.memory_mib) << 20,
        }
    }

    /// What is deployed as one of the endpoints; `timeout` bounds one run.
    pub fn action(&self, name: ActionName, timeout: Duration) -> ActionSpec {
        let (memory_mib, concurrency) = (self.memory_mib, self.slots);
        ActionSpec {
            name,
            image: Image::Program(self.image.clone()),
            memory_mib,
            concurrency,
            timeout,
            entity: None,
        }
    }
}

fn in_range(name: &'static str, value: u64, from: u64, to: u64) -> Result<(), ConfigError> {
    if (from..=to).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { name, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::new("instance".into(), "logs".into());
        change(&mut config);
        config
    }

    #[test]
    fn the_defaults_go_together() {
        assert_eq!(config(|_| {}).check(), Ok(()));
    }

    #[test]
    fn values_that_could_not_work_are_refused_by_name() {
        let problem = |change: fn(&mut Config)| config(change).check().unwrap_err().to_string();
        assert_eq!(
            problem(|c| c.pool.endpoints = 0),
            "endpoints must be 1 to 10000"
        );
        assert_eq!(problem(|c| c.pool.slots = 0), "slots must be 1 to 10000");
        assert_eq!(
            problem(|c| c.http.max_connections = 0),
            "max-connections must be 1 to 1048576"
        );
        assert!(problem(|c| c.pool.memory_mib = 4096).contains("user-memory-mib (1024)"));
        assert!(problem(|c| c.pool.name = "Pool".to_owned()).contains("a-z"));
        assert!(
            problem(|c| c.http.default_timeout = Duration::from_secs(301)).contains("max-timeout")
        );
    }

    #[test]
    fn endpoints_are_numbered_actions() {
        let actions = config(|c| c.pool.name = "fn".to_owned())
            .pool
            .actions()
            .unwrap();
        assert_eq!(
            actions.iter().map(ActionName::as_str).collect::<Vec<_>>(),
            ["fn-0", "fn-1"]
        );
    }
}
