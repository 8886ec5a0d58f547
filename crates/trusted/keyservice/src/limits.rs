//! How often each caller may ask: token buckets, one for each key, in a table of bounded size. Pure: the time is passed in.
//!
//! A bucket holds up to `burst` tokens and gets one more every `refill`; what is asked takes one. Instead of counting tokens
//! a bucket is kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). A full bucket is
//! then the same as one that was never used, so it can be dropped and nobody gains by it.
//!
//! When the table is full, the bucket that has been full for longest makes room for a new key. If none is full, all that are
//! in the table are in use: they keep their buckets, and all new keys share one bucket until there is room. So a flood of new
//! addresses locks out new addresses, but nobody who was being served.

use core::fmt;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

/// Longest time between two tokens that is accepted.
const MAX_REFILL: Duration = Duration::from_secs(24 * 3600);

/// Asked too often; nothing was taken from the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; ask again in {} ms", self.after.as_nanos().div_ceil(1_000_000))]
pub struct RetryAfter {
    /// How long until there is a token again, if nobody takes it first.
    pub after: Duration,
}

/// A rate that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the time between two tokens must be above 0 and at most a day")]
pub struct RateError;

/// How often one key may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    refill: Duration,
    /// How far ahead of the time a bucket may be and still have a token.
    slack: Duration,
}

impl Rate {
    /// `burst` at once, and then one every `refill`.
    ///
    /// # Errors
    /// [`RateError`] unless `refill` is above 0 and at most a day.
    pub fn new(burst: NonZeroU32, refill: Duration) -> Result<Self, RateError> {
        if refill.is_zero() || refill > MAX_REFILL {
            return Err(RateError);
        }
        let slack = refill.saturating_mul(burst.get().saturating_sub(1));
        Ok(Self { refill, slack })
    }

    /// Takes a token from a bucket that will be full at `full_at`; when it will be full then.
    fn take(self, full_at: Instant, now: Instant) -> Result<Instant, RetryAfter> {
        let ahead = full_at.saturating_duration_since(now);
        match ahead.checked_sub(self.slack) {
            Some(after) if !after.is_zero() => Err(RetryAfter { after }),
            // A time that the platform cannot represent is refused like one that has not come.
            _ => full_at
                .max(now)
                .checked_add(self.refill)
                .ok_or(RetryAfter { after: self.refill }),
        }
    }
}

/// Token buckets by key. Put it behind a lock: a check takes time logarithmic in the number of keys and never waits.
///
/// Within any time `t` a key gets at most `burst + t / refill` of its own rate. Besides that all keys together get at most as
/// much of the shared rate, and only while the table is full of keys in use.
#[derive(Clone)]
pub struct Limits<K> {
    rate: Rate,
    shared_rate: Rate,
    capacity: usize,
    /// The latest time that was passed in.
    latest: Option<Instant>,
    /// When the bucket that new keys share will be full; `None` if it always was.
    shared: Option<Instant>,
    buckets: BTreeMap<K, Instant>,
    /// The same by time, so that the one that has been full for longest comes first.
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Clone> Limits<K> {
    /// Buckets of `rate` for up to `capacity` keys; new keys that find no room share one bucket of `shared_rate`.
    #[must_use]
    pub fn new(rate: Rate, shared_rate: Rate, capacity: NonZeroUsize) -> Self {
        Self {
            rate,
            shared_rate,
            capacity: capacity.get(),
            latest: None,
            shared: None,
            buckets: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Takes a token for `key`. A time before the latest that was passed in counts as that one.
    ///
    /// # Errors
    /// [`RetryAfter`] if there is none.
    pub fn check(&mut self, key: &K, now: Instant) -> Result<(), RetryAfter> {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        let known = self.buckets.get(key).copied();
        if known.is_none() && !self.has_room(now) {
            let full_at = self.shared.unwrap_or(now);
            self.shared = Some(self.shared_rate.take(full_at, now)?);
            return Ok(());
        }
        let full_at = self.rate.take(known.unwrap_or(now), now)?;
        if let Some(known) = known {
            self.by_time.remove(&(known, key.clone()));
        }
        self.by_time.insert((full_at, key.clone()));
        self.buckets.insert(key.clone(), full_at);
        Ok(())
    }

    /// How many keys have a bucket: never more than the capacity.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no key has a bucket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether one more key fits, if need be instead of one whose bucket is full.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.buckets.len() < self.capacity {
            return true;
        }
        let full = self.by_time.first().is_some_and(|(at, _)| *at <= now);
        if full && let Some((_, key)) = self.by_time.pop_first() {
            self.buckets.remove(&key);
        }
        full
    }
}

impl<K> fmt::Debug for Limits<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who asked is nobody's business.
        f.debug_struct("Limits")
            .field("rate", &self.rate)
            .field("keys", &self.buckets.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// What counts as one caller among addresses: an IPv4 address, or the /64 of an IPv6 address, because whoever has one address
/// of a /64 usually has them all. An IPv4 address that is written as an IPv6 one is the IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let prefix = v6.to_bits() & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from_bits(prefix))
            }
            v4 => v4,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = if self.0.is_ipv4() { 32 } else { 64 };
        write!(f, "{}/{length}", self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({self})")
    }
}
