//! What principals tell KeyService: signed, addressed to one service, numbered against replay.
//!
//! The signed bytes are what KeyService stores and what its receipt names, so a dispute can be settled from them alone.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::sign1;
use crate::id::{PrincipalId, ServiceId};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::limits::MAX_SIGNED;
use crate::receipt::{Point, SignedError};

mod action;
mod delegation;

pub use action::{Action, ActionError, GrantedVersions, KeyScope, Subject};
pub use delegation::{Delegation, Role};

const LABEL: &str = "sesemi/v1/command";

/// A command of one principal to one service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Command {
    /// The service it is for; any other refuses it.
    #[n(0)]
    pub service: ServiceId,
    /// Above that of every earlier command of this principal.
    #[n(1)]
    pub sequence: u64,
    /// The newest point of the service's log that the signer has seen. A service that does not agree was rolled back or
    /// forked, and refuses.
    #[n(2)]
    pub seen: Point,
    /// What to do.
    #[n(3)]
    pub action: Action,
}

impl Command {
    /// Signs the command.
    ///
    /// # Errors
    /// [`SignedError`] if it is above the limits.
    pub fn sign(&self, principal: &SigningIdentity) -> Result<Vec<u8>, SignedError> {
        self.action.check()?;
        Ok(sign1::sign(principal, LABEL, &cbor::encode(self)?)?)
    }
}

/// A command whose form is checked, before its signature is.
#[derive(Debug)]
pub struct UnverifiedCommand<'a> {
    message: sign1::Unverified<'a>,
}

/// Checks the form of a signed command.
///
/// # Errors
/// [`SignedError`] if it is not one.
pub fn parse(bytes: &[u8]) -> Result<UnverifiedCommand<'_>, SignedError> {
    Ok(UnverifiedCommand {
        message: sign1::parse(bytes)?,
    })
}

impl UnverifiedCommand<'_> {
    /// Who claims to have signed it.
    #[must_use]
    pub fn claimed_principal(&self) -> PrincipalId {
        PrincipalId(self.message.claimed_signer())
    }

    /// The signed payload as it came: good for showing, not for believing.
    #[must_use]
    pub fn unverified_payload(&self) -> &[u8] {
        self.message.unverified_payload()
    }

    /// Verifies the signature with the key that the service has on record.
    ///
    /// # Errors
    /// [`SignedError`] if it is not authentic or not well-formed.
    pub fn verify(&self, principal: &PublicIdentity) -> Result<Command, SignedError> {
        let payload = self.message.verify(principal, LABEL)?;
        let command: Command = cbor::decode(payload, MAX_SIGNED)?;
        command.action.check()?;
        Ok(command)
    }

    /// For a signer that is not on record: if this is a registration, verifies it with the key that it introduces.
    ///
    /// # Errors
    /// [`SignedError::UnknownSigner`] for any other command.
    pub fn verify_registration(&self) -> Result<(PublicIdentity, Command), SignedError> {
        let command: Command = cbor::decode(self.message.unverified_payload(), MAX_SIGNED)?;
        let Action::Register { public_key } = command.action else {
            return Err(SignedError::UnknownSigner);
        };
        let identity = PublicIdentity::from_key(public_key);
        let verified = self.verify(&identity)?;
        Ok((identity, verified))
    }
}

#[cfg(test)]
mod tests;
