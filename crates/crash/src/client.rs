//! One owner or user: its identity, its channel, and what it signs. It speaks the protocol itself, without the repetitions of a
//! real client: a connection that ends in the middle of a call must be seen here.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sesemi_attest::channel::{Channel, ChannelError, Connector, ExpectedService};
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::query::{Query, QueryAnswer, Question};
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{
    Digest, PrincipalId, PublicIdentity, Refusal, SecretKey, ServiceId, SigningIdentity,
};

use crate::error::CrashError;

/// Longest wait for an answer. Not the point of the measurement: it is for services that hang.
const ANSWER: Duration = Duration::from_secs(30);

/// A command as it was sent.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Its signed bytes.
    pub bytes: Vec<u8>,
    /// The key beside it.
    pub key: Option<SecretKey>,
}

impl Signed {
    /// By which commands are told apart.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    fn call(&self) -> CallBody {
        CallBody::Submit {
            signed: self.bytes.clone().into(),
            key: self.key.clone(),
        }
    }
}

/// What became of a command, as far as its sender knows.
#[derive(Debug)]
pub enum Outcome {
    /// It was acknowledged, with these bytes.
    Receipt(Box<Receipt>, Vec<u8>),
    /// It was refused.
    Refused(Refusal),
    /// Its number is used up.
    Behind(u64),
    /// No answer came.
    Unknown(ChannelError),
}

/// An owner or user.
#[derive(Debug)]
pub struct Client {
    /// Its identity.
    pub identity: SigningIdentity,
    /// Its id.
    pub id: PrincipalId,
    /// The newest point that it has seen.
    pub seen: Point,
    /// The command that it has no answer to.
    pub pending: Option<Signed>,
    /// Number of its last command.
    sequence: u64,
    service: Option<PublicIdentity>,
    channel: Option<Channel>,
    calls: u64,
}

impl Client {
    /// Somebody new.
    #[must_use]
    pub fn new(identity: SigningIdentity) -> Self {
        Self {
            id: identity.public().principal_id(),
            identity,
            seen: Point::START,
            pending: None,
            sequence: 0,
            service: None,
            channel: None,
            calls: 0,
        }
    }

    /// Opens a channel; from the first one on, to that service only.
    ///
    /// # Errors
    /// [`CrashError::Channel`].
    pub async fn connect(
        &mut self,
        connector: &Connector,
        address: SocketAddr,
    ) -> Result<(), CrashError> {
        let expected = match &self.service {
            Some(service) => ExpectedService::Pinned(service.service_id()),
            None => ExpectedService::FirstContact,
        };
        let connected = connector.connect(address, expected).await?;
        self.service = Some(connected.service);
        self.channel = Some(connected.channel);
        Ok(())
    }

    /// Ends the channel, as a crash does.
    pub fn disconnect(&mut self) {
        self.channel = None;
    }

    /// The pinned service.
    ///
    /// # Errors
    /// [`CrashError::Answer`] before the first connection.
    pub fn service(&self) -> Result<PublicIdentity, CrashError> {
        self.service
            .ok_or_else(|| CrashError::Answer("nothing yet".into()))
    }

    fn service_id(&self) -> Result<ServiceId, CrashError> {
        Ok(self.service()?.service_id())
    }

    /// Makes one call. After an error there is no channel any more.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub async fn call(&mut self, body: CallBody) -> Result<ReplyBody, ChannelError> {
        let closed = || ChannelError::Io(std::io::ErrorKind::NotConnected.into());
        let mut channel = self.channel.take().ok_or_else(closed)?;
        self.calls += 1;
        let number = self.calls;
        channel.send(&Call { number, body }, ANSWER).await?;
        let reply: Option<Reply> = channel.receive(ANSWER).await?;
        let reply = reply
            .filter(|reply| reply.number == number)
            .ok_or_else(closed)?;
        self.channel = Some(channel);
        Ok(reply.body)
    }

    /// Signs a command with the next number.
    ///
    /// # Errors
    /// [`CrashError`].
    pub fn sign(&mut self, action: Action, key: Option<SecretKey>) -> Result<Signed, CrashError> {
        self.sequence += 1;
        let command = Command {
            service: self.service_id()?,
            sequence: self.sequence,
            seen: self.seen,
            action,
        };
        let bytes = command.sign(&self.identity)?;
        Ok(Signed { bytes, key })
    }

    /// Sends a command and says what became of it. An acknowledgement that is not authentic is an error.
    ///
    /// # Errors
    /// [`CrashError`].
    pub async fn submit(&mut self, signed: &Signed) -> Result<Outcome, CrashError> {
        let outcome = match self.call(signed.call()).await {
            Err(error) => Outcome::Unknown(error),
            Ok(ReplyBody::Receipt(bytes)) => {
                let receipt = Receipt::verify(&bytes, &self.service()?, &signed.bytes)?;
                if receipt.principal != self.id {
                    return Err(CrashError::Answer("with somebody else's receipt".into()));
                }
                Outcome::Receipt(Box::new(receipt), bytes.to_vec())
            }
            Ok(ReplyBody::Refused(refusal)) => Outcome::Refused(refusal),
            Ok(ReplyBody::SequenceBehind(last)) => Outcome::Behind(last),
            Ok(other) => return Err(CrashError::Answer(format!("{other:?}"))),
        };
        Ok(outcome)
    }

    /// Asks a question as somebody who has seen nothing: what the service says is compared afterwards, and a service that
    /// lost something must be able to say what it has.
    ///
    /// # Errors
    /// [`CrashError`], also if it is refused.
    pub async fn ask(&mut self, question: Question) -> Result<QueryAnswer, CrashError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let query = Query {
            service: self.service_id()?,
            at: now.map_or(0, |now| now.as_secs()),
            seen: Point::START,
            question,
        };
        let signed = query.sign(&self.identity)?;
        match self.call(CallBody::Query(signed.into())).await? {
            ReplyBody::Answer(answer) => Ok(*answer),
            other => Err(CrashError::Answer(format!("{other:?}"))),
        }
    }
}
