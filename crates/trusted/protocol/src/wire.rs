//! Messages on an attested channel to KeyService: numbered requests, and answers that carry the number of what they answer.
//!
//! Each message is one deterministic CBOR value; the channel delimits them. Numbers let a client have several requests under
//! way on one connection.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::id::{CodeIdentityDigest, Digest, PrincipalId, ServiceId};
use crate::query::QueryAnswer;
use crate::receipt::Point;
use crate::refusal::Refusal;
use crate::release::{ReleaseOutcome, ReleaseRequest};
use crate::secret::SecretKey;
use crate::share::Share;

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Call {
    /// Chosen by the client; the answer repeats it.
    #[n(0)]
    pub number: u64,
    /// What is asked.
    #[n(1)]
    pub body: CallBody,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CallBody {
    /// Carry out a signed command (see [`crate::command`]).
    #[n(0)]
    Submit {
        /// The signed command.
        #[n(0)]
        signed: ByteVec,
        /// The key that comes beside it; the command holds its SHA-256.
        #[n(1)]
        key: Option<SecretKey>,
    },
    /// Release keys to the calling enclave: 1 to [`MAX_RELEASES`](crate::limits::MAX_RELEASES) requests, answered one by one.
    #[n(1)]
    Release(#[n(0)] Vec<ReleaseRequest>),
    /// Say what the service is and how far its log goes.
    #[n(2)]
    Status {
        /// A point that the caller has seen.
        #[n(0)]
        seen: Point,
    },
    /// Answer a signed question (see [`crate::query`]).
    #[n(3)]
    Query(#[n(0)] ByteVec),
    /// A custodian hands its share to a service that cannot open its state by itself.
    #[n(4)]
    Unlock(#[n(0)] Share),
    /// An approved successor asks for the key to the state.
    #[n(5)]
    HandOver {
        /// Digest of the policy by which it will appraise enclaves.
        #[n(0)]
        policy: Digest,
    },
    /// The successor has kept the key: the service ends its log and stops.
    #[n(6)]
    Retire {
        /// Digest of the policy by which it will appraise enclaves.
        #[n(0)]
        policy: Digest,
    },
}

/// The service's message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reply {
    /// The number of the call that this answers.
    #[n(0)]
    pub number: u64,
    /// The answer.
    #[n(1)]
    pub body: ReplyBody,
}

/// The service's answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ReplyBody {
    /// The command is carried out and on disk: a signed receipt (see [`crate::receipt`]).
    #[n(0)]
    Receipt(#[n(0)] ByteVec),
    /// The answers to release requests, in their order.
    #[n(1)]
    Released(#[n(0)] Vec<ReleaseOutcome>),
    /// What the service is.
    #[n(2)]
    Status(#[n(0)] Box<ServiceStatus>),
    /// It was refused, and nothing changed.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// The command's sequence is not above this one, the last that the service accepted from its signer.
    #[n(4)]
    SequenceBehind(#[n(0)] u64),
    /// The answer to a question.
    #[n(5)]
    Answer(#[n(0)] Box<QueryAnswer>),
    /// The service's state is locked: custodians must hand in shares.
    #[n(6)]
    Locked(#[n(0)] LockedStatus),
    /// The key to the state, for an approved successor.
    #[n(7)]
    HandOver {
        /// The service.
        #[n(0)]
        service: ServiceId,
        /// The key.
        #[n(1)]
        key: SecretKey,
    },
    /// The log ended here, and the service stops.
    #[n(8)]
    Retired(#[n(0)] Point),
}

/// What a service is, and who governs it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ServiceStatus {
    /// The end of its log, signed (see [`Head`](crate::receipt::Head)).
    #[n(0)]
    pub head: ByteVec,
    /// The custodians, in the order of their shares; empty if none were named.
    #[n(1)]
    pub custodians: Vec<PrincipalId>,
    /// How many of them act together.
    #[n(2)]
    pub threshold: u8,
    /// Upgrades that some custodians approved.
    #[n(3)]
    pub upgrades: Vec<UpgradeStatus>,
}

/// An upgrade that custodians approved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UpgradeStatus {
    /// The successor's code.
    #[n(0)]
    pub code: CodeIdentityDigest,
    /// Digest of its policy.
    #[n(1)]
    pub policy: Digest,
    /// Who approved it.
    #[n(2)]
    pub approved_by: Vec<PrincipalId>,
}

/// What a locked service knows of itself. Nothing of it is proven before the state is open.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LockedStatus {
    /// Which service's state it is.
    #[n(0)]
    pub service: ServiceId,
    /// How many shares open it.
    #[n(1)]
    pub threshold: u8,
    /// How many were handed in, this one included.
    #[n(2)]
    pub received: u8,
}
