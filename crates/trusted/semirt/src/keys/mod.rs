//! Leases: keys from KeyService, kept for as long as KeyService allowed and not a moment longer.
//!
//! - *Time* counts from before a lease was asked for. A lease that is in use is renewed in the background before it ends
//!   ([`Keys::tend`]), so that no request waits for that; each renewed lease has a time of its own. One that nobody uses ends
//!   and is wiped. What KeyService refuses to renew is dropped; trouble on the way leaves a lease its time and no more.
//! - *Meaning*: a lease is for what a request asks for, which may be an alias, and says which version that is. A request
//!   goes on with the lease, and so with the version, that it began with.
//! - *Isolation*: a lease that says that its requests are served one by one is handed out and not kept, and all are dropped
//!   when the enclave is cleared for another user.
//! - *Points*: a user's request says which point of KeyService's log the user has seen. A lease serves it only if it is known
//!   to come from a log that contains this point; otherwise KeyService is asked.

mod live;
mod source;
mod table;

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::entropy::{Entropy, random};
use sesemi_protocol::envelope::Route;
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::Lease;
use sesemi_protocol::{Refusal, RefusalCode};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub use live::LiveLease;
pub use source::{FromKeyService, KeySource};

use crate::single_flight::{Ended, Keep, SingleFlight};
use crate::sync::{Mutex, lock};
use live::confirmed;
use source::{call, is_trouble};
use table::{LeaseId, Renewal, Table};

/// Releases under way at once. A request costs its sender nothing before its key is released, and its fetch goes on when the
/// sender leaves: without a bound, a flood of made-up users would pile up here. One lease is asked for once at a time,
/// however many points its user claims to have seen, so one user cannot take these places from all others.
const MAX_PENDING: usize = 256;
/// How often leases are looked through: ended ones are wiped at most this much later, and renewals begin at most so much
/// later than they are due.
const TICK: Duration = Duration::from_millis(500);

impl From<Ended> for Refusal {
    fn from(_: Ended) -> Self {
        RefusalCode::Internal.into()
    }
}

/// Under which a lease may be kept that was just asked for.
struct Terms {
    /// What those inside are kept apart by.
    level: IsolationLevel,
    /// The table's when it was asked for.
    generation: u64,
}

/// What KeyService said to somebody who had seen this point.
#[derive(Debug, Clone)]
struct Landed {
    seen: Point,
    outcome: Result<Arc<LiveLease>, Refusal>,
}

/// The leases that this enclave holds.
pub struct Keys {
    shared: Arc<Shared>,
    flights: SingleFlight<LeaseId, Landed, Refusal>,
}

