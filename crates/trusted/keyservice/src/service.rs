//! Calls in, replies out. Releases read the state and go at once; commands go one after the other through one thread that
//! owns the log, so that what is acknowledged is on disk and what is in the state is in the log.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use sesemi_attest::Clock;
use sesemi_attest::channel::Peer;
use sesemi_attest::freshness::{FreshnessFloor, Level, Stale};
use sesemi_protocol::command;
use sesemi_protocol::cose::CoseError;
use sesemi_protocol::receipt::{Receipt, SignedError, StatePoint};
use sesemi_protocol::release::ReleaseRequest;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{
    Digest, Entropy, PrincipalId, PublicIdentity, Refusal, RefusalCode, SecretKey, SigningIdentity,
};
use tokio::sync::{mpsc, oneshot};

use crate::decision::decide;
use crate::log::{Entry, Log, LogError, Unlock};
use crate::metrics::{Metrics, Outcome};
use crate::state::{Objection, State};

/// Commands that may wait for the disk; beyond it callers are told to come back.
const QUEUE: usize = 256;

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be opened or does not verify.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An authentic entry breaks the rules: written by another version, or a defect.
    #[error("log entry {0} cannot be replayed; it was written by another version of KeyService")]
    Replay(u64),
    /// The thread that owns the log did not start.
    #[error("cannot start the log's thread")]
    Thread(#[from] std::io::Error),
    /// The kept freshness floor cannot be taken over.
    #[error(transparent)]
    Floor(#[from] Stale),
}

/// What the service needs from outside.
pub struct Resources {
    /// Seals the state.
    pub sealing_key: SecretKey,
    /// Digest of the policy by which enclaves are appraised; the service is bound to it for life.
    pub policy: Digest,
    /// The least fresh evidence that is accepted; kept with the state.
    pub floor: Arc<FreshnessFloor>,
    /// Tells the time for the log.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// How long a lease is, in seconds.
    pub lease_seconds: u32,
}

impl core::fmt::Debug for Resources {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Resources(..)")
    }
}

/// The running service.
#[derive(Debug)]
pub struct KeyService {
    identity: Arc<SigningIdentity>,
    state: Arc<RwLock<State>>,
    submissions: mpsc::Sender<Work>,
    metrics: Arc<Metrics>,
    lease_seconds: u32,
    writer: std::thread::JoinHandle<()>,
}

/// What the thread that owns the log is asked to do.
enum Work {
    Command(Submission),
    KeepFloor,
}

/// A signed command on its way to the log, and where its answer goes.
struct Submission {
    signed: Vec<u8>,
    answer: oneshot::Sender<ReplyBody>,
}

