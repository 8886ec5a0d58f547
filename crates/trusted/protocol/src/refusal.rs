//! Why a request is refused: one list of reasons for the whole system.
//!
//! A refusal travels in the clear where no key is at hand to seal it, so its message never says more than its code does.

use minicbor::{Decode, Encode};

/// The reason, stable over versions; programs act on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalCode {
    /// The message is not of the expected form.
    #[n(1)]
    Malformed,
    /// A signature does not verify, or a ciphertext does not open.
    #[n(2)]
    NotAuthentic,
    /// The principal never registered.
    #[n(3)]
    UnknownPrincipal,
    /// The model or this version of it is not registered.
    #[n(4)]
    UnknownModel,
    /// The owner did not grant this user the model on this code identity.
    #[n(5)]
    NotGranted,
    /// The user registered no request key for this model and code identity.
    #[n(6)]
    NoRequestKey,
    /// The caller's evidence does not make it an enclave that may ask this.
    #[n(7)]
    NotAttested,
    /// The command was already carried out, or its sequence is not above the last one.
    #[n(8)]
    Replayed,
    /// What the command would create exists already and cannot change.
    #[n(9)]
    AlreadyExists,
    /// The caller has seen a newer state than this service has: the service was rolled back or forked.
    #[n(10)]
    StaleState,
    /// The message is for another service.
    #[n(11)]
    WrongService,
    /// The model package could not be fetched or opened.
    #[n(12)]
    ModelUnavailable,
    /// The input tensors do not fit the model.
    #[n(13)]
    InvalidInput,
    /// The engine could not run the model on this input.
    #[n(14)]
    EngineFailed,
    /// No place or no time is left; the request may be sent again.
    #[n(15)]
    Busy,
    /// The deadline passed.
    #[n(16)]
    DeadlineExceeded,
    /// KeyService cannot be reached or its evidence was refused.
    #[n(17)]
    KeyServiceUnavailable,
    /// A fault of the service itself.
    #[n(18)]
    Internal,
    /// The principal may not do or see this: it is neither the owner nor has a role that allows it.
    #[n(19)]
    NotPermitted,
    /// What the command would change or end is not there.
    #[n(20)]
    NotFound,
    /// There are too many of these already.
    #[n(21)]
    TooMany,
    /// KeyService cannot write its state; nothing was carried out.
    #[n(22)]
    Unwritable,
    /// KeyService cannot open its state; custodians must hand in recovery shares.
    #[n(23)]
    Locked,
    /// KeyService was handed over to a successor.
    #[n(24)]
    HandedOver,
    /// The caller's clock and the service's are too far apart.
    #[n(25)]
    ClockSkew,
    /// A delegate may not grant in this code: the owner did not approve it for the delegation.
    #[n(26)]
    CodeNotDelegated,
}

impl RefusalCode {
    /// The code as programs see it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotAuthentic => "not_authentic",
            Self::UnknownPrincipal => "unknown_principal",
            Self::UnknownModel => "unknown_model",
            Self::NotGranted => "not_granted",
            Self::NoRequestKey => "no_request_key",
            Self::NotAttested => "not_attested",
            Self::Replayed => "replayed",
            Self::AlreadyExists => "already_exists",
            Self::StaleState => "stale_state",
            Self::WrongService => "wrong_service",
            Self::ModelUnavailable => "model_unavailable",
            Self::InvalidInput => "invalid_input",
            Self::EngineFailed => "engine_failed",
            Self::Busy => "busy",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::KeyServiceUnavailable => "keyservice_unavailable",
            Self::Internal => "internal",
            Self::NotPermitted => "not_permitted",
            Self::NotFound => "not_found",
            Self::TooMany => "too_many",
            Self::Unwritable => "unwritable",
            Self::Locked => "locked",
            Self::HandedOver => "handed_over",
            Self::ClockSkew => "clock_skew",
            Self::CodeNotDelegated => "code_not_delegated",
        }
    }

    /// One sentence that says what happened and what to do about it.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Malformed => "the message is malformed; use a current client",
            Self::NotAuthentic => {
                "the message is not authentic: it was changed on the way, or made with another key"
            }
            Self::UnknownPrincipal => {
                "the principal is not registered at this KeyService; it must register first"
            }
            Self::UnknownModel => {
                "this model version is not registered; check owner, name and version"
            }
            Self::NotGranted => {
                "the model's owner has not granted this user the model on this code identity"
            }
            Self::NoRequestKey => {
                "the user has registered no request key for this model on this code identity"
            }
            Self::NotAttested => "only an attested enclave may ask for keys",
            Self::Replayed => "the command's sequence is not above the last one that was accepted",
            Self::AlreadyExists => {
                "it exists already and cannot change; use a new version or epoch"
            }
            Self::StaleState => {
                "KeyService is behind a state that the caller has seen: it was rolled back or forked"
            }
            Self::WrongService => "the message is addressed to another KeyService",
            Self::ModelUnavailable => "the model package could not be fetched or opened",
            Self::InvalidInput => "the input tensors do not fit the model",
            Self::EngineFailed => "the engine could not run the model on this input",
            Self::Busy => "the service has no free place; try again later",
            Self::DeadlineExceeded => "the deadline passed before the answer was ready",
            Self::KeyServiceUnavailable => {
                "KeyService cannot be reached, or its evidence was refused"
            }
            Self::Internal => "the service has an internal fault; its log says more",
            Self::NotPermitted => {
                "only the owner, or somebody with a role that allows it, may do or see this"
            }
            Self::NotFound => "what the command names is not there",
            Self::TooMany => "there are too many of these already; end some first",
            Self::Unwritable => {
                "KeyService cannot write its state, so nothing was carried out; its operator must see to the disk"
            }
            Self::Locked => {
                "KeyService cannot open its state; its custodians must hand in their shares (sesemi keyservice recover)"
            }
            Self::HandedOver => {
                "this KeyService was handed over to its successor; connect to that one"
            }
            Self::ClockSkew => {
                "this clock and KeyService's are more than ten minutes apart; set the one that is wrong"
            }
            Self::CodeNotDelegated => {
                "the owner lets this delegate grant in other code only; grant in code of the delegation, or let the owner delegate this code too"
            }
        }
    }
}

impl core::fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: the code, and detail for the party that may see it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(map)]
#[error("{}{}{detail}", code.sentence(), if detail.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// The reason.
    #[n(0)]
    pub code: RefusalCode,
    /// More for people; may be empty. At most [`crate::limits::MAX_REFUSAL_MESSAGE`] bytes.
    #[n(1)]
    pub detail: String,
}

impl Refusal {
    /// A refusal with detail, which is cut to the limit.
    #[must_use]
    pub fn new(code: RefusalCode, detail: impl core::fmt::Display) -> Self {
        let mut text = detail.to_string();
        let mut end = crate::limits::MAX_REFUSAL_MESSAGE.min(text.len());
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
        Self { code, detail: text }
    }
}

impl From<RefusalCode> for Refusal {
    fn from(code: RefusalCode) -> Self {
        Self {
            code,
            detail: String::new(),
        }
    }
}
