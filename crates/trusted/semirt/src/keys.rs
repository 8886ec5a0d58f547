//! Leases: keys from KeyService, kept for as long as KeyService allowed and not a moment longer.
//!
//! The time counts from before the request was sent, so that a slow or hostile network only shortens it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use sesemi_attest::channel::ChannelError;
use sesemi_attest::session::KeyServiceSession;
use sesemi_protocol::envelope::Route;
use sesemi_protocol::release::{Lease, ReleaseRequest};
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{ModelRef, PrincipalId, Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::single_flight::{Ended, SingleFlight};

/// Leases kept at once. Beyond it the one that ends first is dropped: it is fetched again when needed.
const MAX_LEASES: usize = 10_000;
/// Releases under way at once. A request costs its sender nothing before its key is released, and its fetch goes on when the
/// sender leaves: without a bound, a flood of made-up users would pile up here.
const MAX_PENDING: usize = 256;
/// Longest wait for one release.
const RELEASE: Duration = Duration::from_secs(15);

/// Where leases come from.
pub trait KeySource: Send + Sync + 'static {
    /// Asks for a lease.
    fn release(&self, request: ReleaseRequest) -> BoxFuture<'static, Result<Lease, Refusal>>;
}

/// KeyService, over its attested channel.
#[derive(Debug, Clone)]
pub struct FromKeyService(pub Arc<KeyServiceSession>);

impl KeySource for FromKeyService {
    fn release(&self, request: ReleaseRequest) -> BoxFuture<'static, Result<Lease, Refusal>> {
        let session = self.0.clone();
        Box::pin(async move {
            let call = session.call(CallBody::Release(request), RELEASE);
            // The call's own limit begins with the call; this one includes waiting for the calls before it.
            let Ok(answered) = tokio::time::timeout(RELEASE, call).await else {
                return Err(RefusalCode::KeyServiceUnavailable.into());
            };
            match answered {
                Ok(ReplyBody::Lease(lease)) => Ok(*lease),
                Ok(ReplyBody::Refused(refusal)) => Err(refusal),
                Ok(_) => Err(RefusalCode::KeyServiceUnavailable.into()),
                Err(ChannelError::Refused(refusal)) => Err(refusal),
                Err(error) => {
                    tracing::warn!(%error, "no lease");
                    Err(RefusalCode::KeyServiceUnavailable.into())
                }
            }
        })
    }
}

impl From<Ended> for Refusal {
    fn from(_: Ended) -> Self {
        RefusalCode::Internal.into()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct LeaseId {
    user: PrincipalId,
    model: ModelRef,
    epoch: u32,
}

/// A lease and when it ends.
#[derive(Debug, Clone)]
struct Held {
    lease: Arc<Lease>,
    ends: Instant,
}

/// The leases that this enclave holds.
pub struct Keys {
    source: Arc<dyn KeySource>,
    held: Arc<Mutex<HashMap<LeaseId, Held>>>,
    flights: SingleFlight<(LeaseId, u64), Arc<Lease>, Refusal>,
    pending: Arc<Semaphore>,
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// No leases yet.
    #[must_use]
    pub fn new(source: Arc<dyn KeySource>) -> Self {
        Self {
            source,
            held: Arc::default(),
            flights: SingleFlight::default(),
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
        }
    }

    /// The lease for a request, if it is held and has not ended.
    #[must_use]
    pub fn held(&self, route: &Route) -> Option<Arc<Lease>> {
        let held = lock(&self.held);
        held.get(&id(route))
            .filter(|held| Instant::now() < held.ends)
            .map(|held| held.lease.clone())
    }

    /// Asks KeyService for the lease of a request. KeyService must have reached log position `at_least`.
    ///
    /// # Errors
    /// KeyService's [`Refusal`], [`RefusalCode::KeyServiceUnavailable`], or [`RefusalCode::Busy`] if too many are under way.
    pub async fn fetch(&self, route: &Route, at_least: u64) -> Result<Arc<Lease>, Refusal> {
        let id = id(route);
        let (source, held) = (self.source.clone(), self.held.clone());
        let pending = self.pending.clone();
        let fetch = {
            let id = id.clone();
            move || async move {
                let _place = pending.try_acquire().map_err(|_| RefusalCode::Busy)?;
                let asked = Instant::now();
                let request = ReleaseRequest {
                    model: id.model.clone(),
                    user: id.user,
                    epoch: id.epoch,
                    at_least,
                };
                let released = source.release(request).await;
                let mut held = lock(&held);
                match released {
                    Ok(lease) => {
                        let lease = Arc::new(lease);
                        let ends = asked.checked_add(lease.duration()).unwrap_or(asked);
                        if Instant::now() >= ends {
                            // It came so late that it has ended already.
                            return Err(RefusalCode::KeyServiceUnavailable.into());
                        }
                        make_room(&mut held);
                        held.insert(
                            id,
                            Held {
                                lease: lease.clone(),
                                ends,
                            },
                        );
                        Ok(lease)
                    }
                    Err(refusal) => {
                        // Whatever was held is void now: revoked, or from a state that is not the newest. Trouble on the
                        // way says nothing about that.
                        let trouble = matches!(
                            refusal.code,
                            RefusalCode::KeyServiceUnavailable
                                | RefusalCode::Busy
                                | RefusalCode::Internal
                        );
                        if !trouble {
                            held.remove(&id);
                        }
                        Err(refusal)
                    }
                }
            }
        };
        self.flights.join((id, at_least), fetch).await
    }

    /// Wipes leases that have ended. Called now and then, so that keys do not outlive their lease in memory.
    pub fn sweep(&self) {
        let now = Instant::now();
        lock(&self.held).retain(|_, held| now < held.ends);
    }
}

fn id(route: &Route) -> LeaseId {
    LeaseId {
        user: route.user,
        model: route.model.clone(),
        epoch: route.epoch,
    }
}

fn make_room(held: &mut HashMap<LeaseId, Held>) {
    if held.len() < MAX_LEASES {
        return;
    }
    let first = held
        .iter()
        .min_by_key(|(_, held)| held.ends)
        .map(|(id, _)| id.clone());
    if let Some(id) = first {
        held.remove(&id);
    }
}

/// No code that can panic runs under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
