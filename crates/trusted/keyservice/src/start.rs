//! How a service comes up: founded, opened again, taken over from a predecessor, or recovered by its custodians.
//!
//! The state key opens everything. Whether this code may go on with the state is then for the log to say: the log names the
//! code and the policy that write it, and only a hand-over that custodians approved, or a recovery by enough of them, changes that.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use sesemi_attest::freshness::{Level, Stale};
use sesemi_protocol::audit::{self, Entry, Record};
use sesemi_protocol::entropy::random;
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Entropy, EntropyError, SecretKey, SigningIdentity, cbor,
};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::log::snapshot::{SnapshotError, Snapshots};
use crate::log::{Draft, FileStorage, Log, LogError, Opened, Start, Storage};
use crate::quota::Quota;
use crate::service::pages::Pages;
use crate::service::releases::Recorder;
use crate::service::writer::{QUEUE, QUEUE_OF_ONE, Snapshot, Writer};
use crate::service::{KeyService, Resources};
use crate::state::{ReplayError, State};
use crate::unlock::{Recovery, UnlockError, UnlockFolder, Unlocked};

/// File of the log in the state folder.
pub const DATABASE: &str = "state.redb";
/// Folder of the snapshots in the state folder.
pub const SNAPSHOTS: &str = "snapshots";
/// Longest encoded freshness floor, in bytes.
const MAX_FLOOR: usize = 128 * 1024;

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened or does not verify.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An authentic entry does not belong there.
    #[error(
        "log entry {sequence} cannot be replayed: {source}; it was written by another version of KeyService"
    )]
    Replay {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        source: ReplayError,
    },
    /// The snapshots cannot be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A snapshot is authentic, but not of a form that this version knows.
    #[error(transparent)]
    State(#[from] crate::state::snapshot::SnapshotError),
    /// The state key cannot be had.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    /// There is a key to the state, and no state.
    #[error(
        "the log is missing from the state folder; restore the folder from a backup, or remove all of it to found a new service"
    )]
    LogMissing,
    /// The state is another service's than the key.
    #[error(
        "the state key and the log belong to different services; restore the state folder from one backup"
    )]
    OtherService,
    /// The service was handed over to other code.
    #[error(
        "this service was handed over to code {0}; start that one, or have the custodians recover it for this one"
    )]
    HandedOver(CodeIdentityDigest),
    /// This code was not appointed.
    #[error(
        "the state was written by code {0}, and was not handed over to this one: have the custodians approve the upgrade and start with --predecessor, or have them recover it"
    )]
    NotHandedOver(CodeIdentityDigest),
    /// The policy is another one.
    #[error(
        "this service appraises enclaves by the policy {expected}, not by {found}: start it with that policy's file, or have the custodians approve the new one (sesemi keyservice approve-upgrade)"
    )]
    OtherPolicy {
        /// By which it does.
        expected: Digest,
        /// What it was started with.
        found: Digest,
    },
    /// The state does not end where the predecessor ended it.
    #[error(
        "the state folder is not the one that the predecessor wrote: it should end at entry {0}; give the successor the very folder"
    )]
    OtherEnd(u64),
    /// A thread did not start.
    #[error("cannot start a thread")]
    Thread(#[from] std::io::Error),
    /// The kept freshness floor cannot be taken over.
    #[error(transparent)]
    Floor(#[from] Stale),
    /// The kept freshness floor cannot be read.
    #[error("the kept freshness floor cannot be read: {0}; it was written by another version")]
    FloorForm(cbor::CborError),
    /// The service's identity could not be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Randomness is missing.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// What this process is, and where the state lies.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The state folder.
    pub folder: PathBuf,
    /// This code, by its own evidence.
    pub code: CodeIdentityDigest,
    /// Digest of the policy by which it appraises enclaves.
    pub policy: Digest,
    /// The TEE's sealing key, where it has one.
    pub sealing_key: Option<SecretKey>,
}

/// What opening a state comes to.
#[derive(Debug)]
pub enum Opening {
    /// The service runs.
    Service(Box<KeyService>),
    /// Custodians must hand in their shares.
    Locked(Recovery),
}

/// How this code came to the state key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It made the key for a new service, whose identity has this seed.
    Founding(SecretKey),
    /// By itself.
    Alone,
    /// From a predecessor, which ended the log here.
    TookOver(Point),
    /// From custodians with these shares.
    Recovered(Vec<u8>),
}

impl Setup {
    /// The ways to the state key.
    #[must_use]
    pub fn unlock(&self) -> UnlockFolder {
        UnlockFolder::new(&self.folder)
    }

