//! What can go wrong for a client, with what to do about it.

use sesemi_attest::channel::ChannelError;
use sesemi_protocol::envelope::EnvelopeError;
use sesemi_protocol::id::IdError;
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::package::PackageError;
use sesemi_protocol::receipt::{Point, SignedError};
use sesemi_protocol::reference::{ObjectName, ReferenceError};
use sesemi_protocol::tensor::TensorError;
use sesemi_protocol::wire::LockedStatus;
use sesemi_protocol::{Digest, EntropyError, Isolation, ModelRef, Refusal, ServiceId};

/// Why a client did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KeyService cannot be reached, or what answered is not a KeyService that this client trusts. Nothing was sent.
    #[error("no attested channel to KeyService")]
    Channel(#[from] ChannelError),
    /// KeyService, SeMIRT or the gateway refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// KeyService does not agree with a point of its log that this client has seen.
    #[error(
        "KeyService {service} does not agree with entry {} of its log, which this client has seen ({why}): its state was rolled back or forked; do not use it",
        seen.sequence
    )]
    Stale {
        /// The service.
        service: ServiceId,
        /// What the client has seen.
        seen: Point,
        /// How it shows.
        why: String,
    },
    /// KeyService is governed by others than it should be.
    #[error(
        "this KeyService is governed by other custodians than expected ({}, not {expected}): do not use it; a host that names custodians of its own can open what is deposited there",
        found.map_or("none".to_owned(), |found| found.to_string())
    )]
    OtherCustodians {
        /// Who should govern it.
        expected: Digest,
        /// Who does; `None` if nobody.
        found: Option<Digest>,
    },
    /// KeyService cannot open its state.
    #[error(
        "KeyService {} is locked: it has {} of the {} recovery shares that open its state; its custodians run `sesemi keyservice recover`",
        .0.service, .0.received, .0.threshold
    )]
    Locked(LockedStatus),
    /// KeyService has its state already, so it takes no shares.
    #[error("KeyService {0} is not locked, so no share was sent; see `sesemi keyservice status`")]
    NotLocked(ServiceId),
    /// A share is of another service's state.
    #[error(
        "this share is of KeyService {share}, but this one has the state of {state}; it was not sent"
    )]
    OtherShare {
        /// Whose share it is.
        share: ServiceId,
        /// Whose state the service has.
        state: ServiceId,
    },
    /// There is no request key to replace.
    #[error("there is no request key of this scope to replace; deposit one first")]
    NoKey,
    /// A list is longer than any that this client takes.
    #[error("KeyService's list goes on after {0} items")]
    TooLong(usize),
    /// KeyService answered something else than was asked for.
    #[error("KeyService broke the protocol: {0}")]
    Protocol(&'static str),
    /// A command or receipt is not what it should be.
    #[error("a signed message cannot be used")]
    Signed(#[from] SignedError),
    /// A request cannot be sealed, or a response does not open.
    #[error("the response cannot be trusted, or the request cannot be sealed")]
    Envelope(#[from] EnvelopeError),
    /// A version was registered, but its package is not in the object store, and what was pushed now is not what was registered.
    #[error(
        "{0} was registered with other content (by a push that was interrupted before the package was in its place?), and a version never changes: push this as the next version, or push what was registered"
    )]
    OtherContent(Box<ModelRef>),
    /// A version was registered, but its package is not in the object store, and what is asked for now is another isolation.
    #[error(
        "{model} was registered with isolation '{registered}' (by a push that was interrupted before the package was in its place?), and a version never changes: push this as the next version, or ask for what was registered"
    )]
    OtherIsolation {
        /// The version.
        model: Box<ModelRef>,
        /// What it was registered with.
        registered: Isolation,
    },
    /// A model package cannot be made.
    #[error("the model package cannot be made")]
    Package(#[from] PackageError),
    /// The object store failed.
    #[error("the object store failed")]
    Store(#[from] object_store::Error),
    /// The object store did not answer in time.
    #[error("the object store did not answer within {0} seconds")]
    StoreTimedOut(u64),
    /// A request by reference was answered by something else.
    #[error("the answer to a request by reference is not of its form")]
    Reference(#[from] ReferenceError),
    /// A request by reference was answered with the name of another object than the one that was to be made.
    #[error("the answer to a request by reference names another object: {0}")]
    OtherObject(ObjectName),
    /// The gateway's address cannot be used.
    #[error("'{0}' is not an address of a gateway; write http://HOST:PORT")]
    GatewayAddress(String),
    /// The gateway cannot be reached.
    #[error("the gateway cannot be reached")]
    Gateway(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gateway answered with something that is neither a response nor a refusal.
    #[error("the gateway answered {status}: {message}")]
    GatewayAnswer {
        /// HTTP status.
        status: u16,
        /// The gateway's own code, if it gave one.
        code: Option<String>,
        /// What it said.
        message: String,
    },
    /// The gateway did not answer in time.
    #[error("the gateway did not answer within {0} seconds")]
    TimedOut(u64),
    /// A tensor is inconsistent.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// A name, version or id is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// An address does not parse.
    #[error("not an address (HOST:PORT)")]
    Address(#[from] std::net::AddrParseError),
    /// An identity cannot be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Keys cannot be derived.
    #[error(transparent)]
    Derive(#[from] sesemi_protocol::kdf::DeriveError),
    /// There is no randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

impl Error {
    /// The code of the refusal, if this is one: of KeyService, of SeMIRT inside its sealed response, or what the gateway says.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(refusal.code.as_str()),
            Self::GatewayAnswer { code, .. } => code.as_deref(),
            _ => None,
        }
    }
}
