//! Calls to KeyService on an attested channel that is kept open, and opened again when it died.
//!
//! A platform pauses idle instances, and a paused instance wakes up to dead connections and a clock that jumped. So a call
//! that fails on a *kept* connection is tried once more on a fresh, freshly attested one. That is safe for every call:
//! releases change nothing, and a repeated command gets its old receipt.

use std::net::SocketAddr;
use std::time::Duration;

use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{PublicIdentity, ServiceId};
use tokio::sync::Mutex;

use crate::channel::{Channel, ChannelError, Connector, ExpectedService};
use crate::verifier::Claims;

/// A line to one KeyService.
#[derive(Debug)]
pub struct KeyServiceSession {
    connector: Connector,
    address: SocketAddr,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    expected: ExpectedService,
    open: Option<Open>,
    next_number: u64,
}

#[derive(Debug)]
struct Open {
    channel: Channel,
    service: PublicIdentity,
    claims: Claims,
}

/// Whom a session turned out to talk to.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its identity key, which signs receipts.
    pub identity: PublicIdentity,
    /// What its evidence says.
    pub claims: Claims,
}

impl KeyServiceSession {
    /// A line that is opened at the first call.
    #[must_use]
    pub fn new(connector: Connector, address: SocketAddr, expected: ExpectedService) -> Self {
        Self {
            connector,
            address,
            kept: Mutex::new(Kept {
                expected,
                open: None,
                next_number: 0,
            }),
        }
    }

    /// Opens the line if it is not open and says who answered. From then on that service is pinned.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub async fn service(&self) -> Result<Service, ChannelError> {
        let mut kept = self.kept.lock().await;
        let open = self.open(&mut kept).await?;
        Ok(Service {
            identity: open.service,
            claims: open.claims.clone(),
        })
    }

    /// Makes one call; `limit` bounds the wait for its answer.
    ///
    /// # Errors
    /// [`ChannelError`] if no answer came. Refusals are answers.
    pub async fn call(&self, body: CallBody, limit: Duration) -> Result<ReplyBody, ChannelError> {
        let mut kept = self.kept.lock().await;
        let was_open = kept.open.is_some();
        match self.attempt(&mut kept, body.clone(), limit).await {
            Err(ChannelError::Io(_)) if was_open => self.attempt(&mut kept, body, limit).await,
            result => result,
        }
    }

    async fn attempt(
        &self,
        kept: &mut Kept,
        body: CallBody,
        limit: Duration,
    ) -> Result<ReplyBody, ChannelError> {
        let number = kept.next_number;
        kept.next_number = number.wrapping_add(1);
        self.open(kept).await?;
        // Taken out while the call is under way: if it fails or is cancelled half-way, the channel is out of step and must
        // not be used again.
        let mut open = kept.open.take().ok_or(ChannelError::Task)?;
        open.channel.send(&Call { number, body }, limit).await?;
        let reply: Option<Reply> = open.channel.receive(limit).await?;
        let closed = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let reply = reply.ok_or_else(closed)?;
        if reply.number != number {
            return Err(ChannelError::Io(std::io::Error::other(
                "answer to another call",
            )));
        }
        kept.open = Some(open);
        Ok(reply.body)
    }

    async fn open<'k>(&self, kept: &'k mut Kept) -> Result<&'k Open, ChannelError> {
        if kept.open.is_none() {
            let connected = self.connector.connect(self.address, kept.expected).await?;
            let service: ServiceId = connected.service.service_id();
            kept.expected = ExpectedService::Pinned(service);
            kept.open = Some(Open {
                channel: connected.channel,
                service: connected.service,
                claims: connected.claims,
            });
        }
        kept.open.as_ref().ok_or(ChannelError::Task)
    }
}
