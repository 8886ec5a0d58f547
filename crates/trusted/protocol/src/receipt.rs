//! How KeyService acknowledges a change: with a receipt signed by its identity key.
//!
//! A receipt names the state after the change: position in the service's log and digest of the log's chain. Whoever holds
//! it can tell later that the service was rolled back or forked.

use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::cose::{CoseError, sign1};
use crate::id::{Digest, PrincipalId, ServiceId};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::limits::MAX_SIGNED;

const LABEL: &str = "sesemi/v1/receipt";

/// A state of one KeyService: how far its log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StatePoint {
    /// Which service.
    #[n(0)]
    pub service: ServiceId,
    /// How many entries its log has.
    #[n(1)]
    pub sequence: u64,
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Receipt {
    /// The state after the change.
    #[n(0)]
    pub state: StatePoint,
    /// Digest of the log's chain up to and with this entry.
    #[n(1)]
    pub chain: Digest,
    /// Who asked for the change.
    #[n(2)]
    pub principal: PrincipalId,
    /// SHA-256 of the signed command.
    #[n(3)]
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
    /// A key that is approved for no code, or for very much, is a mistake.
    #[error("a request key is approved for 1 to 64 code identities")]
    Approvals,
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
                sequence: 3,
            },
            chain: Digest([1; 32]),
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
}