    /// Lets this code open the state by itself from now on, where the TEE can seal.
    ///
    /// # Errors
    /// [`UnlockError`].
    pub fn keep_key(&self, unlocked: &Unlocked, entropy: &dyn Entropy) -> Result<(), UnlockError> {
        let Some(sealing_key) = &self.sealing_key else {
            tracing::warn!(
                "this TEE cannot seal: at every start the custodians must hand in shares, or a predecessor the key"
            );
            return Ok(());
        };
        let Unlocked { service, state_key } = unlocked;
        self.unlock()
            .write_tee(*service, self.code, sealing_key, state_key, entropy)
    }

    /// Opens the state, or founds a service where there is none.
    ///
    /// # Errors
    /// [`StartError`]; the service does not run on a state that it cannot verify.
    pub fn open(&self, resources: Resources) -> Result<Opening, StartError> {
        let unlock = self.unlock();
        if !self.folder.join(DATABASE).exists() && !unlock.holds_any() {
            return self.found(resources);
        }
        let opened = match &self.sealing_key {
            Some(sealing_key) => unlock.open_tee(self.code, sealing_key),
            None => Err(UnlockError::NoTeeFile(unlock.tee_path(self.code))),
        };
        match opened {
            Ok(unlocked) => self.open_alone(&unlocked, resources),
            Err(error @ (UnlockError::NoTeeFile(_) | UnlockError::OtherPlatform(_))) => {
                let recovery = unlock.read_recovery().map_err(|_| error)?;
                Ok(Opening::Locked(recovery))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn found(&self, resources: Resources) -> Result<Opening, StartError> {
        let state_key = SecretKey::generate(&*resources.entropy)?;
        let identity = SigningIdentity::generate(&*resources.entropy)?;
        let unlocked = Unlocked {
            service: identity.public().service_id(),
            state_key,
        };
        // The key first: a crash before the first entry leaves a service without entries, and the next start founds another,
        // with another key and another identity. A key that was used once never gets a second log: its custodians would be others.
        self.keep_key(&unlocked, &*resources.entropy)?;
        let how = How::Founding(identity.seed().clone());
        let service = self.open_with(&unlocked, &how, resources)?;
        Ok(Opening::Service(Box::new(service)))
    }

    /// Opens the state with the key that the TEE kept. Two things that a crash can leave are mended: a service that was not founded to
    /// its end, and a log that was sealed anew for its custodians under the next key.
    fn open_alone(&self, unlocked: &Unlocked, resources: Resources) -> Result<Opening, StartError> {
        let unlock = self.unlock();
        let opened = self.open_with(unlocked, &How::Alone, resources.clone());
        let service = match (opened, &self.sealing_key) {
            (Err(StartError::LogMissing), _) if !self.has_history() => {
                return self.found(resources);
            }
            (Err(error @ StartError::Log(LogError::NotAuthentic { .. })), Some(sealing_key)) => {
                let next = unlock.open_next_tee(self.code, sealing_key)?.ok_or(error)?;
                let service = self.open_with(&next, &How::Alone, resources)?;
                unlock.promote_next(self.code)?;
                service
            }
            (opened, _) => opened?,
        };
        Ok(Opening::Service(Box::new(service)))
    }

    /// Whether the folder shows that there was more than a founding.
    fn has_history(&self) -> bool {
        let snapshots = std::fs::read_dir(self.folder.join(SNAPSHOTS));
        let any_snapshot = snapshots.is_ok_and(|mut files| files.next().is_some());
        any_snapshot || self.unlock().recovery_path().exists()
    }

    /// Opens the state with its key.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open_with(
        &self,
        unlocked: &Unlocked,
        how: &How,
        resources: Resources,
    ) -> Result<KeyService, StartError> {
        let storage = Arc::new(FileStorage::new(self.folder.join(DATABASE)));
        self.open_on(storage, unlocked, how, resources)
    }

    /// Like [`Setup::open_with`], with the log on other storage.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open_on(
        &self,
        storage: Arc<dyn Storage>,
        unlocked: &Unlocked,
        how: &How,
        resources: Resources,
    ) -> Result<KeyService, StartError> {
        let snapshots = Snapshots::new(self.folder.join(SNAPSHOTS), &unlocked.state_key)?;
        let (mut log, state, snapshot_at) = replay(storage, &unlocked.state_key, &snapshots)?;
        let mut state = match (state, how) {
            (Some(state), _) => state,
            (None, How::Founding(seed)) => self.first_entry(&mut log, seed, &resources)?,
            // A log that somebody else founds with this key is not one that was recovered or handed over.
            (None, _) => return Err(StartError::LogMissing),
        };
        let identity = identity(&log)?;
        if state.service() != identity.public().service_id() || unlocked.service != state.service()
        {
            return Err(StartError::OtherService);
        }
        if let Some(record) = self.appointment(&state, how)? {
            append(&mut log, &mut state, record, &resources)?;
        }
        mend_recovery(&self.unlock(), &state, &unlocked.state_key, &resources)?;
        if !state.floor().is_empty() {
            let levels: Vec<Level> =
                cbor::decode(state.floor(), MAX_FLOOR).map_err(StartError::FloorForm)?;
            resources.floor.raise_to(&levels)?;
        }
        tracing::info!(
            service = %state.service(),
            entries = state.point().sequence,
            grants = state.grant_count(),
            snapshot = snapshot_at,
            "log verified and replayed"
        );
        let parts = Parts {
            identity,
            state_key: unlocked.state_key.clone(),
            log,
            state,
            snapshots,
            snapshot_at,
            setup: self.clone(),
        };
        Ok(parts.run(resources)?)
    }

    fn first_entry(
        &self,
        log: &mut Log,
        seed: &SecretKey,
        resources: &Resources,
    ) -> Result<State, StartError> {
        let identity = SigningIdentity::from_seed(seed.clone())?;
        let record = Record::Founded {
            public_key: *identity.public().key(),
            code: self.code,
            policy: self.policy,
        };
        let entry = entry(record, resources.clock.unix_seconds(), resources)?;
        let point = write(log, &entry, Some(seed), resources)?;
        State::found(&entry, point).map_err(|source| StartError::Replay {
            sequence: 1,
            source,
        })
    }

    /// Whether this code may go on with the state, and what the log has to say of it.
    fn appointment(&self, state: &State, how: &How) -> Result<Option<Record>, StartError> {
        let governance = state.governance();
        let (code, policy) = (self.code, self.policy);
        let own = (code, policy);
        let was = (governance.code(), governance.policy());
        let took_over = Ok(Some(Record::TookOver { code, policy }));
        match (how, governance.successor()) {
            (How::Recovered(shares), _) => Ok(Some(Record::Recovered {
                code,
                policy,
                shares: shares.clone(),
            })),
            (How::TookOver(end), _) if *end != state.point() => {
                Err(StartError::OtherEnd(end.sequence))
            }
            (_, Some(successor)) if *successor == own => took_over,
            (_, Some((successor, _))) => Err(StartError::HandedOver(*successor)),
            (How::TookOver(end), None) => Err(StartError::OtherEnd(end.sequence)),
            (How::Founding(_), None) => Ok(None),
            (How::Alone, None) if was == own => Ok(None),
            (How::Alone, None) if was.0 != code => Err(StartError::NotHandedOver(was.0)),
            (How::Alone, None) if governance.is_approved(&own) => took_over,
            (How::Alone, None) => Err(StartError::OtherPolicy {
                expected: was.1,
                found: policy,
            }),
        }
    }
}

/// The service's identity: its seed is kept with the first entry of the log.
fn identity(log: &Log) -> Result<SigningIdentity, StartError> {
    let missing = StartError::Replay {
        sequence: 1,
        source: ReplayError::Misplaced("the service's identity is missing"),
    };
    let secret = log.reader().read(1)?.secret.ok_or(missing)?;
    let seed = SecretKey::from_slice(&secret).ok_or(StartError::OtherService)?;
    Ok(SigningIdentity::from_seed(seed)?)
}

type Replayed = (Log, Option<State>, u64);

/// Reads the newest snapshot, and replays the log after it.
fn replay(
    storage: Arc<dyn Storage>,
    state_key: &SecretKey,
    snapshots: &Snapshots,
) -> Result<Replayed, StartError> {
    let newest = snapshots.newest()?.snapshot;
    let (start, mut state) = match newest {
        Some(snapshot) => {
            let point = snapshot.start.point();
            let state = State::from_snapshot(&snapshot.state, point)?;
            (snapshot.start, Some(state))
        }
        None => (Start::ORIGIN, None),
    };
    let snapshot_at = start.point().sequence;
    let progress = |done, of| tracing::info!(done, of, "replaying the log");
    let log = Log::open(storage, state_key, start, progress, |opened| {
        replay_entry(&mut state, &opened)
    })?;
    Ok((log, state, snapshot_at))
}

fn replay_entry(state: &mut Option<State>, opened: &Opened) -> Result<(), StartError> {
    let sequence = opened.sequence;
    let entry = audit::decode(&opened.public)
        .map_err(|source| StartError::Log(LogError::Entry { sequence, source }))?;
    let secret = opened.secret.as_ref().map(|secret| secret.as_slice());
    let replayed = match state {
        Some(state) => state.replay(opened.point(), &entry, secret),
        None => State::found(&entry, opened.point()).map(|founded| *state = Some(founded)),
    };
    replayed.map_err(|source| StartError::Replay { sequence, source })
}

fn entry(record: Record, at: u64, resources: &Resources) -> Result<Entry, StartError> {
    Ok(Entry {
        salt: random(&*resources.entropy)?,
        at,
        previous: 0,
        record,
    })
}

fn write(
    log: &mut Log,
    entry: &Entry,
    secret: Option<&SecretKey>,
    resources: &Resources,
) -> Result<Point, StartError> {
    let sequence = log.point().sequence.saturating_add(1);
    let public = cbor::encode(entry).map_err(|source| LogError::Entry { sequence, source })?;
    let draft = Draft {
        public: public.to_vec(),
        secret: secret.map(|key| Zeroizing::new(key.expose().to_vec())),
    };
    log.append(&[draft], &*resources.entropy, Instant::now())?;
    Ok(log.point())
}

fn append(
    log: &mut Log,
    state: &mut State,
    record: Record,
    resources: &Resources,
) -> Result<(), StartError> {
    let at = state.time(resources.clock.unix_seconds());
    let entry = entry(record, at, resources)?;
    let point = write(log, &entry, None, resources)?;
    state.apply_record(&entry.record, point, at);
    Ok(())
}

/// The log is what counts: a recovery file that does not fit the shares in it, because a crash or the host came between the
/// two, is written anew.
fn mend_recovery(
    unlock: &UnlockFolder,
    state: &State,
    state_key: &SecretKey,
    resources: &Resources,
) -> Result<(), StartError> {
    let shares = state
        .governance()
        .recovery_shares(state.service())
        .map_err(UnlockError::Share)?;
    let fits = unlock
        .read_recovery()
        .is_ok_and(|file| shares.iter().all(|share| file.check(share).is_ok()));
    if !shares.is_empty() && !fits {
        tracing::warn!("the recovery file does not fit the custodians' shares; it is written anew");
        unlock.write_recovery(&shares, state_key, &*resources.entropy)?;
    }
    Ok(())
}

/// A service that is open and not running yet.
struct Parts {
    identity: SigningIdentity,
    state_key: SecretKey,
    log: Log,
    state: State,
    snapshots: Snapshots,
    snapshot_at: u64,
    setup: Setup,
}

impl Parts {
    /// Starts the threads that write the log and the snapshots.
    fn run(self, resources: Resources) -> Result<KeyService, std::io::Error> {
        let Resources {
            floor,
            clock,
            entropy,
            metrics,
            lease_seconds,
            limits,
            snapshot_every,
        } = resources;
        metrics.log_entries.set(self.state.point().sequence);
        metrics.grants.set(self.state.grant_count() as u64);
        metrics.writable.set(1);
        let reader = self.log.reader();
        let state = Arc::new(RwLock::new(self.state));
        let recorder = Arc::new(Recorder::default());
        let (work, queue) = mpsc::channel(QUEUE);
        let (snapshots, to_write) = sync_channel(1);
        let snapshot_thread = {
            let entropy = entropy.clone();
            std::thread::Builder::new()
                .name("snapshots".into())
                .spawn(move || write_snapshots(&to_write, &*entropy))?
        };
        let state_key = Arc::new(RwLock::new(self.state_key));
        let writer = Writer {
            log: self.log,
            state: state.clone(),
            recorder: recorder.clone(),
            floor,
            clock: clock.clone(),
            entropy,
            metrics: metrics.clone(),
            setup: self.setup,
            state_key: state_key.clone(),
            snapshots,
            snapshot_thread,
            snapshot_folder: Arc::new(self.snapshots),
            snapshot_at: self.snapshot_at,
            snapshot_every,
        };
        let writer = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(queue))?;
        let (retired, _) = watch::channel(false);
        Ok(KeyService {
            identity: Arc::new(self.identity),
            state_key,
            state,
            reader,
            work,
            recorder,
            limits: Mutex::new(limits),
            waiting: Quota::new(QUEUE_OF_ONE),
            pages: Pages::default(),
            clock,
            metrics,
            lease_seconds,
            retired,
            writer,
        })
    }
}

/// Writes snapshots until nobody sends any. One that fails costs a longer replay, nothing more.
fn write_snapshots(to_write: &Receiver<Snapshot>, entropy: &dyn Entropy) {
    while let Ok((folder, start, state)) = to_write.recv() {
        let started = Instant::now();
        match folder.write(&start, &state, entropy) {
            Ok(_) => tracing::info!(
                entries = start.point().sequence,
                bytes = state.len(),
                millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "snapshot written"
            ),
            Err(error) => tracing::error!(%error, "no snapshot"),
        }
    }
}
