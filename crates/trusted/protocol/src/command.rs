//! What principals tell KeyService: signed, addressed to one service, numbered against replay.
//!
//! The signed bytes are what KeyService stores and what its receipt names, so a dispute can be settled from them alone.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::sign1;
use crate::id::{
    CodeIdentityDigest, Digest, ModelName, ModelRef, ModelVersion, PrincipalId, ServiceId,
};
use crate::identity::{PublicIdentity, SigningIdentity};
use crate::limits::{MAX_APPROVED_IDENTITIES, MAX_SIGNED};
use crate::receipt::SignedError;
use crate::secret::SecretKey;

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
    /// What to do.
    #[n(2)]
    pub action: Action,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Action {
    /// Makes the signer known. The only command whose signer the service does not know yet, so it brings its key along.
    #[n(0)]
    Register {
        /// The signer's Ed25519 public key.
        #[cbor(n(0), with = "minicbor::bytes")]
        public_key: [u8; 32],
    },
    /// An owner registers a new version of a model with its key. A version never changes afterwards.
    #[n(1)]
    PutModelKey {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The version.
        #[n(1)]
        version: ModelVersion,
        /// The key of this version's package.
        #[n(2)]
        key: SecretKey,
        /// Digest of the manifest inside the package, so that no other package can stand for this version.
        #[n(3)]
        manifest: Digest,
    },
    /// An owner lets a user use a model version in an enclave with this code identity.
    #[n(2)]
    Grant {
        /// The model, in the signer's namespace.
        #[n(0)]
        name: ModelName,
        /// The version.
        #[n(1)]
        version: ModelVersion,
        /// Who may use it.
        #[n(2)]
        user: PrincipalId,
        /// In which code.
        #[n(3)]
        code: CodeIdentityDigest,
    },
    /// A user deposits the key that its requests for a model version are sealed with. Depositing the same key again sets
    /// the approved code anew; another key needs another epoch.
    #[n(3)]
    PutRequestKey {
        /// The model version.
        #[n(0)]
        model: ModelRef,
        /// Number of this key among the user's keys for the model; requests name it.
        #[n(1)]
        epoch: u32,
        /// The key.
        #[n(2)]
        key: SecretKey,
        /// The code that may open the user's requests: at least one.
        #[n(3)]
        codes: Vec<CodeIdentityDigest>,
    },
}

impl Command {
    /// Signs the command.
    ///
    /// # Errors
    /// [`SignedError`] if it is above the limits.
    pub fn sign(&self, principal: &SigningIdentity) -> Result<Vec<u8>, SignedError> {
        check_codes(&self.action)?;
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

    /// Verifies the signature with the key that the service has on record.
    ///
    /// # Errors
    /// [`SignedError`] if it is not authentic or not well-formed.
    pub fn verify(&self, principal: &PublicIdentity) -> Result<Command, SignedError> {
        let payload = self.message.verify(principal, LABEL)?;
        let command: Command = cbor::decode(payload, MAX_SIGNED)?;
        check_codes(&command.action)?;
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

/// An approval of no code at all, or of very much, is a mistake.
fn check_codes(action: &Action) -> Result<(), SignedError> {
    match action {
        Action::PutRequestKey { codes, .. }
            if codes.is_empty() || codes.len() > MAX_APPROVED_IDENTITIES =>
        {
            Err(SignedError::Approvals)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u8) -> SigningIdentity {
        SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap()
    }

    fn grant() -> Command {
        Command {
            service: ServiceId([1; 32]),
            sequence: 2,
            action: Action::Grant {
                name: ModelName::new("m").unwrap(),
                version: ModelVersion::new(1).unwrap(),
                user: PrincipalId([3; 32]),
                code: CodeIdentityDigest([4; 32]),
            },
        }
    }

    #[test]
    fn a_command_reads_back_as_signed() {
        let bytes = grant().sign(&identity(1)).unwrap();
        let parsed = parse(&bytes).unwrap();
        assert_eq!(
            parsed.claimed_principal(),
            identity(1).public().principal_id()
        );
        assert_eq!(parsed.verify(identity(1).public()).unwrap(), grant());
        assert!(parsed.verify(identity(2).public()).is_err());
    }

    #[test]
    fn only_a_registration_brings_its_own_key() {
        let bytes = grant().sign(&identity(1)).unwrap();
        assert!(parse(&bytes).unwrap().verify_registration().is_err());

        let registration = |signer: u8, key: u8| {
            let command = Command {
                action: Action::Register {
                    public_key: *identity(key).public().key(),
                },
                ..grant()
            };
            let bytes = command.sign(&identity(signer)).unwrap();
            parse(&bytes)
                .unwrap()
                .verify_registration()
                .map(|(who, _)| who)
        };
        assert_eq!(registration(1, 1).unwrap(), *identity(1).public());
        assert!(
            registration(1, 2).is_err(),
            "registering somebody else's key"
        );
    }

    #[test]
    fn a_request_key_approved_for_no_code_is_refused() {
        let command = Command {
            action: Action::PutRequestKey {
                model: ModelRef::new(
                    PrincipalId([1; 32]),
                    ModelName::new("m").unwrap(),
                    ModelVersion::new(1).unwrap(),
                ),
                epoch: 1,
                key: SecretKey::from_bytes([1; 32]),
                codes: vec![],
            },
            ..grant()
        };
        assert!(command.sign(&identity(1)).is_err());
    }
}
