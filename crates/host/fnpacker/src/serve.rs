//! The whole gateway in one call: over any platform, or with the embedded one.

use std::net::SocketAddr;
use std::sync::Arc;

use sesemi_platform::{CredentialsError, LocalPlatform, Platform, PlatformError, RestServer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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
    /// The key of OpenWhisk's REST interface cannot be used.
    #[error("openwhisk-auth: {0}")]
    Credentials(#[from] CredentialsError),
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
            Self::Credentials(_) => "name another file, or let this one be made",
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

/// Where requests are welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The gateway.
    pub gateway: SocketAddr,
    /// OpenWhisk's REST interface.
    pub openwhisk: Option<SocketAddr>,
}

/// [`serve`] with an embedded platform of its own: everything that a [`Config`] describes, and no process left when it
/// returns. `on_listening` is told the addresses once requests are welcome.
pub async fn serve_local(
    config: Config,
    on_listening: impl FnOnce(Listening),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    config.check()?;
    let (listener, gateway_at) = listen(config.listen).await?;
    let openwhisk = match &config.openwhisk {
        Some(settings) => Some((listen(settings.listen).await?, settings)),
        None => None,
    };
    let mut local = config.platform;
    // The gateway's slots bound what it asks of the platform; with a smaller queue there, a slot would not mean a turn.
    let most = config.pool.endpoints as usize * config.pool.slots as usize;
    local.queue_capacity = local.queue_capacity.max(most);
    let platform = Arc::new(LocalPlatform::new(local)?);
    let (openwhisk, openwhisk_at) = match openwhisk {
        Some(((listener, at), settings)) => {
            let interface = settings.interface(&config.pool, &config.http)?;
            let server = RestServer::new(interface, platform.clone())?;
            (Some((server, listener)), Some(at))
        }
        None => (None, None),
    };
    let gateway = Gateway::deploy(&config.pool, &config.http, platform.clone()).await?;
    on_listening(Listening {
        gateway: gateway_at,
        openwhisk: openwhisk_at,
    });
    let ending = CancellationToken::new();
    let until_told = async {
        shutdown.await;
        ending.cancel();
    };
    let beside = async {
        if let Some((server, listener)) = openwhisk {
            let grace = config.http.drain_grace;
            server.serve(listener, grace, ending.cancelled()).await;
        }
    };
    tokio::join!(gateway.serve(listener, until_told), beside);
    platform.shutdown().await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |cause| ServeError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