impl KeyService {
    /// Opens the state at `path`, replays it, and starts the thread that owns the log.
    ///
    /// # Errors
    /// [`StartError`]; the service does not run on a log that it cannot verify from end to end.
    pub fn start(
        path: &Path,
        resources: Resources,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let mut replayed: Option<State> = None;
        let opened = Log::open(
            path,
            Unlock {
                sealing_key: &resources.sealing_key,
                policy: resources.policy,
            },
            &*resources.entropy,
            |identity, entry, chain| {
                let state =
                    replayed.get_or_insert_with(|| State::new(identity.public().service_id()));
                replay(state, &entry, chain)
            },
        )?;
        resources.floor.raise_to(&opened.floor)?;
        let service = opened.identity.public().service_id();
        let state = replayed.unwrap_or_else(|| State::new(service));
        metrics.log_entries.set(state.sequence());
        tracing::info!(service = %service, entries = state.sequence(), "log verified and replayed");

        let identity = Arc::new(opened.identity);
        let state = Arc::new(RwLock::new(state));
        let (submissions, queue) = mpsc::channel(QUEUE);
        let lease_seconds = resources.lease_seconds;
        let writer = Writer {
            kept_floor: opened.floor,
            log: opened.log,
            state: state.clone(),
            identity: identity.clone(),
            resources,
            metrics: metrics.clone(),
        };
        let writer = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(queue))?;
        Ok(Self {
            identity,
            state,
            submissions,
            metrics,
            lease_seconds,
            writer,
        })
    }

    /// Has the freshness floor kept with the state if it rose. With a full queue nothing happens: commands keep it too.
    pub fn keep_floor(&self) {
        let _ = self.submissions.try_send(Work::KeepFloor);
    }

    /// Carries out what is queued, keeps the freshness floor, then closes the log.
    pub fn stop(self) {
        drop(self.submissions);
        if self.writer.join().is_err() {
            tracing::error!("the log's thread panicked");
        }
    }

    /// The service's identity.
    #[must_use]
    pub fn identity(&self) -> &Arc<SigningIdentity> {
        &self.identity
    }

    /// Answers one call of a peer. Who the peer is comes from the channel, never from the call.
    pub async fn answer(&self, peer: &Peer, call: CallBody) -> ReplyBody {
        match call {
            CallBody::State => ReplyBody::State(read(&self.state).sequence()),
            CallBody::Release(request) => self.release(peer, &request),
            CallBody::Submit(signed) => self.submit(signed.into()).await,
        }
    }

    fn release(&self, peer: &Peer, request: &ReleaseRequest) -> ReplyBody {
        let decided = match peer {
            Peer::Principal => Err(RefusalCode::NotAttested),
            Peer::Enclave(claims) => decide(
                &read(&self.state),
                self.identity.public().service_id(),
                &claims.code,
                request,
                self.lease_seconds,
            ),
        };
        let outcome = Outcome::of(decided.as_ref().err().copied());
        self.metrics.releases.get_or_create(&outcome).inc();
        tracing::info!(user = %request.user, model = %request.model, outcome = outcome.outcome, "release");
        match decided {
            Ok(lease) => ReplyBody::Lease(Box::new(lease)),
            Err(code) => ReplyBody::Refused(code.into()),
        }
    }

    async fn submit(&self, signed: Vec<u8>) -> ReplyBody {
        let started = Instant::now();
        let (answer, answered) = oneshot::channel();
        let reply = match self
            .submissions
            .try_send(Work::Command(Submission { signed, answer }))
        {
            Err(_) => ReplyBody::Refused(RefusalCode::Busy.into()),
            Ok(()) => answered
                .await
                .unwrap_or_else(|_| ReplyBody::Refused(RefusalCode::Internal.into())),
        };
        let outcome = Outcome::of(match &reply {
            ReplyBody::Refused(refusal) => Some(refusal.code),
            ReplyBody::SequenceBehind(_) => Some(RefusalCode::Replayed),
            _ => None,
        });
        tracing::info!(outcome = outcome.outcome, "command");
        self.metrics.commands.get_or_create(&outcome).inc();
        self.metrics
            .command_seconds
            .observe(started.elapsed().as_secs_f64());
        reply
    }
}

/// A panic while the lock was held cannot have left the state half-changed: `apply` only inserts.
fn read(state: &RwLock<State>) -> std::sync::RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

/// Applies a log entry again. The entry was sealed by this code, so its signature held when it was written; it is verified
/// again all the same, because it is cheap and the alternative is to believe.
fn replay(state: &mut State, entry: &Entry, chain: Digest) -> Result<(), StartError> {
    let failed = StartError::Replay(state.sequence().saturating_add(1));
    let signed = Digest::of(&entry.signed);
    let Ok((signer, identity, command)) = authenticate(state, &entry.signed) else {
        return Err(failed);
    };
    if state.check(&signer, &command, &signed).is_err() {
        return Err(failed);
    }
    state.apply(signer, identity, command, signed, chain);
    Ok(())
}

