//! Handing the service over to other code, or to other demands on enclaves, that enough custodians approved.
//!
//! In two steps, so that a crash between them leaves one service that can run: first the successor gets the key to the
//! state and keeps it, sealed for itself; then this service writes its last entry and stops. A successor starts only on a log
//! that ends with that entry.

use sesemi_attest::channel::Peer;
use sesemi_protocol::wire::ReplyBody;
use sesemi_protocol::{CodeIdentityDigest, Digest, Refusal, RefusalCode};
use tokio::sync::oneshot;

use super::writer::{Denied, Work};
use super::{KeyService, read};

impl KeyService {
    /// The key to the state, for an approved successor: who it is says its verified evidence.
    pub(super) fn hand_over(&self, peer: &Peer, policy: Digest) -> ReplyBody {
        match self.successor(peer, policy) {
            Ok((code, _)) => {
                tracing::warn!(%code, "the key to the state goes to an approved successor");
                ReplyBody::HandOver {
                    service: self.id(),
                    key: read(&self.state_key).clone(),
                }
            }
            Err(refusal) => ReplyBody::Refused(refusal),
        }
    }

    /// Ends the log and has the service stop.
    pub(super) async fn retire(&self, peer: &Peer, policy: Digest) -> ReplyBody {
        let to = match self.successor(peer, policy) {
            Ok(to) => to,
            Err(refusal) => return ReplyBody::Refused(refusal),
        };
        let (answer, answered) = oneshot::channel();
        if self.work.try_send(Work::Retire { to, answer }).is_err() {
            return ReplyBody::Refused(RefusalCode::Busy.into());
        }
        match answered.await {
            Ok(Ok(point)) => {
                tracing::warn!(code = %to.0, "handed over; this service stops");
                self.retired.send_replace(true);
                ReplyBody::Retired(point)
            }
            Ok(Err(Denied::Refused(refusal))) => ReplyBody::Refused(refusal),
            Ok(Err(Denied::SequenceBehind(_))) | Err(_) => {
                ReplyBody::Refused(RefusalCode::Internal.into())
            }
        }
    }

    fn successor(
        &self,
        peer: &Peer,
        policy: Digest,
    ) -> Result<(CodeIdentityDigest, Digest), Refusal> {
        let Peer::Enclave(claims) = peer else {
            return Err(RefusalCode::NotAttested.into());
        };
        let build = (claims.code, policy);
        let state = read(&self.state);
        let governance = state.governance();
        if governance.successor() == Some(&build) || governance.is_approved(&build) {
            return Ok(build);
        }
        let detail = "not enough custodians approved this code with this policy";
        Err(Refusal::new(RefusalCode::NotPermitted, detail))
    }
}
