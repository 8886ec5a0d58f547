//! KeyService in memory, for tests: a log that grows, can be rolled back and forked, and decides who gets keys.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use sesemi_protocol::id::{AliasName, ModelTarget, VersionSelector};
use sesemi_protocol::isolation::Isolation;
use sesemi_protocol::receipt::{Point, StatePoint};
use sesemi_protocol::release::{Lease, ReleaseOutcome, ReleaseRequest};
use sesemi_protocol::{
    Digest, ModelName, ModelRef, ModelVersion, PrincipalId, Refusal, RefusalCode, SecretKey,
    ServiceId,
};
use tokio::time::Instant;

use crate::keys::KeySource;

pub(crate) const SERVICE: ServiceId = ServiceId([5; 32]);
/// How long the leases last, in seconds.
pub(crate) const LEASE: u32 = 60;

/// Waits for something that nobody tells, and not for ever. The clock of a test that stands still is left alone.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it does not come"
        );
        std::thread::sleep(Duration::from_micros(50));
        tokio::task::yield_now().await;
    }
}

pub(crate) fn model(version: u32) -> ModelRef {
    ModelRef::new(
        PrincipalId([2; 32]),
        ModelName::new("breast-cancer").unwrap(),
        ModelVersion::new(version).unwrap(),
    )
}

/// The model under an alias.
pub(crate) fn stable() -> ModelTarget {
    ModelTarget {
        model: model(1).model,
        version: VersionSelector::Alias(AliasName::new("stable").unwrap()),
    }
}

pub(crate) fn request_key(user: u8) -> SecretKey {
    SecretKey::from_bytes([user; 32])
}

/// Users with a first byte from 1 to 9 may use the model. Each call adds an entry to the log, as releases do.
pub(crate) struct Service {
    manifest: Digest,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The chain after each entry.
    log: Vec<Digest>,
    /// What entries that are added now hold: another fork, other entries.
    pub(crate) fork: u8,
    /// The version that the alias stands for.
    pub(crate) stable: u32,
    /// Users that are refused.
    pub(crate) revoked: HashSet<u8>,
    /// What every call is refused with as a whole.
    pub(crate) trouble: Option<RefusalCode>,
    /// How long an answer takes.
    pub(crate) delay: Duration,
    /// What leases demand.
    pub(crate) isolation: Isolation,
    /// All calls, and when they came.
    pub(crate) calls: Vec<(Instant, Vec<ReleaseRequest>)>,
}

impl Service {
    pub(crate) fn new(manifest: Digest) -> Self {
        let service = Self {
            manifest,
            state: Mutex::default(),
        };
        service.set().stable = 1;
        service.append();
        service
    }

    pub(crate) fn set(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds an entry; the end of the log then.
    pub(crate) fn append(&self) -> Point {
        self.set().append()
    }

    /// Cuts the log off after `entries`, and gives further entries another content.
    pub(crate) fn fork_after(&self, entries: usize) {
        let mut state = self.set();
        state.log.truncate(entries);
        state.fork += 1;
    }

    pub(crate) fn calls(&self) -> usize {
        self.set().calls.len()
    }

    /// How many leases were asked for in each call.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.set()
            .calls
            .iter()
            .map(|(_, asked)| asked.len())
            .collect()
    }
}

impl State {
    fn append(&mut self) -> Point {
        let before = self.end().chain;
        let entry = [&before.0[..], &[self.fork]].concat();
        self.log.push(Digest::of(&entry));
        self.end()
    }

    fn end(&self) -> Point {
        self.log.last().map_or(Point::START, |chain| Point {
            sequence: self.log.len() as u64,
            chain: *chain,
        })
    }

    fn contains(&self, point: Point) -> bool {
        let index = point.sequence.checked_sub(1);
        index.map_or(point == Point::START, |index| {
            self.log.get(index as usize) == Some(&point.chain)
        })
    }

    fn decide(&self, request: &ReleaseRequest, manifest: Digest) -> Result<Lease, RefusalCode> {
        let user = request.user.0[0];
        if !self.contains(request.seen) {
            return Err(RefusalCode::StaleState);
        }
        if !(1..10).contains(&user) || self.revoked.contains(&user) {
            return Err(RefusalCode::NotGranted);
        }
        let version = match &request.model.version {
            VersionSelector::Exact(version) => version.get(),
            VersionSelector::Alias(_) => self.stable,
        };
        Ok(Lease {
            model: model(version),
            model_key: SecretKey::from_bytes([100 + version as u8; 32]),
            manifest,
            request_key: request_key(user),
            seconds: LEASE,
            isolation: self.isolation,
            state: StatePoint {
                service: SERVICE,
                point: self.end(),
            },
        })
    }
}

impl KeySource for Service {
    fn release(
        &self,
        requests: Vec<ReleaseRequest>,
    ) -> BoxFuture<'static, Result<Vec<ReleaseOutcome>, Refusal>> {
        let mut state = self.set();
        state.calls.push((Instant::now(), requests.clone()));
        state.append();
        let result = match state.trouble {
            Some(code) => Err(code.into()),
            None => Ok(requests
                .iter()
                .map(|request| match state.decide(request, self.manifest) {
                    Ok(lease) => ReleaseOutcome::Lease(Box::new(lease)),
                    Err(code) => ReleaseOutcome::Refused(code.into()),
                })
                .collect()),
        };
        let delay = state.delay;
        Box::pin(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            result
        })
    }
}
