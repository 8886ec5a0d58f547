//! What custodians do: they are named once, each keeps a share, enough of them together approve an upgrade or open the state of
//! a service that cannot open it by itself.

use std::net::SocketAddr;

use sesemi_attest::Claims;
use sesemi_attest::channel::ExpectedService;
use sesemi_attest::session::{KeyServiceSession, Service};
use sesemi_protocol::command::Action;
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::receipt::{Point, Receipt};
use sesemi_protocol::share::Share;
use sesemi_protocol::wire::{CallBody, LockedStatus, ReplyBody, ServiceStatus};
use sesemi_protocol::{CodeIdentityDigest, Digest, PrincipalId, cbor};

use super::connect::session;
use super::owner::sorted;
use super::{ANSWER, Client, Trust};
use crate::error::Error;

/// SHA-256 over the custodians of a service, in their order, and their threshold: deterministic CBOR `[[custodian, ...], threshold]`.
/// `None` without custodians.
#[must_use]
pub fn custodians_digest(status: &ServiceStatus) -> Option<Digest> {
    if status.custodians.is_empty() {
        return None;
    }
    let named = (&status.custodians, status.threshold);
    cbor::encode(&named).ok().map(|bytes| Digest::of(&bytes))
}

impl Client {
    /// Names the custodians of a service, `threshold` of whom act together. Once, before anybody deposited a key.
    ///
    /// # Errors
    /// [`Error::Signed`] if they cannot work together; [`Error::Refused`] if they were named already, or are not registered.
    pub async fn name_custodians(
        &mut self,
        custodians: Vec<PrincipalId>,
        threshold: u8,
    ) -> Result<Receipt, Error> {
        let action = Action::NameCustodians {
            custodians: sorted(custodians),
            threshold,
        };
        self.submit(action, None).await
    }

    /// Fetches this custodian's own share. Keep it offline.
    ///
    /// # Errors
    /// [`Error::Refused`] if this principal is no custodian.
    pub async fn share(&self) -> Result<Share, Error> {
        match self.ask(Question::Share).await? {
            QueryAnswer::Share(share) if share.service() == self.seen.service => Ok(share),
            _ => Err(Error::Protocol("another answer than a share of its own")),
        }
    }

    /// Approves, as a custodian, that the service is handed over to this code under this policy.
    ///
    /// # Errors
    /// [`Error::Refused`] if this principal is no custodian.
    pub async fn approve_upgrade(
        &mut self,
        code: CodeIdentityDigest,
        policy: Digest,
    ) -> Result<Receipt, Error> {
        self.submit(Action::ApproveUpgrade { code, policy }, None)
            .await
    }
}

/// A connection to a service that waits for shares. Its evidence and its code are verified; its identity is a temporary one,
/// because the real one is in the state that it cannot open.
#[derive(Debug)]
pub struct Locked {
    session: KeyServiceSession,
    service: Service,
    status: LockedStatus,
}

/// What a share did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unlocking {
    /// More shares are needed.
    Waiting(LockedStatus),
    /// The state is open, and the service serves.
    Open,
}

impl Locked {
    /// Connects to a locked service, whatever `trust` says of its id.
    ///
    /// # Errors
    /// [`Error::NotLocked`] if it has its state; [`Error::Channel`] if its evidence is not what `trust` describes.
    pub async fn connect(address: SocketAddr, trust: Trust) -> Result<Self, Error> {
        let expected = trust.service;
        let session = session(address, trust, ExpectedService::FirstContact)?;
        let service = session.service().await?;
        let seen = Point::START;
        match session.call(CallBody::Status { seen }, ANSWER).await? {
            ReplyBody::Locked(status) => {
                if expected.is_some_and(|expected| expected != status.service) {
                    return Err(Error::Protocol("it has the state of another service"));
                }
                Ok(Self {
                    session,
                    service,
                    status,
                })
            }
            ReplyBody::Status(_) => Err(Error::NotLocked(service.identity.service_id())),
            ReplyBody::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Protocol("another answer than its status")),
        }
    }

    /// What its evidence says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.service.claims
    }

    /// Whose state it has, and how many shares it has and needs.
    #[must_use]
    pub fn status(&self) -> &LockedStatus {
        &self.status
    }

    /// Hands in a share.
    ///
    /// # Errors
    /// [`Error::OtherShare`] if it is one of another service, in which case it is not sent; [`Error::Refused`] if the service
    /// does not take it.
    pub async fn hand_in(&mut self, share: Share) -> Result<Unlocking, Error> {
        if share.service() != self.status.service {
            return Err(Error::OtherShare {
                share: share.service(),
                state: self.status.service,
            });
        }
        match self.session.call(CallBody::Unlock(share), ANSWER).await? {
            ReplyBody::Locked(status) if status.received < status.threshold => {
                self.status = status.clone();
                Ok(Unlocking::Waiting(status))
            }
            ReplyBody::Locked(_) | ReplyBody::Status(_) => Ok(Unlocking::Open),
            ReplyBody::Refused(refusal) => Err(Error::Refused(refusal)),
            _ => Err(Error::Protocol(
                "another answer than how many shares it has",
            )),
        }
    }
}
