//! A lease with its end, and with the points of the log that it is known to agree with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi_protocol::isolation::IsolationLevel;
use sesemi_protocol::limits::MAX_LEASE_SECONDS;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::Lease;
use tokio::time::Instant;

/// Points that are kept for one lease. A user has about as many as it has clients; one that changes them with each request
/// only makes its own requests wait.
const MAX_CONFIRMED: usize = 8;

/// A lease that this enclave holds. A request keeps the one that it began with.
#[derive(Debug)]
pub struct LiveLease {
    lease: Lease,
    asked: Instant,
    ends: Instant,
    /// Points that users have seen and that KeyService confirmed to be part of the log that this lease was decided on, the
    /// one confirmed last in front. A lower sequence alone proves nothing: it may be of a fork.
    confirmed: Vec<Point>,
    used: AtomicBool,
}

impl LiveLease {
    /// A lease that was asked for at `asked`, which is when its time begins: a slow or hostile network only shortens it.
    pub(super) fn new(lease: Lease, asked: Instant, confirmed: Vec<Point>) -> Self {
        let seconds = lease.seconds.min(MAX_LEASE_SECONDS);
        let duration = Duration::from_secs(u64::from(seconds));
        Self {
            lease,
            asked,
            ends: asked.checked_add(duration).unwrap_or(asked),
            confirmed,
            used: AtomicBool::new(false),
        }
    }

    /// What KeyService released.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How strictly requests under it must be kept apart from others.
    #[must_use]
    pub fn level(&self) -> IsolationLevel {
        self.lease.isolation.level
    }

    /// Whether the keys may not be used any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended_at(Instant::now())
    }

    /// Notes that an authentic request came under this lease, so that it is worth being renewed.
    pub fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether the log that this lease was decided on is known to contain the point that a user has seen.
    #[must_use]
    pub fn agrees_with(&self, seen: &Point) -> bool {
        *seen == Point::START || *seen == self.state() || self.confirmed.contains(seen)
    }

    pub(super) fn has_ended_at(&self, now: Instant) -> bool {
        self.ends <= now
    }

    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// The end of the log when it was decided on.
    pub(super) fn state(&self) -> Point {
        self.lease.state.point
    }

    /// When `thousandths` of its time are over.
    pub(super) fn after(&self, thousandths: u32) -> Instant {
        let whole = self.ends.duration_since(self.asked);
        let part = whole.saturating_mul(thousandths).checked_div(1000);
        self.asked
            .checked_add(part.unwrap_or(whole))
            .unwrap_or(self.ends)
    }

    /// What a lease agrees with that was decided on a continuation of this one's log.
    pub(super) fn confirmed(&self) -> &[Point] {
        &self.confirmed
    }
}

/// `first` before `others`, each once, and no more than are kept.
pub(super) fn confirmed(first: Point, others: &[Point]) -> Vec<Point> {
    let others = others.iter().filter(|point| **point != first).copied();
    // The start is part of every log.
    let first = (first != Point::START).then_some(first);
    first
        .into_iter()
        .chain(others)
        .take(MAX_CONFIRMED)
        .collect()
}
