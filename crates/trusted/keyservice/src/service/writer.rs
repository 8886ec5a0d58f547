//! The one thread that owns the log. It takes what waits, as much as fits into one batch, makes it durable with one write to the
//! disk, and then carries it out: so what is in the state is in the log, and what is acknowledged is on disk.
//!
//! Commands of one batch are checked against the state before the batch. That is the same as one after the other, because no
//! two of them touch the same namespace; those that do wait for the next batch.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Instant;

use sesemi_attest::Clock;
use sesemi_attest::freshness::FreshnessFloor;
use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::entropy::random;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Entropy, PrincipalId, Refusal, RefusalCode, SecretKey, cbor,
};
use sesemi_traces::{Key, Kind, Outcome, Span};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::commands::is_exclusive;
use super::custodians::names_custodians;
use super::read;
use super::releases::Recorder;
use crate::log::snapshot::Snapshots;
use crate::log::{Draft, Log, LogError, Start};
use crate::metrics::Metrics;
use crate::quota::Held;
use crate::start::Setup;
use crate::state::{Authentic, Secret, State};

/// Commands that may wait; beyond it callers are told to come back.
pub const QUEUE: usize = 1024;
/// Commands of one principal that may wait. Whoever sends more at once gains nothing, since they go one a write, and would take
/// the places of others.
pub const QUEUE_OF_ONE: usize = 32;
/// Commands in one batch, at most.
const MAX_BATCH: usize = 256;
/// Releases recorded in one batch, at most.
const MAX_RECORDS: usize = 1024;
/// Entries after which a new snapshot is made, unless the operator says otherwise.
pub const SNAPSHOT_EVERY: NonZeroU64 = match NonZeroU64::new(50_000) {
    Some(entries) => entries,
    None => NonZeroU64::MIN,
};

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Work {
    /// Carry out a command.
    Command(Box<Submission>),
    /// Record releases that wait.
    Record,
    /// Record the freshness floor if it rose, and wipe what has ended.
    Keep,
    /// Write the last entry: the service is handed over.
    Retire {
        /// The successor's code and policy.
        to: (CodeIdentityDigest, Digest),
        /// Gets the end of the log.
        answer: oneshot::Sender<Result<Point, Denied>>,
    },
}

/// An authentic command on its way to the log, and where its answer goes.
#[derive(Debug)]
pub struct Submission {
    /// What it says.
    pub authentic: Authentic,
    /// Its signed bytes.
    pub signed: Vec<u8>,
    /// Gets the point of the log after it.
    pub answer: oneshot::Sender<Result<Point, Denied>>,
    /// Its place among those of its signer, held until it is answered, also if nobody waits for that any more.
    pub place: Held<PrincipalId>,
}

/// Why a command was not carried out.
#[derive(Debug)]
pub enum Denied {
    /// It was refused.
    Refused(Refusal),
    /// Its sequence is not above this one.
    SequenceBehind(u64),
}

/// A snapshot to be written.
pub type Snapshot = (Arc<Snapshots>, Start, Zeroizing<Vec<u8>>);

/// The thread that owns the log.
pub struct Writer {
    pub(crate) log: Log,
    pub(crate) state: Arc<RwLock<State>>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) floor: Arc<FreshnessFloor>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) setup: Setup,
    pub(crate) state_key: Arc<RwLock<SecretKey>>,
    /// Takes one snapshot at a time.
    pub(crate) snapshots: SyncSender<Snapshot>,
    /// The thread that writes them.
    pub(crate) snapshot_thread: JoinHandle<()>,
    /// Where to, under the present state key.
    pub(crate) snapshot_folder: Arc<Snapshots>,
    /// Where the last snapshot was taken.
    pub(crate) snapshot_at: u64,
    /// Entries after which the next one is taken.
    pub(crate) snapshot_every: NonZeroU64,
}

/// An entry that is ready to be written, and whom it answers.
struct Prepared {
    draft: Draft,
    effect: Effect,
}

/// What an entry does once it is on disk.
pub(super) enum Effect {
    Command(Box<Submission>),
    Record(Record),
}

