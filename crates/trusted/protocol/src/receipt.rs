//! How KeyService acknowledges a change: with a receipt signed by its identity key.
//!
//! A receipt names the state after the change: position in the service's log and digest of the log's chain. Whoever holds
//! it can tell later that the service was rolled back or forked.

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::command::ActionError;
use crate::cose::{CoseError, sign1};
use crate::id::{Digest, PrincipalId, ServiceId};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::limits::MAX_SIGNED;

const LABEL: &str = "sesemi/v1/receipt";

const HEAD_LABEL: &str = "sesemi/v1/head";

/// A point of a log. Two logs that share one are the same up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Point {
    /// How many entries there are up to it.
    #[n(0)]
    pub sequence: u64,
    /// Digest of the chain after the last of them; all zero before the first.
    #[n(1)]
    pub chain: Digest,
}

impl Point {
    /// Before the first entry: where every log begins, and what somebody has seen who saw nothing yet.
    pub const START: Self = Self {
        sequence: 0,
        chain: Digest([0; 32]),
    };
}

/// A point of one KeyService's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct StatePoint {
    /// Which service.
    #[n(0)]
    pub service: ServiceId,
    /// Where in its log.
    #[n(1)]
    pub point: Point,
}

/// The end of a service's log at one time, as the service signs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// The end of the log.
    #[n(0)]
    pub state: StatePoint,
    /// The service's time, in seconds since 1970.
    #[n(1)]
    pub at: u64,
}

impl Head {
    /// Signs the head.
    ///
    /// # Errors
    /// [`SignedError`] only if a limit were too small for it.
    pub fn sign(&self, service: &SigningIdentity) -> Result<Vec<u8>, SignedError> {
        Ok(sign1::sign(service, HEAD_LABEL, &cbor::encode(self)?)?)
    }

    /// Verifies that `service` signed this head of its own log.
    ///
    /// # Errors
    /// [`SignedError`].
    pub fn verify(bytes: &[u8], service: &PublicIdentity) -> Result<Self, SignedError> {
        let payload = sign1::parse(bytes)?.verify(service, HEAD_LABEL)?;
        let head: Self = cbor::decode(payload, MAX_SIGNED)?;
        if head.state.service != service.service_id() {
            return Err(SignedError::WrongParty("head names another service"));
        }
        Ok(head)
    }
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// The log with the command as its last entry.
    #[n(0)]
    pub state: StatePoint,
    /// Who asked for the change.
    #[n(1)]
    pub principal: PrincipalId,
    /// SHA-256 of the signed command.
    #[n(2)]
    pub command: Digest,
}

/// Why a receipt or a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// The COSE message is malformed or not authentic.
    #[error(transparent)]
    Cose(#[from] CoseError),
    /// The signed content is not of the expected form.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// It is signed by, or meant for, somebody else.
    #[error("the message is from or for another party: {0}")]
    WrongParty(&'static str),
    /// The signer is not on record, and this is no registration.
    #[error("the signer is not registered")]
    UnknownSigner,
    /// The command asks for something that makes no sense.
    #[error(transparent)]
    Action(#[from] ActionError),
}

impl Receipt {
    /// Signs the receipt.
    ///
    /// # Errors
    /// [`SignedError`] only if a limit were too small for it.
    pub fn sign(&self, service: &SigningIdentity) -> Result<Vec<u8>, SignedError> {
        Ok(sign1::sign(service, LABEL, &cbor::encode(self)?)?)
    }

    /// Verifies that `service` signed this receipt for exactly this command.
    ///
    /// # Errors
    /// [`SignedError::Cose`] if not authentic, [`SignedError::WrongParty`] if it is for another command.
    pub fn verify(
        bytes: &[u8],
        service: &PublicIdentity,
        command: &[u8],
    ) -> Result<Self, SignedError> {
        let payload = sign1::parse(bytes)?.verify(service, LABEL)?;
        let receipt: Self = cbor::decode(payload, MAX_SIGNED)?;
        if receipt.state.service != service.service_id() {
            return Err(SignedError::WrongParty("receipt names another service"));
        }
        if receipt.command != Digest::of(command) {
            return Err(SignedError::WrongParty("receipt is for another command"));
        }
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SecretKey;

    #[test]
    fn a_receipt_is_for_one_command_of_one_service() {
        let service = SigningIdentity::from_seed(SecretKey::from_bytes([1; 32])).unwrap();
        let other = SigningIdentity::from_seed(SecretKey::from_bytes([2; 32])).unwrap();
        let receipt = Receipt {
            state: StatePoint {
                service: service.public().service_id(),
                point: Point {
                    sequence: 3,
                    chain: Digest([1; 32]),
                },
            },
            principal: PrincipalId([2; 32]),
            command: Digest::of(b"command"),
        };
        let bytes = receipt.sign(&service).unwrap();
        assert_eq!(
            Receipt::verify(&bytes, service.public(), b"command").unwrap(),
            receipt
        );
        assert!(Receipt::verify(&bytes, service.public(), b"other").is_err());
        assert!(Receipt::verify(&bytes, other.public(), b"command").is_err());
        // Another service cannot speak in this one's name either.
        let forged = receipt.sign(&other).unwrap();
        assert!(Receipt::verify(&forged, other.public(), b"command").is_err());
    }

    #[test]
    fn a_head_is_of_one_service_and_no_receipt_passes_for_one() {
        let service = SigningIdentity::from_seed(SecretKey::from_bytes([1; 32])).unwrap();
        let other = SigningIdentity::from_seed(SecretKey::from_bytes([2; 32])).unwrap();
        let head = Head {
            state: StatePoint {
                service: service.public().service_id(),
                point: Point::START,
            },
            at: 5,
        };
        let bytes = head.sign(&service).unwrap();
        assert_eq!(Head::verify(&bytes, service.public()).unwrap(), head);
        assert!(Head::verify(&bytes, other.public()).is_err());
        assert!(Head::verify(&head.sign(&other).unwrap(), other.public()).is_err());
        let receipt = Receipt {
            state: head.state,
            principal: PrincipalId([2; 32]),
            command: Digest::of(b"command"),
        };
        assert!(Head::verify(&receipt.sign(&service).unwrap(), service.public()).is_err());
    }
}
