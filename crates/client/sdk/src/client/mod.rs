//! One principal's dealings with KeyService, the object store and the gateway.
//!
//! This file has what all of them share: whom a client trusts, the connection, the newest point of KeyService's log that the
//! client has seen, signed commands and signed questions. What a principal can do is beside it, by what it is at that moment:
//! owner, user, auditor or custodian.

mod auditor;
mod connect;
mod custodian;
mod owner;
mod push;
mod user;

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sesemi_attest::session::{KeyServiceSession, Service};
use sesemi_attest::{AppraisalPolicy, EvidenceVerifier};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::query::{Query, QueryAnswer, Question, RequestKeyView};
use sesemi_protocol::receipt::{Head, Point, Receipt, StatePoint};
use sesemi_protocol::wire::{CallBody, ReplyBody, ServiceStatus};
use sesemi_protocol::{Digest, PrincipalId, RefusalCode, SecretKey, ServiceId, SystemEntropy};

use crate::error::Error;
use crate::gateway::Gateway;
use crate::identity::Identity;

pub use auditor::{Audit, SignedHead};
pub use connect::{Standing, look};
pub use custodian::{Locked, Unlocking, custodians_digest};
pub use owner::Grant;
pub use user::Inference;

/// Longest wait for one answer of KeyService.
const ANSWER: Duration = Duration::from_secs(15);
/// Most items of a list that are collected: a service cannot fill a client's memory.
const MAX_LISTED: usize = 1_000_000;

/// What a client trusts: whose evidence, which code, and which KeyService.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Verifies KeyService's evidence.
    pub verifier: EvidenceVerifier,
    /// What KeyService's own evidence must satisfy, above all the code that it must run.
    pub policy: AppraisalPolicy,
    /// Digest of the policy by which KeyService must appraise the enclaves that it releases keys to.
    pub service_policy: Digest,
    /// The KeyService that it must be; `None` only at the first contact, after which the id is kept.
    pub service: Option<ServiceId>,
    /// Who must govern it, by [`custodians_digest`]: enough custodians together can open its state. `None` if nobody said so and
    /// none were seen before; whoever deposits a key then should look first.
    pub custodians: Option<Digest>,
}

/// One principal, connected to KeyService.
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    session: KeyServiceSession,
    service: Service,
    seen: StatePoint,
    /// Who must govern the service, as far as that is known: by [`custodians_digest`].
    custodians: Option<Digest>,
    sequence: u64,
    acknowledged: Option<Acknowledged>,
    /// This user's request keys, as KeyService listed them; `None` if they must be asked for again.
    keys: Mutex<Option<Vec<RequestKeyView>>>,
    gateway: Gateway,
    entropy: SystemEntropy,
}

/// A command that KeyService carried out, and its receipt, both as they were signed: what settles a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The signed command.
    pub command: Vec<u8>,
    /// The signed receipt for it.
    pub receipt: Vec<u8>,
}

/// A command that KeyService carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// What was signed.
    pub signed: SignedReceipt,
    /// What the receipt says; it was verified.
    pub content: Receipt,
}

impl Client {
    /// This principal's id.
    #[must_use]
    pub fn id(&self) -> PrincipalId {
        self.identity.id()
    }

    /// The KeyService at the other end and what its evidence says.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The newest point of KeyService's log that this client knows of. Keep it for the next connection.
    #[must_use]
    pub fn seen(&self) -> StatePoint {
        self.seen
    }

    /// The last command of this client that was carried out, with its receipt.
    #[must_use]
    pub fn last_acknowledged(&self) -> Option<&Acknowledged> {
        self.acknowledged.as_ref()
    }

    /// Asks how far the service's log goes, and refuses a service that is behind what was seen, or has another past.
    ///
    /// # Errors
    /// [`Error::Stale`]; [`Error::Locked`] if the service cannot open its state.
    pub async fn check_state(&mut self) -> Result<StatePoint, Error> {
        self.status().await.map(|_| self.seen)
    }

    /// What the service is, who governs it, and the signed end of its log, which is checked as by [`Client::check_state`].
    ///
    /// # Errors
    /// As [`Client::check_state`].
    pub async fn status(&mut self) -> Result<(SignedHead, ServiceStatus), Error> {
        let seen = self.seen.point;
        match self.session.call(CallBody::Status { seen }, ANSWER).await? {
            ReplyBody::Status(status) => {
                let head = Head::verify(&status.head, &self.service.identity)?;
                let found = head.state.point;
                self.must_agree(found.sequence > seen.sequence || found == seen, || {
                    format!("its log ends at entry {}", found.sequence)
                })?;
                self.must_be_governed_as_expected(&status)?;
                self.seen.point = found;
                let head = SignedHead {
                    bytes: status.head.to_vec(),
                    head,
                };
                Ok((head, *status))
            }
            other => Err(self.no_answer(other, "another answer than its status")),
        }
    }

    /// Who governs the service, by [`custodians_digest`], once it is known. Keep it for the next connection.
    #[must_use]
    pub fn custodians(&self) -> Option<Digest> {
        self.custodians
    }

