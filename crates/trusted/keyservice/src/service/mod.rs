//! Calls in, replies out. Releases and questions read the state and go at once; commands are authenticated where they come in
//! and then go through one thread that owns the log, many in one durable write.
//!
//! - [`commands`]: from signed bytes to a receipt; [`writer`]: the thread that owns the log;
//!   [`custodians`]: naming them, which seals it anew;
//! - [`releases`]: keys for enclaves, and what is recorded of it; [`questions`]: what principals ask; [`pages`]: turns at
//!   reading the log;
//! - [`handover`]: to a successor that custodians approved.
//!
//! [`crate::start`] makes a service.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use sesemi_attest::Clock;
use sesemi_attest::channel::Peer;
use sesemi_attest::freshness::FreshnessFloor;
use sesemi_protocol::receipt::{Head, Point, StatePoint};
use sesemi_protocol::wire::{CallBody, ReplyBody, ServiceStatus, UpgradeStatus};
use sesemi_protocol::{
    Entropy, PrincipalId, Refusal, RefusalCode, SecretKey, ServiceId, SigningIdentity, command,
    query,
};
use tokio::sync::{mpsc, watch};

use crate::limits::{Limits, Network};
use crate::log::{Agreement, LogError, Reader};
use crate::metrics::Metrics;
use crate::quota::Quota;
use crate::state::State;

pub mod commands;
pub mod custodians;
pub mod handover;
pub mod pages;
pub mod questions;
pub mod releases;
pub mod writer;

use pages::{Lane, Pages};
use releases::Recorder;
use writer::Work;

/// How far the clock may be behind the log before somebody is told, in seconds.
const CLOCK_BEHIND: u64 = 60;

/// What the service needs from outside.
#[derive(Clone)]
pub struct Resources {
    /// The least fresh evidence that is accepted; kept with the state.
    pub floor: Arc<FreshnessFloor>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What the operator may count.
    pub metrics: Arc<Metrics>,
    /// How long a lease is unless the model's owner says otherwise, in seconds.
    pub lease_seconds: u32,
    /// How often each principal may command or ask.
    pub limits: Limits<PrincipalId>,
    /// Entries after which a new snapshot is made.
    pub snapshot_every: NonZeroU64,
}

impl core::fmt::Debug for Resources {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Resources(..)")
    }
}

/// Who says what it has seen of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Witness {
    /// An enclave, or a registered principal that has signed it.
    Known,
    /// Somebody whom nobody vouches for, and who may have made it up: it raises no alarm.
    Stranger,
}

/// Whom a call counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountsFor {
    /// Its caller: an enclave, a principal that has signed it just now and was within its limit, or somebody whose address was
    /// asked before.
    Caller,
    /// The address that it came from, because nobody else answers for it: its signature is wrong, or its signer has had enough, or
    /// it is not new, and then others have it too.
    Address,
}

/// The running service.
pub struct KeyService {
    pub(crate) identity: Arc<SigningIdentity>,
    pub(crate) state_key: Arc<RwLock<SecretKey>>,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) reader: Reader,
    pub(crate) work: mpsc::Sender<Work>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) limits: Mutex<Limits<PrincipalId>>,
    /// Commands of each principal that wait for the log.
    pub(crate) waiting: Quota<PrincipalId>,
    pub(crate) pages: Pages,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lease_seconds: u32,
    pub(crate) retired: watch::Sender<bool>,
    pub(crate) writer: std::thread::JoinHandle<()>,
}

impl core::fmt::Debug for KeyService {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("KeyService")
            .field("service", &self.id())
            .finish_non_exhaustive()
    }
}

