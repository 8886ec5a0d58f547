//! The whole gateway in one call: over any platform, or with the embedded one.

use std::net::SocketAddr;
use std::sync::Arc;

use sesemi_platform::{LocalPlatform, Platform, PlatformError};
use tokio::net::TcpListener;

use crate::{Config, ConfigError, Gateway, HttpConfig, PoolConfig};

/// Why the gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration's values do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The platform did not take the endpoints.
    #[error(transparent)]
    Platform(#[from] PlatformError),
}

impl ServeError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Config(_) => {
                "correct the flag, the environment variable or the key in the file; see --help"
            }
            Self::Listen { .. } => "choose another address, or end what listens there",
            Self::Platform(error) => error.hint(),
        }
    }
}

/// Deploys a pool's endpoints on `platform` and serves HTTP on `listener` until `shutdown` is done and what was in flight
/// has ended. The platform itself stays up.
pub async fn serve<P: Platform>(
    pool: &PoolConfig,
    http: &HttpConfig,
    platform: Arc<P>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Gateway::deploy(pool, http, platform)
        .await?
        .serve(listener, shutdown)
        .await;
    Ok(())
}

/// [`serve`] with an embedded platform of its own: everything that a [`Config`] describes, and no process left when it
/// returns. `on_listening` is told the address once requests are welcome.
pub async fn serve_local(
    config: Config,
    on_listening: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    config.check()?;
    let address = config.listen;
    let failed = |cause| ServeError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let mut local = config.platform;
    // The gateway's slots bound what it asks of the platform; with a smaller queue there, a slot would not mean a turn.
    let most = config.pool.endpoints as usize * config.pool.slots as usize;
    local.queue_capacity = local.queue_capacity.max(most);
    let platform = Arc::new(LocalPlatform::new(local)?);
    let gateway = Gateway::deploy(&config.pool, &config.http, platform.clone()).await?;
    on_listening(bound);
    gateway.serve(listener, shutdown).await;
    platform.shutdown().await;
    Ok(())
}