impl Writer {
    /// Works until all senders are gone, then records what waits and leaves a snapshot.
    pub fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match queue.blocking_recv() {
                    Some(Work::Command(submission)) => waiting.push_back(*submission),
                    Some(other) => self.do_other(other),
                    None => break,
                }
            }
            let mut others = Vec::new();
            while waiting.len() < MAX_BATCH {
                match queue.try_recv() {
                    Ok(Work::Command(submission)) => waiting.push_back(*submission),
                    Ok(other) => {
                        others.push(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
            let batch = take_batch(&mut waiting);
            self.commit(batch);
            for other in others {
                self.do_other(other);
            }
            self.snapshot_if_due();
        }
        self.record_all();
        self.keep_floor();
        let start = self.log.start();
        if start.point().sequence > self.snapshot_at {
            let bytes = read(&self.state).to_snapshot();
            let _ = self
                .snapshots
                .send((self.snapshot_folder.clone(), start, bytes));
        }
        drop(self.snapshots);
        if self.snapshot_thread.join().is_err() {
            tracing::error!("the thread that writes snapshots panicked");
        }
    }

    fn do_other(&mut self, work: Work) {
        match work {
            Work::Command(submission) => self.commit(vec![*submission]),
            Work::Record => self.commit(Vec::new()),
            Work::Keep => {
                self.keep_floor();
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                let now = state.time(self.clock.unix_seconds());
                state.forget_ended(now);
            }
            Work::Retire { to, answer } => {
                // A successor that left asks again.
                let _ = answer.send(self.retire(to));
            }
        }
    }

    /// Makes commands and waiting releases durable, carries them out, and answers.
    fn commit(&mut self, mut batch: Vec<Submission>) {
        let at = read(&self.state).time(self.clock.unix_seconds());
        if let Some(submission) = batch.pop_if(|first| names_custodians(first)) {
            return self.name_custodians(submission, at);
        }
        let mut prepared = Vec::with_capacity(batch.len());
        for submission in batch {
            match self.prepare(&submission, at) {
                Ok(draft) => prepared.push(Prepared {
                    draft,
                    effect: Effect::Command(Box::new(submission)),
                }),
                // A caller that left gets its answer when it repeats the command.
                Err(denied) => drop(submission.answer.send(Err(denied))),
            }
        }
        let most = if self.has_ended() { 0 } else { MAX_RECORDS };
        for record in self.recorder.take(most) {
            match self.draft(at, 0, record.clone(), Secret::None) {
                Ok(draft) => prepared.push(Prepared {
                    draft,
                    effect: Effect::Record(record),
                }),
                Err(error) => tracing::error!(?error, "a release could not be recorded"),
            }
        }
        if prepared.is_empty() {
            return;
        }
        self.metrics.batch.observe(prepared.len() as f64);
        let (drafts, effects): (Vec<Draft>, Vec<Effect>) = prepared
            .into_iter()
            .map(|prepared| (prepared.draft, prepared.effect))
            .unzip();
        match self.append(&drafts) {
            Ok(points) => self.carry_out(effects, &points, at),
            Err(refusal) => self.refuse(effects, &refusal),
        }
    }

    fn append(&mut self, drafts: &[Draft]) -> Result<Vec<Point>, Refusal> {
        let mut span = Span::root("log.commit", Kind::Internal);
        span.set(Key::Entries, drafts.len());
        let result = self.log.append(drafts, &*self.entropy, Instant::now());
        span.end(match &result {
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed(RefusalCode::Unwritable.as_str()),
        });
        drop(span);
        self.metrics.writable.set(i64::from(result.is_ok()));
        result.map_err(|error| {
            tracing::error!(%error, "NOT WRITABLE: nothing was carried out");
            match error {
                LogError::Uncertain { .. } => Refusal::new(
                    RefusalCode::Unwritable,
                    "whether the command was kept will be known when the disk works again; repeat the same command then",
                ),
                _ => RefusalCode::Unwritable.into(),
            }
        })
    }

    /// Checks a command and makes the entry for it.
    pub(super) fn prepare(&self, submission: &Submission, at: u64) -> Result<Draft, Denied> {
        let Authentic {
            signer,
            command,
            secret,
            ..
        } = &submission.authentic;
        let previous = {
            let state = read(&self.state);
            state.check(signer, command, at)?;
            let known = state.principals().get(signer);
            known.map_or(0, crate::state::principals::Principal::last_position)
        };
        let record = Record::Command(submission.signed.clone().into());
        Ok(self.draft(at, previous, record, secret.clone())?)
    }

    fn draft(
        &self,
        at: u64,
        previous: u64,
        record: Record,
        secret: Secret,
    ) -> Result<Draft, Refusal> {
        let internal = |_| Refusal::from(RefusalCode::Internal);
        let salt = random(&*self.entropy).map_err(|_| RefusalCode::Internal)?;
        let entry = Entry {
            salt,
            at,
            previous,
            record,
        };
        Ok(Draft {
            public: cbor::encode(&entry).map_err(internal)?.to_vec(),
            secret: secret.to_bytes(),
        })
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>, points: &[Point], at: u64) {
        let mut answers = Vec::with_capacity(effects.len());
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (effect, point) in effects.into_iter().zip(points) {
            match effect {
                Effect::Command(submission) => {
                    state.apply_command(submission.authentic, *point, at);
                    answers.push((submission.answer, *point));
                }
                Effect::Record(record) => state.apply_record(&record, *point, at),
            }
        }
        self.metrics.grants.set(state.grant_count() as u64);
        drop(state);
        for (answer, point) in answers {
            let _ = answer.send(Ok(point));
        }
        self.metrics.log_entries.set(self.log.point().sequence);
    }

    fn refuse(&self, effects: Vec<Effect>, refusal: &Refusal) {
        let mut unwritten = Vec::new();
        for effect in effects {
            match effect {
                Effect::Command(submission) => {
                    let _ = submission.answer.send(Err(refusal.clone().into()));
                }
                Effect::Record(record) => unwritten.push(record),
            }
        }
        self.recorder.give_back(unwritten);
    }

    /// Writes one entry that the service makes by itself.
    fn record(&mut self, record: Record) -> Result<Point, Denied> {
        let at = read(&self.state).time(self.clock.unix_seconds());
        let draft = self.draft(at, 0, record.clone(), Secret::None)?;
        let points = self.append(&[draft])?;
        let point = *points
            .last()
            .ok_or_else(|| Refusal::from(RefusalCode::Internal))?;
        self.carry_out(vec![Effect::Record(record)], &[point], at);
        Ok(point)
    }

    fn keep_floor(&mut self) {
        if self.has_ended() {
            return;
        }
        let Ok(levels) = cbor::encode(&self.floor.snapshot()) else {
            return;
        };
        if read(&self.state).floor() == levels.as_slice() || self.floor.snapshot().is_empty() {
            return;
        }
        if let Err(error) = self.record(Record::Floor(levels.to_vec().into())) {
            tracing::error!(?error, "the freshness floor could not be kept");
        }
    }

    /// Ends the log. The same successor may ask again; another one is too late.
    fn retire(&mut self, to: (CodeIdentityDigest, Digest)) -> Result<Point, Denied> {
        let (known, approved) = {
            let state = read(&self.state);
            let governance = state.governance();
            (governance.successor().copied(), governance.is_approved(&to))
        };
        match known {
            Some(known) if known == to => return Ok(self.log.point()),
            Some(_) => return Err(Refusal::from(RefusalCode::HandedOver).into()),
            None if !approved => return Err(Refusal::from(RefusalCode::NotPermitted).into()),
            None => {}
        }
        self.recorder.close(true);
        self.recorder.count_renewals();
        self.record_all();
        let (code, policy) = to;
        let ended = self.record(Record::HandedOver { code, policy });
        self.recorder.close(ended.is_ok());
        ended
    }

    /// Records all releases that wait, unless the log cannot be written or has ended.
    fn record_all(&mut self) {
        while self.recorder.has_pending() && self.log.failure().is_none() && !self.has_ended() {
            self.commit(Vec::new());
        }
    }

    /// Whether the log has its last entry: nothing may come after it.
    fn has_ended(&self) -> bool {
        read(&self.state).governance().successor().is_some()
    }

    fn snapshot_if_due(&mut self) {
        let sequence = self.log.point().sequence;
        if sequence.saturating_sub(self.snapshot_at) < self.snapshot_every.get() {
            return;
        }
        // Releases go on meanwhile: this thread is the only one that changes the state, so a shared lock is enough.
        let bytes = read(&self.state).to_snapshot();
        let snapshot = (self.snapshot_folder.clone(), self.log.start(), bytes);
        match self.snapshots.try_send(snapshot) {
            Ok(()) => self.snapshot_at = sequence,
            Err(TrySendError::Full(_)) => {
                tracing::info!("the last snapshot is still being written")
            }
            Err(TrySendError::Disconnected(_)) => tracing::error!("nobody writes snapshots"),
        }
    }
}

/// Commands that touch different namespaces, in the order in which they came. What is left keeps its place.
fn take_batch(waiting: &mut VecDeque<Submission>) -> Vec<Submission> {
    let mut touched: HashSet<PrincipalId> = HashSet::new();
    let mut batch = Vec::new();
    let mut left = VecDeque::new();
    let mut closed = false;
    while let Some(submission) = waiting.pop_front() {
        let Authentic {
            signer, command, ..
        } = &submission.authentic;
        let exclusive = is_exclusive(&command.action);
        let owner = command.action.owner();
        let free = !touched.contains(signer) && owner.is_none_or(|owner| !touched.contains(owner));
        // Also for those that wait: a later command of theirs must not overtake them.
        touched.insert(*signer);
        touched.extend(owner);
        if closed || !free || batch.len() >= MAX_BATCH || (exclusive && !batch.is_empty()) {
            closed |= exclusive;
            left.push_back(submission);
            continue;
        }
        closed |= exclusive;
        batch.push(submission);
    }
    *waiting = left;
    batch
}
