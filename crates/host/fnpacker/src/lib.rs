//! FnPacker: packs many models onto few function endpoints.
//!
//! A pool of endpoints (actions of a serverless platform) serves any model; a request goes to the endpoint where it costs
//! least, which is one that has its model loaded. FnPacker is an ordinary client of the platform and an untrusted party:
//! it sees ciphertext, an opaque model key, sizes and timing, and never decodes a body.
//!
//! - [`packing`]: which endpoint, who waits, what was learned; without I/O, so that a simulator can drive it as well;
//! - [`pool`]: that while it runs, with guards that give each slot back;
//! - [`gateway`]: HTTP in front of it;
//! - [`config`] and [`settings`]: what it is told, and where that may be written.
#![forbid(unsafe_code)]
// Host code counts slots and milliseconds; an overflow is a bug, and costs availability only.
#![allow(clippy::arithmetic_side_effects)]

pub mod config;
pub mod gateway;
mod metrics;
mod model;
pub mod packing;
pub mod pool;
mod serve;
pub mod settings;

pub use config::{Config, ConfigError, HttpConfig, OpenWhiskSettings, PoolConfig};
pub use gateway::Gateway;
pub use model::{InvalidModelKey, ModelKey};
pub use serve::{Listening, ServeError, serve, serve_local};
