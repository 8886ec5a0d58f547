//! A command's way: its form and signature are checked where it came in, by as many threads as there are; the writer checks it
//! against the state, makes it durable and carries it out; then its receipt is signed, again where it came in.
//!
//! A command that comes again gets the receipt that it got the first time: a client that lost the answer repeats itself, and
//! one who replays somebody else's command gains nothing. It takes nothing from its signer either: whoever may see a command in
//! the log has its bytes, and could use up what its signer may command, so that it cannot revoke. So only a command that is new
//! counts for its signer; one that is not counts for the address that it comes from.

use std::time::Instant;

use sesemi_protocol::command::{self, Action};
use sesemi_protocol::cose::CoseError;
use sesemi_protocol::limits::MAX_REPEATED;
use sesemi_protocol::receipt::{Point, Receipt, SignedError, StatePoint};
use sesemi_protocol::wire::ReplyBody;
use sesemi_protocol::{Digest, PrincipalId, Refusal, RefusalCode, SecretKey, audit};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::pages::Lane;
use super::writer::{Denied, Submission, Work};
use super::{CountsFor, KeyService, Witness, read, unreadable};
use crate::log::Reader;
use crate::metrics::Outcome;
use crate::state::check::Objection;
use crate::state::{Authentic, Secret};

impl KeyService {
    pub(super) async fn submit(
        &self,
        signed: Vec<u8>,
        key: Option<SecretKey>,
        strangers: Lane,
    ) -> (ReplyBody, CountsFor) {
        let started = Instant::now();
        let (done, counts_for) = match self.admit(&signed, key) {
            Ok(authentic) => {
                let done = self.carry_out(authentic, signed, strangers).await;
                (done, CountsFor::Caller)
            }
            Err(NotAdmitted::Old(authentic, last)) => {
                let done = self.repeat(&authentic, signed, last, strangers).await;
                (done, CountsFor::Address)
            }
            Err(NotAdmitted::Denied(denied)) => (Err(denied), CountsFor::Address),
        };
        let reply = match done {
            Ok(receipt) => ReplyBody::Receipt(receipt.into()),
            Err(Denied::Refused(refusal)) => ReplyBody::Refused(refusal),
            Err(Denied::SequenceBehind(last)) => ReplyBody::SequenceBehind(last),
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
        (reply, counts_for)
    }

    /// Takes a new command from what its signer may command now; any other takes nothing.
    fn admit(&self, signed: &[u8], key: Option<SecretKey>) -> Result<Authentic, NotAdmitted> {
        let denied = |refusal: Refusal| NotAdmitted::Denied(refusal.into());
        let authentic = self.authenticate(signed, key).map_err(denied)?;
        let (signer, command) = (&authentic.signer, &authentic.command);
        let new = read(&self.state).check_new(signer, command);
        match new {
            Ok(()) => self.within_limits(signer).map_err(denied)?,
            Err(Objection::SequenceBehind(last)) => {
                return Err(NotAdmitted::Old(Box::new(authentic), last));
            }
            Err(Objection::Refused(code)) => return Err(denied(code.into())),
        }
        Ok(authentic)
    }

    async fn carry_out(
        &self,
        authentic: Authentic,
        signed: Vec<u8>,
        strangers: Lane,
    ) -> Result<Vec<u8>, Denied> {
        let signer = authentic.signer;
        // Whoever registers is nobody yet: anybody can sign with a new key.
        let registered = read(&self.state).principals().get(&signer).is_some();
        let (lane, witness) = if registered {
            (Lane::Principal(signer), Witness::Known)
        } else {
            (strangers, Witness::Stranger)
        };
        self.agree(lane, witness, authentic.command.seen).await?;
        let sequence = authentic.command.sequence;
        let digest = Digest::of(&signed);
        let (answer, answered) = oneshot::channel();
        let place = self.waiting.take(&signer, || ()).ok_or_else(|| {
            self.metrics.rate_limited.inc();
            let detail =
                "too many commands of this principal wait; send the next one when one is answered";
            Refusal::new(RefusalCode::Busy, detail)
        })?;
        let submission = Submission {
            authentic,
            signed: signed.clone(),
            answer,
            place,
        };
        let point = match self.hand_in(submission, answered).await {
            // It came twice at once, and the other one was faster.
            Err(Denied::SequenceBehind(last)) => self
                .repeated(lane, signer, sequence, signed)
                .await?
                .ok_or(Denied::SequenceBehind(last))?,
            other => other?,
        };
        self.receipt(signer, digest, point)
    }

    /// The receipt of a command that is not new, if it was carried out. It has its turn at the log as a stranger's: its signer's
    /// belongs to the signer.
    async fn repeat(
        &self,
        authentic: &Authentic,
        signed: Vec<u8>,
        last: u64,
        strangers: Lane,
    ) -> Result<Vec<u8>, Denied> {
        let (signer, command) = (authentic.signer, &authentic.command);
        self.agree(strangers, Witness::Known, command.seen).await?;
        let digest = Digest::of(&signed);
        let point = self
            .repeated(strangers, signer, command.sequence, signed)
            .await?
            .ok_or(Denied::SequenceBehind(last))?;
        self.receipt(signer, digest, point)
    }

    async fn hand_in(
        &self,
        submission: Submission,
        answered: oneshot::Receiver<Result<Point, Denied>>,
    ) -> Result<Point, Denied> {
        // Refused at once if it is refused now: that costs no place in the queue.
        let now = self.clock.unix_seconds();
        let Authentic {
            signer, command, ..
        } = &submission.authentic;
        read(&self.state).check(signer, command, now)?;
        self.work
            .try_send(Work::Command(Box::new(submission)))
            .map_err(|error| match error {
                TrySendError::Full(_) => Refusal::from(RefusalCode::Busy),
                TrySendError::Closed(_) => self.writer_is_gone(),
            })?;
        answered
            .await
            .unwrap_or_else(|_| Err(Refusal::from(RefusalCode::Internal).into()))
    }

    /// The thread that owns the log panicked: nothing can be carried out any more, so the service ends, and the next start reads
    /// what is on disk.
    fn writer_is_gone(&self) -> Refusal {
        tracing::error!("the log's thread is gone; this service stops");
        self.metrics.writable.set(0);
        self.retired.send_replace(true);
        RefusalCode::Unwritable.into()
    }

    /// Verifies a signed command with the key on record, or, for a registration, with the key it brings; and the key beside
    /// it with the digest in it.
    fn authenticate(&self, signed: &[u8], key: Option<SecretKey>) -> Result<Authentic, Refusal> {
        let refused = |error| match error {
            SignedError::Cose(CoseError::NotAuthentic) => RefusalCode::NotAuthentic.into(),
            SignedError::UnknownSigner => RefusalCode::UnknownPrincipal.into(),
            error => Refusal::new(RefusalCode::Malformed, error),
        };
        let parsed = command::parse(signed).map_err(refused)?;
        let signer = parsed.claimed_principal();
        let known = read(&self.state)
            .principals()
            .get(&signer)
            .map(|known| *known.identity());
        let (identity, command) = match known {
            Some(known) => (known, parsed.verify(&known).map_err(refused)?),
            None => parsed.verify_registration().map_err(refused)?,
        };
        let secret = match (command.action.key(), key) {
            (None, None) => Secret::None,
            (Some(digest), Some(key)) if key.digest() == *digest => Secret::Key(key),
            _ => {
                let detail = "the key beside the command is not the one that it names";
                return Err(Refusal::new(RefusalCode::Malformed, detail));
            }
        };
        Ok(Authentic {
            signer,
            identity,
            command,
            secret,
        })
    }

    /// Where a command stands in the log, if it was carried out: looks back along its signer's commands.
    async fn repeated(
        &self,
        lane: Lane,
        signer: PrincipalId,
        sequence: u64,
        signed: Vec<u8>,
    ) -> Result<Option<Point>, Refusal> {
        let last = read(&self.state)
            .principals()
            .get(&signer)
            .map_or(0, crate::state::principals::Principal::last_position);
        let reader = self.reader.clone();
        self.pages
            .read(lane, move || look_back(&reader, last, sequence, &signed))
            .await
    }

    /// Ed25519 is deterministic: a repeated command gets the same bytes.
    fn receipt(
        &self,
        principal: PrincipalId,
        command: Digest,
        point: Point,
    ) -> Result<Vec<u8>, Denied> {
        let receipt = Receipt {
            state: StatePoint {
                service: self.id(),
                point,
            },
            principal,
            command,
        };
        let signed = receipt.sign(&self.identity);
        Ok(signed.map_err(|_| Refusal::from(RefusalCode::Internal))?)
    }
}

/// Why a command takes nothing from what its signer may command.
enum NotAdmitted {
    /// It is not authentic, not for this service, or its signer has had enough.
    Denied(Denied),
    /// Its sequence is not above its signer's last one.
    Old(Box<Authentic>, u64),
}

/// Looks for a command from entry `position` on, back along the entries of its signer.
fn look_back(
    reader: &Reader,
    mut position: u64,
    sequence: u64,
    signed: &[u8],
) -> Result<Option<Point>, Refusal> {
    for _ in 0..MAX_REPEATED {
        if position == 0 {
            return Ok(None);
        }
        let opened = reader.read(position).map_err(|e| unreadable(&e))?;
        let internal = |_| Refusal::from(RefusalCode::Internal);
        let entry = audit::decode(&opened.public).map_err(internal)?;
        if let audit::Record::Command(known) = &entry.record
            && known.as_slice() == signed
        {
            return Ok(Some(opened.point()));
        }
        let command = entry
            .unverified_command()
            .map_err(|_| Refusal::from(RefusalCode::Internal))?;
        if command.is_none_or(|(_, command)| command.sequence <= sequence) {
            return Ok(None);
        }
        position = entry.previous;
    }
    Ok(None)
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Objection> for Denied {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Refused(code) => Self::Refused(code.into()),
            Objection::SequenceBehind(last) => Self::SequenceBehind(last),
        }
    }
}

/// Whether a command must be alone in its batch: it changes what commands in any namespace depend on.
pub(super) fn is_exclusive(action: &Action) -> bool {
    matches!(
        action,
        Action::NameCustodians { .. } | Action::ApproveUpgrade { .. }
    )
}
