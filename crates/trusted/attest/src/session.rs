//! Calls to KeyService on an attested channel that is kept open, and opened again when it died.
//!
//! A platform pauses idle instances, and a paused instance wakes up to dead connections and a clock that jumped. So a
//! connection that was not used for a while is not trusted to be alive, and one of some age is attested anew: a platform
//! that was revoked since must not live on in an old connection. A call that fails on a *kept* connection is tried once
//! more on a fresh one. That is safe for every call: releases change nothing, and a repeated command gets its old receipt.

use std::net::SocketAddr;
use std::time::Duration;

use sesemi_protocol::wire::{Call, CallBody, Reply, ReplyBody};
use sesemi_protocol::{PublicIdentity, ServiceId};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::channel::{Channel, ChannelError, Connector, ExpectedService};
use crate::verifier::Claims;

/// Age at which a connection is attested anew.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Idle time after which a connection is not trusted to be alive: opening one costs milliseconds, waiting for a dead one
/// seconds.
const MAX_IDLE: Duration = Duration::from_secs(60);

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
    age: Age,
}

/// When a connection was attested, and when it was last seen to be alive.
#[derive(Debug)]
struct Age {
    attested: Instant,
    alive: Instant,
}

impl Age {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            attested: now,
            alive: now,
        }
    }

    fn is_fresh(&self) -> bool {
        self.attested.elapsed() < MAX_AGE && self.alive.elapsed() < MAX_IDLE
    }
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

    /// Closes the line if it would not be used any more: the service keeps a place for it, which others may need.
    pub async fn close_stale(&self) {
        let mut kept = self.kept.lock().await;
        kept.open = kept.open.take().filter(|open| open.age.is_fresh());
    }

    /// Makes one call; `limit` bounds the wait for its answer, twice if a kept connection turns out to be dead.
    ///
    /// # Errors
    /// [`ChannelError`] if no answer came. Refusals are answers.
    pub async fn call(&self, body: CallBody, limit: Duration) -> Result<ReplyBody, ChannelError> {
        let mut kept = self.kept.lock().await;
        kept.open = kept.open.take().filter(|open| open.age.is_fresh());
        let was_open = kept.open.is_some();
        match self.attempt(&mut kept, body.clone(), limit).await {
            Err(ChannelError::Io(_) | ChannelError::TimedOut(_)) if was_open => {
                self.attempt(&mut kept, body, limit).await
            }
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
        open.age.alive = Instant::now();
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
                age: Age::new(),
            });
        }
        kept.open.as_ref().ok_or(ChannelError::Task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_used_while_it_is_alive_and_attested_anew_when_idle_or_old() {
        let pause = Duration::from_secs(50);
        let mut age = Age::new();
        assert!(age.is_fresh());
        tokio::time::advance(MAX_IDLE).await;
        assert!(
            !age.is_fresh(),
            "a paused instance does not trust its connection"
        );

        age = Age::new();
        for _ in 0..11 {
            tokio::time::advance(pause).await;
            assert!(age.is_fresh());
            age.alive = Instant::now();
        }
        tokio::time::advance(pause).await;
        assert!(!age.is_fresh(), "however busy, it is attested anew");
    }
}
