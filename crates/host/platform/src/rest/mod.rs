//! Apache OpenWhisk's REST interface before the embedded platform, so that OpenWhisk's own clients can use it.
//!
//! | request, below `/api/v1/namespaces` | answer |
//! |---|---|
//! | `GET .` | the one namespace |
//! | `GET /NS/limits` | what may run at once, and how large |
//! | `PUT /NS/actions/NAME[?overwrite=true]` | 200 the action; 400; 409 if it is there; 413 |
//! | `GET`, `DELETE /NS/actions/NAME`, `GET /NS/actions?limit&skip` | 200, 404 |
//! | `POST /NS/actions/NAME?blocking&result&timeout` | 200 the record or its result; 202 if nobody waits for it, or no longer; 502 if the action failed; 413; 429; 500; 503 |
//! | `GET /NS/activations?name&limit&skip&since&upto&docs`, `/NS/activations/ID[/result\|/logs]` | 200; 404 until it has ended |
//! | `GET /NS/packages`, `/triggers`, `/rules` | empty lists: there are none here |
//!
//! `NS` is the configured namespace or `_`. Every request needs Basic authentication, checked before anything else of it is read.
//! Errors are `{"error", "code"}`, where the code is the request's own, as in OpenWhisk.
//!
//! # What an action is here
//!
//! Kind `blackbox` with an image that the operator registered by name ([`RestConfig::images`]). A caller chooses among them and can
//! never name a program, an argument or a file of the host. Its instances get OpenWhisk's `/init` and `/run`; `conclude` makes of
//! their answers what OpenWhisk would.
//!
//! # Where it differs
//!
//! No packages, triggers, rules, sequences, web actions or code. An action is never given the caller's key, whatever its annotation
//! `provide-api-key` says, and reads `false` there. `logs` of a record is empty: an instance serves many activations, and what it
//! prints is its operator's (the platform's log directory), not any caller's. Nothing outlives the process: neither actions nor
//! records.
//!
//! # Bounds
//!
//! Everything that a client can make the server keep or do has one: connections, heads, bodies, the time for them, actions,
//! activations at once, records (a ring, by number and by bytes), time. An activation that was accepted goes on although its caller
//! leaves, as in OpenWhisk; it holds one of the places for activations at once.

mod actions;
mod answer;
mod conclude;
mod config;
mod entity;
mod failure;
mod invoke;
mod ledger;
mod query;
mod record;
mod routes;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub use self::config::RestConfig;
use self::entity::{Action, EntityName};
use self::ledger::Ledger;
use crate::http::Connections;
use crate::{LocalPlatform, PlatformError};

/// Time for answers that are being written when everything else is done.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// The server, before it listens. Several may stand before one platform; each has actions and records of its own.
pub struct RestServer {
    shared: Arc<Shared>,
}

/// What requests share.
struct Shared {
    config: RestConfig,
    platform: Arc<LocalPlatform>,
    actions: Mutex<BTreeMap<EntityName, Arc<Action>>>,
    ledger: Ledger,
    /// A permit for each activation that has not ended.
    room: Arc<Semaphore>,
    activations: TaskTracker,
}

impl RestServer {
    /// A server without actions.
    ///
    /// # Errors
    /// [`PlatformError::Setup`] if the configuration makes no sense.
    pub fn new(config: RestConfig, platform: Arc<LocalPlatform>) -> Result<Self, PlatformError> {
        config
            .check()
            .map_err(|problem| PlatformError::Setup { problem })?;
        let shared = Shared {
            ledger: Ledger::new(config.max_records, config.max_record_bytes),
            room: Arc::new(Semaphore::new(
                config.max_activations.min(Semaphore::MAX_PERMITS),
            )),
            actions: Mutex::default(),
            activations: TaskTracker::new(),
            config,
            platform,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Serves until `shutdown` is done. Activations in flight then have `grace` to end, and the actions are deleted. The platform
    /// stays up.
    pub async fn serve(
        self,
        listener: TcpListener,
        grace: Duration,
        shutdown: impl Future<Output = ()>,
    ) {
        let connections = Connections::new(&self.shared.config.bounds);
        let answering = self.shared.clone();
        let answer = move |_, request| routes::answer(answering.clone(), request);
        {
            let mut accepting = pin!(connections.accept(&listener, answer));
            tokio::select! {
                () = &mut accepting => {}
                () = shutdown => {}
            }
        }
        drop(listener);
        // Nobody gets in any more. Deleted actions take nothing new, and finish what they have begun.
        let actions = std::mem::take(&mut *self.shared.lock());
        self.shared.activations.close();
        if timeout(grace, self.shared.activations.wait())
            .await
            .is_err()
        {
            tracing::warn!(?grace, "activations in flight are given up");
        }
        for action in actions.into_values() {
            self.shared.undeploy(&action).await;
        }
        connections.close(CLOSE_GRACE).await;
    }
}

impl fmt::Debug for RestServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Records and parameters are nobody's to print.
        f.debug_struct("RestServer")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<EntityName, Arc<Action>>> {
        // A map is changed by one call each time: poison tells nothing.
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970, OpenWhisk's clock.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, millis)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
