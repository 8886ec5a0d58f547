//! The leases at hand, and which of them to renew. Pure: the time comes from outside.

use std::collections::HashMap;
use std::sync::Arc;

use sesemi_protocol::PrincipalId;
use sesemi_protocol::envelope::Route;
use sesemi_protocol::id::ModelTarget;
use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::limits::MAX_RELEASES;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::{ReleaseRequest, RequestKeyName};
use tokio::time::Instant;

use super::live::LiveLease;

/// Leases kept at once. Beyond it the one that ends first is dropped: it is fetched again when needed.
const MAX_LEASES: usize = 10_000;
/// From here on, in thousandths of its time, a lease goes along when another one is renewed.
const RIPE: u32 = 500;
/// Here it is renewed in any case, or up to [`EARLIER`] thousandths before.
const DUE: u32 = 667;
/// Enclaves that were started together do not all renew together.
const EARLIER: u32 = 100;
/// After trouble it is tried again when this part of the time that is left is over, in thousandths.
const AGAIN: u32 = 250;

/// What a lease is for: whatever of a route the keys depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LeaseId {
    user: PrincipalId,
    model: ModelTarget,
    key: RequestKeyName,
}

impl LeaseId {
    pub(super) fn of(route: &Route) -> Self {
        Self {
            user: route.user,
            model: route.model.clone(),
            key: route.key,
        }
    }

    /// Asks for this lease from a log that contains `seen`.
    pub(super) fn request(&self, seen: Point) -> ReleaseRequest {
        ReleaseRequest {
            model: self.model.clone(),
            user: self.user,
            key: self.key,
            seen,
        }
    }
}

struct Entry {
    lease: Arc<LiveLease>,
    ripe: Instant,
    due: Instant,
}

/// One lease to renew.
pub(super) type Renewal = (LeaseId, Arc<LiveLease>);

/// All leases.
#[derive(Default)]
pub(super) struct Table {
    leases: HashMap<LeaseId, Entry>,
    /// How strictly requests had to be kept apart that are not shared: known before their lease is there. No secret, so it
    /// outlives the leases.
    levels: HashMap<LeaseId, IsolationLevel>,
    /// How often all leases were dropped.
    generation: u64,
}

impl Table {
    /// How strictly a request must be kept apart, as far as it is known.
    pub(super) fn level(&self, id: &LeaseId) -> IsolationLevel {
        self.levels.get(id).copied().unwrap_or_default()
    }

    /// Notes how strictly a request must be kept apart.
    pub(super) fn note(&mut self, id: &LeaseId, level: IsolationLevel) {
        if level <= IsolationLevel::Shared {
            self.levels.remove(id);
            return;
        }
        if self.levels.len() >= MAX_LEASES && !self.levels.contains_key(id) {
            // It is found out again at the cost of a release.
            if let Some(other) = self.levels.keys().next().cloned() {
                self.levels.remove(&other);
            }
        }
        self.levels.insert(id.clone(), level);
    }

    /// Drops all leases.
    pub(super) fn clear(&mut self) {
        self.leases.clear();
        self.generation = self.generation.wrapping_add(1);
    }

    /// Changes whenever all leases are dropped: a lease that was asked for before that must not be kept.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The lease, if it is held and has not ended.
    pub(super) fn get(&self, id: &LeaseId, now: Instant) -> Option<Arc<LiveLease>> {
        let entry = self.leases.get(id)?;
        (!entry.lease.has_ended_at(now)).then(|| entry.lease.clone())
    }

    /// Keeps a lease in place of the one before. `jitter` decides how much earlier than necessary it is renewed.
    pub(super) fn insert(&mut self, id: LeaseId, lease: Arc<LiveLease>, jitter: u8) {
        if !self.leases.contains_key(&id) {
            self.make_room();
        }
        let earlier = EARLIER.saturating_mul(u32::from(jitter)) / 256;
        let entry = Entry {
            ripe: lease.after(RIPE),
            due: lease.after(DUE.saturating_sub(earlier)),
            lease,
        };
        self.leases.insert(id, entry);
    }

    /// Keeps a renewed lease, unless the one that it was renewed from has been replaced or dropped in the meantime.
    pub(super) fn replace(&mut self, (id, before): Renewal, lease: Arc<LiveLease>, jitter: u8) {
        if self.holds(&id, &before) {
            self.insert(id, lease, jitter);
        }
    }

    /// Drops whatever lease is held.
    pub(super) fn remove(&mut self, id: &LeaseId) {
        self.leases.remove(id);
    }

    /// Drops the lease, unless it has been replaced in the meantime.
    pub(super) fn remove_if(&mut self, (id, before): &Renewal) {
        if self.holds(id, before) {
            self.leases.remove(id);
        }
    }

    fn holds(&self, id: &LeaseId, lease: &Arc<LiveLease>) -> bool {
        self.leases
            .get(id)
            .is_some_and(|entry| Arc::ptr_eq(&entry.lease, lease))
    }

    /// Drops leases that have ended.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.leases
            .retain(|_, entry| !entry.lease.has_ended_at(now));
    }

    /// The leases to renew in one call, those that end first in front; none if none is due. A lease that nobody used since
    /// it was released is never due. Until their outcome is known, they are not handed out again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Renewal> {
        let wanted = |entry: &&mut Entry| {
            entry.ripe <= now && entry.lease.was_used() && !entry.lease.has_ended_at(now)
        };
        if !self.leases.values_mut().any(|e| wanted(&e) && e.due <= now) {
            return Vec::new();
        }
        let mut ripe: Vec<_> = self
            .leases
            .iter_mut()
            .filter(|(_, entry)| wanted(entry))
            .collect();
        ripe.sort_by_key(|(_, entry)| entry.lease.ends());
        ripe.truncate(MAX_RELEASES);
        ripe.into_iter()
            .map(|(id, entry)| {
                entry.ripe = entry.lease.ends();
                entry.due = entry.lease.ends();
                (id.clone(), entry.lease.clone())
            })
            .collect()
    }

    /// A renewal met trouble: the lease stays as it is, and is due again in a while.
    pub(super) fn try_again(&mut self, (id, lease): &Renewal, now: Instant) {
        let left = lease.ends().saturating_duration_since(now);
        let pause = left.saturating_mul(AGAIN).checked_div(1000);
        let Some(again) = pause.and_then(|pause| now.checked_add(pause)) else {
            return;
        };
        if self.holds(id, lease)
            && let Some(entry) = self.leases.get_mut(id)
        {
            entry.ripe = again;
            entry.due = again;
        }
    }

    /// How many leases are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    fn make_room(&mut self) {
        if self.leases.len() < MAX_LEASES {
            return;
        }
        let first = self
            .leases
            .iter()
            .min_by_key(|(_, entry)| entry.lease.ends())
            .map(|(id, _)| id.clone());
        if let Some(id) = first {
            self.leases.remove(&id);
        }
    }
}
