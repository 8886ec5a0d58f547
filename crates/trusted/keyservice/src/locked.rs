//! A service that cannot open its state by itself: on another machine, as other code, after new microcode, or in a TEE that
//! cannot seal. It waits for custodians' shares, and does nothing else.
//!
//! It has no identity yet, so it proves none: custodians see by its evidence that it is code that they approve, and which
//! service's shares it asks for. That is enough, because shares are good for that service's state only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use sesemi_attest::channel::Peer;
use sesemi_protocol::share::Share;
use sesemi_protocol::wire::{CallBody, LockedStatus, ReplyBody};
use sesemi_protocol::{Refusal, RefusalCode};
use tokio::sync::watch;

use crate::unlock::{Recovery, Unlocked};

/// A service that waits for shares.
#[derive(Debug)]
pub struct LockedService {
    recovery: Recovery,
    received: Mutex<Received>,
    unlocked: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Received {
    shares: BTreeMap<u8, Share>,
    opened: Option<Unlocked>,
}

impl LockedService {
    /// Waits for the shares that open `recovery`.
    #[must_use]
    pub fn new(recovery: Recovery) -> Self {
        Self {
            recovery,
            received: Mutex::default(),
            unlocked: watch::channel(false).0,
        }
    }

    /// Turns true once enough shares are there.
    #[must_use]
    pub fn unlocked(&self) -> watch::Receiver<bool> {
        self.unlocked.subscribe()
    }

    /// The state key, and the places of the shares that opened it; once.
    #[must_use]
    pub fn take(&self) -> Option<(Unlocked, Vec<u8>)> {
        let mut received = self.lock();
        let unlocked = received.opened.take()?;
        let shares = core::mem::take(&mut received.shares);
        Some((unlocked, shares.into_keys().collect()))
    }

    /// Answers one call.
    #[must_use]
    pub fn answer(&self, peer: &Peer, call: CallBody) -> ReplyBody {
        match (peer, call) {
            (_, CallBody::Status { .. }) => ReplyBody::Locked(self.status(&self.lock())),
            (Peer::Principal, CallBody::Unlock(share)) => self.hand_in(share),
            _ => ReplyBody::Refused(RefusalCode::Locked.into()),
        }
    }

    fn hand_in(&self, share: Share) -> ReplyBody {
        if let Err(error) = self.recovery.check(&share) {
            tracing::warn!(%error, "a share was refused");
            return ReplyBody::Refused(Refusal::new(RefusalCode::NotAuthentic, error));
        }
        let mut received = self.lock();
        let index = share.index();
        received.shares.insert(index, share);
        let status = self.status(&received);
        tracing::warn!(
            index,
            received = status.received,
            threshold = status.threshold,
            "a custodian handed in a share"
        );
        if received.opened.is_none() && status.received >= status.threshold {
            let shares: Vec<Share> = received.shares.values().cloned().collect();
            match self.recovery.open(&shares) {
                Ok(unlocked) => {
                    received.opened = Some(unlocked);
                    self.unlocked.send_replace(true);
                }
                Err(error) => {
                    tracing::error!(%error, "enough shares, but the state does not open");
                    received.shares.clear();
                    return ReplyBody::Refused(Refusal::new(RefusalCode::NotAuthentic, error));
                }
            }
        }
        ReplyBody::Locked(status)
    }

    fn status(&self, received: &Received) -> LockedStatus {
        LockedStatus {
            service: self.recovery.service(),
            threshold: self.recovery.scheme().threshold(),
            received: u8::try_from(received.shares.len()).unwrap_or(u8::MAX),
        }
    }

    /// What is behind the lock is whole after every line.
    fn lock(&self) -> std::sync::MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
