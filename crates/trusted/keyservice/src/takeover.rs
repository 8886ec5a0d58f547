//! Taking over from a predecessor: the successor's side of [`crate::service::handover`].

use std::net::SocketAddr;
use std::time::Duration;

use sesemi_attest::channel::{ChannelError, Connector, ExpectedService};
use sesemi_attest::session::KeyServiceSession;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_protocol::{Digest, Entropy, Refusal};

use crate::start::Setup;
use crate::unlock::{UnlockError, Unlocked};

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Why nothing was taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// The predecessor cannot be reached, or is not what it should be.
    #[error("the predecessor cannot be reached, or is not the code that was named")]
    Channel(#[from] ChannelError),
    /// It refuses.
    #[error("the predecessor does not hand over: {0}")]
    Refused(Refusal),
    /// It answers something else.
    #[error("the predecessor answered something else than was asked")]
    Protocol,
    /// The key cannot be kept.
    #[error(transparent)]
    Unlock(#[from] UnlockError),
}

/// Gets the state key from the predecessor at `address`, keeps it, and has the predecessor end the log.
///
/// # Errors
/// [`TakeOverError`]. If it fails before the predecessor has ended the log, the predecessor goes on.
pub async fn take_over(
    setup: &Setup,
    connector: Connector,
    address: SocketAddr,
    entropy: &dyn Entropy,
) -> Result<(Unlocked, Point), TakeOverError> {
    let policy: Digest = setup.policy;
    let session = KeyServiceSession::new(connector, address, ExpectedService::FirstContact);
    let named = session.service().await?.identity.service_id();
    let unlocked = match session.call(CallBody::HandOver { policy }, ANSWER).await? {
        ReplyBody::HandOver { service, key } if service == named => Unlocked {
            service,
            state_key: key,
        },
        ReplyBody::Refused(refusal) => return Err(TakeOverError::Refused(refusal)),
        _ => return Err(TakeOverError::Protocol),
    };
    // Before the predecessor stops: a crash from here on leaves this code able to open what the predecessor leaves.
    setup.keep_key(&unlocked, entropy)?;
    match session.call(CallBody::Retire { policy }, ANSWER).await? {
        ReplyBody::Retired(end) => Ok((unlocked, end)),
        ReplyBody::Refused(refusal) => Err(TakeOverError::Refused(refusal)),
        _ => Err(TakeOverError::Protocol),
    }
}