struct Shared {
    source: Arc<dyn KeySource>,
    entropy: Arc<dyn Entropy>,
    table: Mutex<Table>,
    pending: Semaphore,
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// No leases yet. `entropy` spreads the renewals of enclaves that were started together.
    #[must_use]
    pub fn new(source: Arc<dyn KeySource>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            shared: Arc::new(Shared {
                source,
                entropy,
                table: Mutex::default(),
                pending: Semaphore::new(MAX_PENDING),
            }),
            flights: SingleFlight::default(),
        }
    }

    /// The lease for a request, if it is held and has not ended.
    #[must_use]
    pub fn held(&self, route: &Route) -> Option<Arc<LiveLease>> {
        lock(&self.shared.table).get(&LeaseId::of(route), Instant::now())
    }

    /// How strictly a request must be kept apart from others, as far as it is known: [`IsolationLevel::Shared`] until the
    /// first lease for such a request has come.
    #[must_use]
    pub fn level(&self, route: &Route) -> IsolationLevel {
        lock(&self.shared.table).level(&LeaseId::of(route))
    }

    /// Drops all leases, also those that are just being asked for.
    pub fn forget_all(&self) {
        lock(&self.shared.table).clear();
    }

    /// The lease for a request whose user has seen the point `seen`, from KeyService unless one that agrees is held. It is kept
    /// unless it demands more than `level`, by which those inside are kept apart now. `keep` is dropped when KeyService's answer has
    /// been dealt with, whether anybody waits for it or not.
    ///
    /// # Errors
    /// KeyService's [`Refusal`], [`RefusalCode::KeyServiceUnavailable`], or [`RefusalCode::Busy`] if too many are under way.
    pub async fn fetch(
        &self,
        route: &Route,
        seen: Point,
        level: IsolationLevel,
        keep: Keep,
    ) -> Result<Arc<LiveLease>, Refusal> {
        let id = LeaseId::of(route);
        loop {
            let start = || {
                let (shared, id, keep) = (self.shared.clone(), id.clone(), keep.clone());
                // Now, and not when its task begins: all may have been forgotten by then.
                let terms = Terms {
                    level,
                    generation: lock(&shared.table).generation(),
                };
                async move {
                    let outcome = shared.fetch(id, seen, terms).await;
                    drop(keep);
                    Ok(Landed { seen, outcome })
                }
            };
            let landed = self.flights.join(id.clone(), start).await?;
            match landed.outcome {
                outcome if landed.seen == seen => return outcome,
                Ok(lease) if lease.agrees_with(&seen) => return Ok(lease),
                Err(refusal) if refusal.code != RefusalCode::StaleState => return Err(refusal),
                // It went for another point, which says nothing about this one.
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Renews leases that are in use before they end, and wipes those that have ended. Runs until it is dropped.
    pub async fn tend(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.renew_due().await;
        }
    }

    /// Wipes leases that have ended, and renews those that are due.
    pub async fn renew_due(&self) {
        // One call at a time: a request that needs a new lease waits for no more than one of these.
        loop {
            let due = {
                let (mut table, now) = (lock(&self.shared.table), Instant::now());
                table.sweep(now);
                table.due(now)
            };
            if due.is_empty() {
                return;
            }
            self.shared.renew(due).await;
        }
    }
}

impl Shared {
    /// One lease, for a request that waits for it.
    async fn fetch(
        &self,
        id: LeaseId,
        seen: Point,
        terms: Terms,
    ) -> Result<Arc<LiveLease>, Refusal> {
        let asked = Instant::now();
        let before = lock(&self.table).get(&id, asked);
        if let Some(held) = before.as_ref().filter(|held| held.agrees_with(&seen)) {
            return Ok(held.clone());
        }
        let _place = self.pending.try_acquire().map_err(|_| RefusalCode::Busy)?;
        // If the log still contains the state of the lease before, the new lease also agrees with whatever that one did.
        let states = before.iter().map(|before| before.state());
        let requests = core::iter::once(seen).chain(states);
        let requests = requests.map(|seen| id.request(seen)).collect();
        let mut outcomes = call(&*self.source, requests).await.into_iter();
        let released = outcomes
            .next()
            .unwrap_or_else(|| Err(RefusalCode::Internal.into()));
        let lease = match released {
            Ok(lease) => lease,
            Err(refusal) => {
                if !is_trouble(refusal.code) {
                    lock(&self.table).remove(&id);
                }
                return Err(refusal);
            }
        };
        let others = match (&before, outcomes.next()) {
            (Some(before), Some(Ok(_))) if continues(&lease, before) => before.confirmed(),
            _ => &[],
        };
        let lease = LiveLease::new(lease, asked, confirmed(seen, others));
        self.keep(lease, |table, lease, jitter| {
            table.note(&id, lease.level());
            // One that is for a single request is kept by that alone, and one that must be kept apart not among others.
            if lease.level() < IsolationLevel::Sequential
                && lease.level() <= terms.level
                && table.generation() == terms.generation
            {
                table.insert(id, lease, jitter);
            }
        })
        .ok_or_else(|| RefusalCode::KeyServiceUnavailable.into())
    }

    /// Many leases in one call, for nobody who waits.
    async fn renew(&self, due: Vec<Renewal>) {
        let asked = Instant::now();
        // A service that was rolled back or forked since must not renew a lease.
        let requests = due.iter().map(|(id, before)| id.request(before.state()));
        let outcomes = call(&*self.source, requests.collect()).await;
        for (renewal, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Ok(lease) => {
                    // KeyService has just confirmed that this log continues the one before.
                    let lease = LiveLease::new(lease, asked, renewal.1.confirmed().to_vec());
                    self.keep(lease, |table, lease, jitter| {
                        table.note(&renewal.0, lease.level());
                        if lease.level() <= renewal.1.level() {
                            table.replace(renewal, lease, jitter);
                        } else {
                            table.remove_if(&renewal);
                        }
                    });
                }
                Err(refusal) if is_trouble(refusal.code) => {
                    lock(&self.table).try_again(&renewal, Instant::now());
                }
                Err(_) => lock(&self.table).remove_if(&renewal),
            }
        }
    }

    /// Puts a lease into the table; `None` if it came so late that it has ended already.
    fn keep(
        &self,
        lease: LiveLease,
        put: impl FnOnce(&mut Table, Arc<LiveLease>, u8),
    ) -> Option<Arc<LiveLease>> {
        // Without randomness it is renewed a little later than it could be, and that is all.
        let [jitter] = random(&*self.entropy).unwrap_or_default();
        let lease = Arc::new(lease);
        let mut table = lock(&self.table);
        if lease.has_ended() {
            return None;
        }
        put(&mut table, lease.clone(), jitter);
        Some(lease)
    }
}

/// Whether a lease was decided on no earlier in the log than the one before, given that the log contains that one's state.
fn continues(lease: &Lease, before: &LiveLease) -> bool {
    before.state().sequence <= lease.state.point.sequence
}

#[cfg(test)]
mod tests;
