//! Messages on an attested channel to KeyService: numbered requests, and answers that carry the number of what they answer.
//!
//! Each message is one deterministic CBOR value; the channel delimits them. Numbers let a client have several requests under
//! way on one connection.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::refusal::Refusal;
use crate::release::{Lease, ReleaseRequest};

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
    Submit(#[n(0)] ByteVec),
    /// Release keys to the calling enclave.
    #[n(1)]
    Release(#[n(0)] ReleaseRequest),
    /// Say how far the log goes.
    #[n(2)]
    State,
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
    /// The keys.
    #[n(1)]
    Lease(#[n(0)] Box<Lease>),
    /// How many entries the log has.
    #[n(2)]
    State(#[n(0)] u64),
    /// It was refused, and nothing changed.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// The command's sequence is not above this one, the last that the service accepted from its signer.
    #[n(4)]
    SequenceBehind(#[n(0)] u64),
}