impl KeyService {
    /// The service's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<SigningIdentity> {
        &self.identity
    }

    /// The service's id.
    #[must_use]
    pub fn id(&self) -> ServiceId {
        self.identity.public().service_id()
    }

    /// Reads the log, for a backup.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Turns true once the service was handed over: it should stop then.
    #[must_use]
    pub fn retired(&self) -> watch::Receiver<bool> {
        self.retired.subscribe()
    }

    /// Records what waits to be recorded: called several times a second.
    pub fn tick(&self) {
        if self.recorder.has_pending() {
            // With a full queue the next batch of commands takes it along.
            let _ = self.work.try_send(Work::Record);
        }
    }

    /// Records renewals that were only counted, keeps the freshness floor if it rose, wipes request keys that have ended, and looks
    /// at the clock: called every minute or so.
    pub fn keep(&self) {
        self.recorder.count_renewals();
        self.look_at_clock();
        let _ = self.work.try_send(Work::Keep);
    }

    /// The time comes from the host and never goes back: a host that sets its clock back revives nothing that has ended. So once the
    /// clock was ahead, time stands still here until it is that late again, and what ends before then has ended. A host can do that,
    /// as it can stop the service; a person has to see it, who alone can tell which of the two times is wrong.
    fn look_at_clock(&self) {
        let clock = self.clock.unix_seconds();
        let behind = read(&self.state).time(clock).saturating_sub(clock);
        self.metrics.clock_behind.set(behind);
        if behind > CLOCK_BEHIND {
            tracing::warn!(
                behind,
                "THE CLOCK IS BEHIND THE LOG, in seconds: it was ahead before, or was set back; time stands still until it catches up"
            );
        }
    }

    /// Carries out what is queued, records what waits, writes a snapshot, then closes the log.
    pub fn stop(self) {
        self.recorder.count_renewals();
        drop(self.work);
        if self.writer.join().is_err() {
            tracing::error!("the log's thread panicked");
        }
    }

    /// Answers one call of a peer. Who the peer is comes from the channel, never from the call.
    pub async fn answer(self: &Arc<Self>, peer: &Peer, call: CallBody) -> ReplyBody {
        self.answer_counted(peer, None, call).await.0
    }

    /// Answers one call of a peer at an address, and says whom it counts for.
    pub async fn answer_counted(
        self: &Arc<Self>,
        peer: &Peer,
        network: Option<Network>,
        call: CallBody,
    ) -> (ReplyBody, CountsFor) {
        let strangers = Lane::Strangers(network);
        let reply = match call {
            CallBody::Submit { signed, key } => {
                return self.submit(signed.into(), key, strangers).await;
            }
            CallBody::Query(signed) => return self.query(signed.into()).await,
            CallBody::Status { seen } => self.status(peer, strangers, seen).await,
            CallBody::Release(requests) => self.release(peer, &requests).await,
            CallBody::Unlock(_) => {
                let detail = "the service's state is open already";
                ReplyBody::Refused(Refusal::new(RefusalCode::AlreadyExists, detail))
            }
            CallBody::HandOver { policy } => self.hand_over(peer, policy),
            CallBody::Retire { policy } => self.retire(peer, policy).await,
        };
        (reply, CountsFor::Caller)
    }

    /// Whether a call comes from nobody in particular: it is of those that nobody signs, or names a signer that is not registered.
    /// Looked at before any signature is verified, so somebody else may have signed a call that says a registered principal did.
    /// Enclaves are known by their evidence.
    #[must_use]
    pub fn is_strangers(&self, peer: &Peer, call: &CallBody) -> bool {
        let claimed = match call {
            CallBody::Submit { signed, .. } => command::parse(signed)
                .ok()
                .map(|command| command.claimed_principal()),
            CallBody::Query(signed) => query::parse(signed)
                .ok()
                .map(|query| query.claimed_principal()),
            _ => return *peer == Peer::Principal,
        };
        claimed.is_none_or(|id| read(&self.state).principals().get(&id).is_none())
    }

    async fn status(&self, peer: &Peer, strangers: Lane, seen: Point) -> ReplyBody {
        let (lane, witness) = match peer {
            Peer::Enclave(claims) => (Lane::Enclave(claims.evidence), Witness::Known),
            Peer::Principal => (strangers, Witness::Stranger),
        };
        if let Err(refusal) = self.agree(lane, witness, seen).await {
            return ReplyBody::Refused(refusal);
        }
        let state = read(&self.state);
        let head = Head {
            state: StatePoint {
                service: self.id(),
                point: state.point(),
            },
            at: state.time(self.clock.unix_seconds()),
        };
        let Ok(head) = head.sign(&self.identity) else {
            return ReplyBody::Refused(RefusalCode::Internal.into());
        };
        let governance = state.governance();
        let upgrades = governance.approvals().map(|((code, policy), by)| {
            let approved_by = by.iter().copied().collect();
            UpgradeStatus {
                code: *code,
                policy: *policy,
                approved_by,
            }
        });
        ReplyBody::Status(Box::new(ServiceStatus {
            head: head.into(),
            custodians: governance.custodians().to_vec(),
            threshold: governance.threshold(),
            upgrades: upgrades.collect(),
        }))
    }

    /// Whether this log has been where somebody says it was. If not, it was rolled back, or it is a fork.
    async fn agree(&self, lane: Lane, witness: Witness, seen: Point) -> Result<(), Refusal> {
        let agreement = match self.reader.recalls(seen) {
            Some(known) => known,
            None => {
                let read = self.look_up(lane, vec![seen]).await?;
                let found = read.into_iter().next();
                found.unwrap_or_else(|| Err(RefusalCode::Internal.into()))?
            }
        };
        self.judge(witness, seen, agreement)
    }

    /// Looks points up on the disk, on a thread that may wait for it: in their order, what the log says of each.
    async fn look_up(
        &self,
        lane: Lane,
        points: Vec<Point>,
    ) -> Result<Vec<Result<Agreement, Refusal>>, Refusal> {
        let reader = self.reader.clone();
        let look_up = move || {
            let points = points.into_iter();
            Ok(points
                .map(|point| reader.agrees(point).map_err(|e| unreadable(&e)))
                .collect())
        };
        self.pages.read(lane, look_up).await
    }

    fn judge(&self, witness: Witness, seen: Point, agreement: Agreement) -> Result<(), Refusal> {
        let (sequence, end) = (seen.sequence, self.reader.point().sequence);
        let (alarm, detail) = match agreement {
            Agreement::Same => return Ok(()),
            Agreement::Behind => (
                "STALE STATE: a caller has seen a newer state of this service; it was rolled back",
                format!("the log ends at entry {end}, the caller has seen entry {sequence}"),
            ),
            Agreement::Forked => (
                "FORKED STATE: a caller has seen another history of this service",
                format!("entry {sequence} is another one than the caller has seen"),
            ),
        };
        match witness {
            Witness::Known => {
                tracing::error!(seen = sequence, "{alarm}");
                self.metrics.stale.inc();
            }
            Witness::Stranger => {
                tracing::debug!(
                    seen = sequence,
                    "a stranger says that it has seen another log"
                );
                self.metrics.stale_claims.inc();
            }
        }
        Err(Refusal::new(RefusalCode::StaleState, detail))
    }

    /// Takes one from what a principal may do now.
    fn within_limits(&self, principal: &PrincipalId) -> Result<(), Refusal> {
        let mut limits = lock(&self.limits);
        limits.check(principal, Instant::now()).map_err(|retry| {
            self.metrics.rate_limited.inc();
            Refusal::new(RefusalCode::Busy, retry)
        })
    }
}

fn unreadable(error: &LogError) -> Refusal {
    tracing::error!(%error, "the log cannot be read");
    RefusalCode::Internal.into()
}

/// A panic while a lock was held cannot have left the state half-changed in a way that allows more: `apply` adds what was
/// checked, or takes away.
fn read<T>(state: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