    /// Custodians never change once they are named, so others mean another history, or one that a host made up.
    fn must_be_governed_as_expected(&mut self, status: &ServiceStatus) -> Result<(), Error> {
        let found = custodians_digest(status);
        match self.custodians {
            Some(expected) if found != Some(expected) => {
                Err(Error::OtherCustodians { expected, found })
            }
            _ => {
                self.custodians = found;
                Ok(())
            }
        }
    }

    /// Signs and submits a command, with the key that belongs to it. If another client of this principal was faster, its
    /// number is passed and the command signed anew.
    async fn submit(&mut self, action: Action, key: Option<SecretKey>) -> Result<Receipt, Error> {
        for _ in 0..4 {
            // The time is above every number that was used before, so that a client need not remember the last one.
            self.sequence = self.sequence.saturating_add(1).max(now_micros());
            let command = Command {
                service: self.seen.service,
                sequence: self.sequence,
                seen: self.seen.point,
                action: action.clone(),
            };
            let signed = command.sign(self.identity.signing())?;
            let call = CallBody::Submit {
                signed: signed.clone().into(),
                key: key.clone(),
            };
            match self.session.call(call, ANSWER).await? {
                ReplyBody::Receipt(receipt) => return self.accept(&command, signed, &receipt),
                ReplyBody::SequenceBehind(last) => self.sequence = last,
                other => return Err(self.no_answer(other, "another answer than a receipt")),
            }
        }
        Err(Error::Protocol("the sequence never fits"))
    }

    /// Checks a receipt and moves on to the point that it names. Whether the command was carried out now or before, its place
    /// in the log is after the point that its signer had seen.
    fn accept(
        &mut self,
        command: &Command,
        signed: Vec<u8>,
        receipt: &[u8],
    ) -> Result<Receipt, Error> {
        let content = Receipt::verify(receipt, &self.service.identity, &signed)?;
        if content.principal != self.id() {
            return Err(Error::Protocol("a receipt for somebody else"));
        }
        let sequence = content.state.point.sequence;
        self.must_agree(sequence > command.seen.sequence, || {
            format!("its receipt is for entry {sequence}")
        })?;
        if sequence > self.seen.point.sequence {
            self.seen = content.state;
        }
        self.acknowledged = Some(Acknowledged {
            signed: SignedReceipt {
                command: signed,
                receipt: receipt.to_vec(),
            },
            content: content.clone(),
        });
        Ok(content)
    }

    /// Asks a signed question.
    async fn ask(&self, question: Question) -> Result<QueryAnswer, Error> {
        let query = Query {
            service: self.seen.service,
            at: now(),
            seen: self.seen.point,
            question,
        };
        let call = CallBody::Query(query.sign(self.identity.signing())?.into());
        match self.session.call(call, ANSWER).await? {
            ReplyBody::Answer(answer) => Ok(*answer),
            other => Err(self.no_answer(other, "another answer than was asked for")),
        }
    }

    fn must_agree(&self, agrees: bool, why: impl FnOnce() -> String) -> Result<(), Error> {
        if agrees {
            return Ok(());
        }
        Err(Error::Stale {
            service: self.seen.service,
            seen: self.seen.point,
            why: why(),
        })
    }

    /// What it means that the service gave no answer of the expected kind.
    fn no_answer(&self, reply: ReplyBody, unexpected: &'static str) -> Error {
        match reply {
            ReplyBody::Refused(refusal) if refusal.code == RefusalCode::StaleState => {
                Error::Stale {
                    service: self.seen.service,
                    seen: self.seen.point,
                    why: "it says so itself".into(),
                }
            }
            ReplyBody::Refused(refusal) => Error::Refused(refusal),
            ReplyBody::Locked(status) => Error::Locked(status),
            _ => Error::Protocol(unexpected),
        }
    }

    /// Collects the pages of a list; `ask` gets what was collected so far.
    async fn collect<T>(
        &self,
        question: impl Fn(&[T]) -> Question,
        items: impl Fn(QueryAnswer) -> Option<Vec<T>>,
        ascending: impl Fn(&T, &T) -> bool,
    ) -> Result<Vec<T>, Error> {
        let mut all: Vec<T> = Vec::new();
        loop {
            let page = items(self.ask(question(&all)).await?)
                .ok_or(Error::Protocol("another list than was asked for"))?;
            if page.is_empty() {
                return Ok(all);
            }
            for item in page {
                if all.last().is_some_and(|last| !ascending(last, &item)) {
                    return Err(Error::Protocol("a list that is out of order"));
                }
                if all.len() == MAX_LISTED {
                    return Err(Error::TooLong(MAX_LISTED));
                }
                all.push(item);
            }
        }
    }
}

/// The point of a receipt's entry, which is also the id of the grant that the entry made.
fn entry(receipt: &Receipt) -> u64 {
    receipt.state.point.sequence
}

/// The start of every log of this service.
fn start(service: ServiceId) -> StatePoint {
    StatePoint {
        service,
        point: Point::START,
    }
}

/// This machine's time, in microseconds since 1970.
fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// This machine's time, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
