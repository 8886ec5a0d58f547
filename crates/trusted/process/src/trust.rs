//! Whose evidence this process believes, as settings.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use sesemi_attest::{Endorsements, EvidenceVerifier, TrustAnchor, VerifyError};

use crate::settings::SettingsError;

/// The settings for verifying evidence.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TrustSettings {
    /// Root certificate (DER) of a simulated platform. Without it, Intel's production root is the only one trusted.
    #[arg(long, env = "SESEMI_SIMULATED_ROOT", value_name = "FILE")]
    pub simulated_root: Option<PathBuf>,
    /// What the TEE's maker publishes about its platforms (DCAP collateral), as JSON.
    #[arg(long, env = "SESEMI_ENDORSEMENTS", value_name = "FILE")]
    pub endorsements: Option<PathBuf>,
}

/// Why no verifier can be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A setting is missing.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file cannot be read.
    #[error("cannot read {what} {path}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} cannot be used")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifyError,
    },
    /// The built-in root cannot be used.
    #[error(transparent)]
    BuiltIn(#[from] VerifyError),
}

impl TrustSettings {
    /// These settings, with `other` for whatever is unset.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            simulated_root: self.simulated_root.or(other.simulated_root),
            endorsements: self.endorsements.or(other.endorsements),
        }
    }

    /// Makes the verifier.
    ///
    /// # Errors
    /// [`TrustError`], which names the file.
    pub fn verifier(&self) -> Result<EvidenceVerifier, TrustError> {
        let anchor = match &self.simulated_root {
            None => TrustAnchor::intel()?,
            Some(path) => {
                TrustAnchor::simulated(read("the simulated root", path)?).map_err(content(path))?
            }
        };
        let path = self
            .endorsements
            .as_deref()
            .ok_or(SettingsError::Missing("endorsements"))?;
        let endorsements =
            Endorsements::from_json(&read("the endorsements", path)?).map_err(content(path))?;
        Ok(EvidenceVerifier::new(anchor, endorsements))
    }
}

fn content(path: &Path) -> impl FnOnce(VerifyError) -> TrustError {
    let path = path.to_owned();
    move |source| TrustError::Content { path, source }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, TrustError> {
    let failed = |source| TrustError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > sesemi_attest::verifier::MAX_ENDORSEMENTS as u64 {
        return Err(failed(std::io::Error::other("the file is far too long")));
    }
    std::fs::read(path).map_err(failed)
}
