//! How a client comes to a KeyService, and what it sends before anything else: nothing until the evidence is verified, and
//! nothing of weight until the service agrees with what the client has seen of its log.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sesemi_attest::channel::{ChannelError, Connector, ExpectedService};
use sesemi_attest::session::{KeyServiceSession, Service};
use sesemi_attest::{Claims, SystemClock};
use sesemi_protocol::command::Action;
use sesemi_protocol::receipt::{Head, Point};
use sesemi_protocol::wire::{CallBody, LockedStatus, ReplyBody, ServiceStatus};
use sesemi_protocol::{RefusalCode, ServiceId, SystemEntropy};

use super::{ANSWER, Client, SignedHead, Trust, start};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::identity::Identity;

/// What is found at the address of a KeyService whose evidence verifies.
#[derive(Debug, Clone)]
pub enum Standing {
    /// A service that has its state.
    Serving {
        /// Its identity and what its evidence says.
        service: Box<Service>,
        /// The end of its log.
        head: SignedHead,
        /// Who governs it.
        status: ServiceStatus,
    },
    /// A service that waits for its custodians' shares. Its evidence verifies; what it says of its state is not proven yet.
    Locked {
        /// What its evidence says.
        claims: Box<Claims>,
        /// Whose state it has, and how many shares it waits for.
        status: LockedStatus,
    },
}

/// Looks at a KeyService as somebody whom it does not know: verifies its evidence, and asks what it is.
///
/// # Errors
/// [`Error::Channel`] if it is not the KeyService that `trust` describes.
pub async fn look(address: SocketAddr, trust: Trust) -> Result<Standing, Error> {
    let expected = trust.service;
    // A locked service has a temporary identity, so whether this is the right one is compared afterwards.
    let session = session(address, trust, ExpectedService::FirstContact)?;
    let service = session.service().await?;
    let seen = Point::START;
    match session.call(CallBody::Status { seen }, ANSWER).await? {
        ReplyBody::Status(status) => {
            is_expected(expected, service.identity.service_id())?;
            let head = SignedHead {
                head: Head::verify(&status.head, &service.identity)?,
                bytes: status.head.to_vec(),
            };
            Ok(Standing::Serving {
                service: Box::new(service),
                head,
                status: *status,
            })
        }
        ReplyBody::Locked(status) => {
            is_expected(expected, status.service)?;
            Ok(Standing::Locked {
                claims: Box::new(service.claims),
                status,
            })
        }
        ReplyBody::Refused(refusal) => Err(Error::Refused(refusal)),
        _ => Err(Error::Protocol("another answer than its status")),
    }
}

fn is_expected(expected: Option<ServiceId>, found: ServiceId) -> Result<(), Error> {
    match expected {
        Some(expected) if expected != found => {
            Err(ChannelError::OtherService { expected, found }.into())
        }
        _ => Ok(()),
    }
}

pub(super) fn session(
    address: SocketAddr,
    trust: Trust,
    expected: ExpectedService,
) -> Result<KeyServiceSession, Error> {
    let connector = Connector::for_principal(
        trust.verifier,
        trust.policy,
        trust.service_policy,
        Arc::new(SystemClock),
        Arc::new(SystemEntropy::new()),
    )?;
    Ok(KeyServiceSession::new(connector, address, expected))
}

impl Client {
    /// Connects to KeyService, verifies its evidence, and registers this principal there if it is new.
    ///
    /// # Errors
    /// [`Error::Channel`] if it is not the KeyService that `trust` describes; nothing was sent then.
    pub async fn connect(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
    ) -> Result<Self, Error> {
        Self::connect_having_seen(identity, address, trust, Point::START).await
    }

    /// Like [`Client::connect`], for a client that kept the point of KeyService's log that it saw last (see
    /// [`Client::seen`]). A service that does not agree was rolled back or forked, and is refused.
    ///
    /// # Errors
    /// [`Error::Stale`], or as [`Client::connect`].
    pub async fn connect_having_seen(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
        seen: Point,
    ) -> Result<Self, Error> {
        let mut client = Self::verify(identity, address, trust).await?;
        client.seen.point = seen;
        client.check_state().await?;
        // Who gets its list of request keys is known already.
        match client.refresh_keys().await {
            Err(Error::Refused(refusal)) if refusal.code == RefusalCode::UnknownPrincipal => {
                client.register().await?;
                client.keep_keys(Vec::new());
            }
            other => other?,
        }
        Ok(client)
    }

    /// Connects and verifies, without registering: a principal that KeyService has never heard of.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_unregistered(
        identity: Identity,
        address: SocketAddr,
        trust: Trust,
    ) -> Result<Self, Error> {
        let mut client = Self::verify(identity, address, trust).await?;
        client.check_state().await?;
        client.keep_keys(Vec::new());
        Ok(client)
    }

    async fn verify(identity: Identity, address: SocketAddr, trust: Trust) -> Result<Self, Error> {
        let expected = match trust.service {
            Some(id) => ExpectedService::Pinned(id),
            None => ExpectedService::FirstContact,
        };
        let custodians = trust.custodians;
        let session = session(address, trust.clone(), expected)?;
        let service = match session.service().await {
            Ok(service) => service,
            // A locked service cannot prove yet which one it is: that is no clone, and its custodians can help.
            Err(other @ ChannelError::OtherService { .. }) => {
                return match look(address, trust).await {
                    Ok(Standing::Locked { status, .. }) => Err(Error::Locked(status)),
                    _ => Err(other.into()),
                };
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            identity,
            session,
            seen: start(service.identity.service_id()),
            service,
            custodians,
            sequence: 0,
            acknowledged: None,
            keys: Mutex::new(None),
            gateway: Gateway::default(),
            entropy: SystemEntropy::new(),
        })
    }

    /// Registers this principal; one that another client has registered meanwhile is left as it is.
    async fn register(&mut self) -> Result<(), Error> {
        let action = Action::Register {
            public_key: *self.identity.signing().public().key(),
        };
        match self.submit(action, None).await {
            Ok(_) => Ok(()),
            Err(Error::Refused(refusal)) if refusal.code == RefusalCode::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }
}