/// Verifies a signed command with the key on record, or, for a registration, with the key it brings.
fn authenticate(
    state: &State,
    signed: &[u8],
) -> Result<(PrincipalId, PublicIdentity, command::Command), SignedError> {
    let parsed = command::parse(signed)?;
    let signer = parsed.claimed_principal();
    let (identity, command) = match state.principal(&signer) {
        Some(known) => (known.identity, parsed.verify(&known.identity)?),
        None => parsed.verify_registration()?,
    };
    Ok((signer, identity, command))
}

/// The thread that owns the log.
struct Writer {
    log: Log,
    kept_floor: Vec<Level>,
    state: Arc<RwLock<State>>,
    identity: Arc<SigningIdentity>,
    resources: Resources,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        while let Some(work) = queue.blocking_recv() {
            match work {
                Work::KeepFloor => self.keep_floor(),
                Work::Command(submission) => {
                    let reply = self.submit(&submission.signed);
                    // A caller that left gets its receipt when it repeats the command.
                    let _ = submission.answer.send(reply);
                }
            }
        }
        self.keep_floor();
    }

    fn keep_floor(&mut self) {
        let floor = self.resources.floor.snapshot();
        if floor == self.kept_floor {
            return;
        }
        match self.log.keep_floor(&floor, &*self.resources.entropy) {
            Ok(()) => self.kept_floor = floor,
            Err(error) => tracing::error!(%error, "the freshness floor could not be kept"),
        }
    }

    fn submit(&mut self, signed: &[u8]) -> ReplyBody {
        let digest = Digest::of(signed);
        let (signer, identity, command) = match authenticate(&read(&self.state), signed) {
            Ok(authentic) => authentic,
            Err(SignedError::Cose(CoseError::NotAuthentic)) => {
                return ReplyBody::Refused(RefusalCode::NotAuthentic.into());
            }
            Err(SignedError::UnknownSigner) => {
                return ReplyBody::Refused(RefusalCode::UnknownPrincipal.into());
            }
            Err(error) => {
                return ReplyBody::Refused(Refusal::new(RefusalCode::Malformed, error));
            }
        };
        let checked = read(&self.state).check(&signer, &command, &digest);
        match checked {
            Ok(()) => {}
            Err(Objection::Refused(code)) => return ReplyBody::Refused(code.into()),
            Err(Objection::SequenceBehind(last)) => return ReplyBody::SequenceBehind(last),
            Err(Objection::Repeated) => return self.receipt(&signer),
        }
        let entry = Entry {
            signed: signed.to_vec().into(),
            accepted: self.resources.clock.unix_seconds(),
        };
        let floor = self.resources.floor.snapshot();
        let chain = match self.log.append(&entry, &floor, &*self.resources.entropy) {
            Ok(chain) => {
                self.kept_floor = floor;
                chain
            }
            Err(error) => {
                tracing::error!(%error, "a command could not be made durable and was not carried out");
                return ReplyBody::Refused(RefusalCode::Internal.into());
            }
        };
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .apply(signer, identity, command, digest, chain);
        self.metrics.log_entries.set(self.log.sequence());
        self.receipt(&signer)
    }

    /// The receipt for the last command of a principal. Ed25519 is deterministic: a repeated command gets the same bytes.
    fn receipt(&self, principal: &PrincipalId) -> ReplyBody {
        let state = read(&self.state);
        let Some(known) = state.principal(principal) else {
            return ReplyBody::Refused(RefusalCode::Internal.into());
        };
        let receipt = Receipt {
            state: StatePoint {
                service: self.identity.public().service_id(),
                sequence: known.last_position,
            },
            chain: known.last_chain,
            principal: *principal,
            command: known.last_command,
        };
        match receipt.sign(&self.identity) {
            Ok(bytes) => ReplyBody::Receipt(bytes.into()),
            Err(_) => ReplyBody::Refused(RefusalCode::Internal.into()),
        }
    }
}

#[cfg(test)]
mod tests;
