//! What is recorded of a call: which one, who asked, how it ended. The call's content is not looked at.
//!
//! Each call is a trace of its own. A caller's context is not in the protocol: the host chooses it, and an enclave's calls are for
//! many requests at once.

use sesemi_attest::channel::Peer;
use sesemi_protocol::RefusalCode;
use sesemi_protocol::release::ReleaseOutcome;
use sesemi_protocol::wire::{CallBody, ReplyBody};
use sesemi_traces::{Key, Kind, Outcome, Span};

/// A call that is being answered.
pub(crate) struct CallSpan(Span);

impl CallSpan {
    pub(crate) fn begin(peer: &Peer, call: &CallBody) -> Self {
        let method = match call {
            CallBody::Status { .. } => "status",
            CallBody::Release(_) => "release",
            CallBody::Submit { .. } => "command",
            CallBody::Query(_) => "question",
            CallBody::Unlock(_) => "unlock",
            CallBody::HandOver { .. } => "hand_over",
            CallBody::Retire { .. } => "retire",
        };
        let mut span = Span::root(method, Kind::Server);
        span.set(Key::RpcSystem, "sesemi");
        span.set(Key::RpcMethod, method);
        span.set(
            Key::Peer,
            match peer {
                Peer::Enclave(_) => "enclave",
                Peer::Principal => "principal",
            },
        );
        if let CallBody::Release(requests) = call {
            span.set(Key::Asked, requests.len());
        }
        Self(span)
    }

    /// Records how it ended; nothing of a call that was refused as one too many, of which a caller can make as many as it likes.
    pub(crate) fn end(mut self, reply: &ReplyBody) {
        let outcome = match reply {
            ReplyBody::Refused(refusal) if refusal.code == RefusalCode::Busy => {
                return self.0.discard();
            }
            ReplyBody::Refused(refusal) => of(refusal.code),
            ReplyBody::SequenceBehind(_) => Outcome::Refused(RefusalCode::Replayed.as_str()),
            ReplyBody::Locked(_) => Outcome::Refused(RefusalCode::Locked.as_str()),
            ReplyBody::Released(outcomes) => {
                let refused = |it: &&ReleaseOutcome| matches!(it, ReleaseOutcome::Refused(_));
                self.0
                    .set(Key::Refused, outcomes.iter().filter(refused).count());
                Outcome::Done
            }
            _ => Outcome::Done,
        };
        self.0.end(outcome);
    }
}

/// A refusal is the caller's affair, unless it is this service's own trouble.
fn of(code: RefusalCode) -> Outcome {
    match code {
        RefusalCode::Internal | RefusalCode::Unwritable => Outcome::Failed(code.as_str()),
        _ => Outcome::Refused(code.as_str()),
    }
}
