//! A principal's identity, and the keys that follow from it.
//!
//! Model keys and request keys are derived from the identity's seed with HKDF: one for each version of a model, and one for each
//! scope and epoch. So the one file that holds the seed is all that a principal has to keep.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sesemi_protocol::command::KeyScope;
use sesemi_protocol::kdf::{DeriveError, derive};
use sesemi_protocol::{
    ModelRef, PrincipalId, SecretKey, SigningIdentity, SystemEntropy, identity::IdentityError,
};

/// First line of an identity file.
const HEADER: &str = "sesemi-identity-v1";

/// A principal's private identity.
#[derive(Debug)]
pub struct Identity(SigningIdentity);

/// Why an identity file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// It cannot be read or written.
    #[error("cannot use the identity file {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is a file of that name.
    #[error("{0} exists already; an identity is never overwritten, so choose another name")]
    Exists(PathBuf),
    /// Others may read it.
    #[error("the identity file {0} can be read by others; run: chmod 600 {0}")]
    Permissions(PathBuf),
    /// It holds something else.
    #[error("{0} is not an identity file; make one with `sesemi identity new`")]
    Content(PathBuf),
    /// No identity can be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Identity {
    /// A new identity.
    ///
    /// # Errors
    /// [`IdentityError`] without randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        SigningIdentity::generate(&SystemEntropy::new()).map(Self)
    }

    /// The principal's id.
    #[must_use]
    pub fn id(&self) -> PrincipalId {
        self.0.public().principal_id()
    }

    /// Writes the identity to a new file that only its owner may read.
    ///
    /// # Errors
    /// [`IdentityFileError::Io`]; an existing file is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), IdentityFileError> {
        let seed = self.0.seed().expose();
        let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| {
                file.write_all(format!("{HEADER}\n{hex}\n").as_bytes())?;
                file.sync_all()
            })
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::AlreadyExists => IdentityFileError::Exists(path.to_owned()),
                _ => IdentityFileError::Io {
                    path: path.to_owned(),
                    source,
                },
            })
    }

    /// Reads an identity file.
    ///
    /// # Errors
    /// [`IdentityFileError`], also if others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, IdentityFileError> {
        let failed = |source| IdentityFileError::Io {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(IdentityFileError::Permissions(path.to_owned()));
        }
        let mut text = String::new();
        file.take(1024).read_to_string(&mut text).map_err(failed)?;
        let seed = text
            .strip_prefix(HEADER)
            .and_then(|rest| rest.trim().parse::<PrincipalId>().ok())
            .ok_or_else(|| IdentityFileError::Content(path.to_owned()))?;
        Ok(Self(SigningIdentity::from_seed(SecretKey::from_bytes(
            seed.0,
        ))?))
    }

    /// Signs commands.
    pub(crate) fn signing(&self) -> &SigningIdentity {
        &self.0
    }

    /// The key for this principal's requests of a scope, in an epoch.
    pub(crate) fn request_key(
        &self,
        scope: &KeyScope,
        epoch: u32,
    ) -> Result<SecretKey, DeriveError> {
        let purpose = match scope {
            KeyScope::Model(model) => purpose("request-key", model),
            // No model's text form is a single word.
            KeyScope::AllModels => purpose("request-key", &"all"),
        };
        derive(self.0.seed().expose(), &epoch.to_be_bytes(), &purpose)
    }

    /// The key for the package of a model version that this principal owns.
    pub(crate) fn model_key(&self, model: &ModelRef) -> Result<SecretKey, DeriveError> {
        derive(self.0.seed().expose(), b"", &purpose("model-key", model))
    }
}

/// The text forms of models and their versions are unambiguous: they parse back to the same.
fn purpose(what: &str, model: &dyn std::fmt::Display) -> Vec<u8> {
    format!("sesemi/v1/{what}\n{model}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.identity");
        let identity = Identity::generate().unwrap();
        identity.save(&path).unwrap();
        assert_eq!(Identity::load(&path).unwrap().id(), identity.id());
        assert!(identity.save(&path).is_err(), "never overwritten");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.identity");
        Identity::generate().unwrap().save(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::load(&path).unwrap_err();
        assert!(matches!(error, IdentityFileError::Permissions(_)));
    }

    #[test]
    fn every_scope_and_epoch_and_every_model_version_has_a_key_of_its_own() {
        let identity = Identity::generate().unwrap();
        let model = |version: u32| -> ModelRef {
            format!("{}/m@{version}", identity.id()).parse().unwrap()
        };
        let scope = KeyScope::Model(model(1).model);
        let key = |scope: &KeyScope, epoch| identity.request_key(scope, epoch).unwrap();
        assert_eq!(key(&scope, 1), key(&scope, 1));
        assert_ne!(key(&scope, 1), key(&scope, 2));
        assert_ne!(key(&scope, 1), key(&KeyScope::AllModels, 1));
        let model_key = |version| identity.model_key(&model(version)).unwrap();
        assert_ne!(model_key(1), model_key(2));
        assert_ne!(key(&scope, 1), model_key(1));
    }
}
