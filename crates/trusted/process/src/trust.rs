//! Whose evidence this process believes, as settings.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Deserialize;
use sesemi_attest::{
    AppraisalError, AppraisalPolicy, Endorsements, EvidenceVerifier, PolicyError, TrustAnchor,
    VerifyError,
};
use sesemi_protocol::CodeIdentityDigest;
use tokio::task::spawn_blocking;

use crate::settings::SettingsError;

/// How often the endorsements are looked at for changes.
const REFRESH: Duration = Duration::from_secs(30);
/// Most files of endorsements in a folder: each has at most a megabyte, and the memory of a TEE is small.
const MAX_FILES: usize = 32;
/// Most entries of that folder that are looked at.
const MAX_ENTRIES: usize = 4096;

/// The settings for verifying evidence.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TrustSettings {
    /// Root certificate (DER) of a simulated platform. Without it, only the production roots of Intel and AMD are trusted.
    #[arg(long, env = "SESEMI_SIMULATED_ROOT", value_name = "FILE")]
    pub simulated_root: Option<PathBuf>,
    /// What the TEEs' makers publish about their platforms (DCAP collateral, AMD revocation lists): a JSON file, or a folder of
    /// them. Read again whenever it changes.
    #[arg(long, env = "SESEMI_ENDORSEMENTS", value_name = "PATH")]
    pub endorsements: Option<PathBuf>,
    /// KeyService's appraisal policy (TOML): what it demands of the platforms of enclaves [default: the strictest].
    ///
    /// KeyService is bound to it until its custodians approve another, and its clients compare it. It never names code: owners and users approve that.
    #[arg(long, env = "SESEMI_POLICY", value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// What changes when endorsements change: files, their sizes and times.
type Stamp = Vec<(PathBuf, u64, Option<SystemTime>)>;

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
    /// A policy file has a mistake.
    #[error("{path} cannot be used")]
    Policy {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: PolicyError,
    },
    /// A service's policy that names code.
    #[error(
        "{0} names code, which KeyService's policy does not: owners and users approve it for each key; write code = \"per-release\""
    )]
    NamesCode(PathBuf),
    /// There is no endorsement in the folder.
    #[error("there is no *.json in the folder {0}")]
    NoEndorsements(PathBuf),
    /// A policy does not fit its use.
    #[error(transparent)]
    Appraisal(#[from] AppraisalError),
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
            policy: self.policy.or(other.policy),
        }
    }

    /// Makes the verifier.
    ///
    /// # Errors
    /// [`TrustError`], which names the file.
    pub fn verifier(&self) -> Result<EvidenceVerifier, TrustError> {
        let anchor = match &self.simulated_root {
            None => TrustAnchor::production()?,
            Some(path) => {
                TrustAnchor::simulated(read("the simulated root", path)?).map_err(content(path))?
            }
        };
        Ok(EvidenceVerifier::new(anchor, self.endorsements()?))
    }

    /// The policy that KeyService appraises enclaves by.
    ///
    /// # Errors
    /// [`TrustError`], with the line at fault.
    pub fn service_policy(&self) -> Result<AppraisalPolicy, TrustError> {
        let Some(path) = &self.policy else {
            return Ok(AppraisalPolicy::per_release());
        };
        let bytes = read("the appraisal policy", path)?;
        let policy = |source| TrustError::Policy {
            path: path.clone(),
            source,
        };
        let read = AppraisalPolicy::from_toml(&String::from_utf8_lossy(&bytes)).map_err(policy)?;
        if read.names_code() {
            return Err(TrustError::NamesCode(path.clone()));
        }
        Ok(read)
    }

    /// A policy that demands of the platform what the service's policy demands, and of the code to be one of these.
    ///
    /// # Errors
    /// [`TrustError`], with the line at fault; [`AppraisalError::NoReferenceValues`] for an empty list.
    pub fn policy_for(
        &self,
        code: impl IntoIterator<Item = CodeIdentityDigest>,
    ) -> Result<AppraisalPolicy, TrustError> {
        Ok(self.service_policy()?.with_reference_values(code)?)
    }

    /// Reads the endorsements again whenever they change on disk, for ever. What cannot be used is logged, and what was used
    /// before stays in use.
    pub async fn refresh(self, verifier: EvidenceVerifier) {
        let mut seen = self.stamp();
        loop {
            tokio::time::sleep(REFRESH).await;
            let (settings, before) = (self.clone(), seen.clone());
            // Files are waited for on a thread that may wait.
            let read = spawn_blocking(move || settings.endorsements_if_changed(&before)).await;
            match read {
                Ok(Ok(Some((endorsements, stamp)))) => {
                    verifier.replace_endorsements(endorsements);
                    seen = stamp;
                    tracing::info!("endorsements read again");
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "changed endorsements cannot be used"),
                Err(error) => tracing::error!(%error, "endorsements could not be read again"),
            }
        }
    }

    fn endorsements_if_changed(
        &self,
        seen: &Stamp,
    ) -> Result<Option<(Endorsements, Stamp)>, TrustError> {
        let stamp = self.stamp();
        if stamp == *seen {
            return Ok(None);
        }
        Ok(Some((self.endorsements()?, stamp)))
    }

    fn endorsements(&self) -> Result<Endorsements, TrustError> {
        let mut all = Endorsements::default();
        for path in self.endorsement_files()? {
            let file = Endorsements::from_json(&read("the endorsements", &path)?)
                .map_err(content(&path))?;
            all = all.and(file).map_err(content(&path))?;
        }
        Ok(all)
    }

    fn endorsement_files(&self) -> Result<Vec<PathBuf>, TrustError> {
        let path = self
            .endorsements
            .as_deref()
            .ok_or(SettingsError::Missing("endorsements"))?;
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let failed = |source| TrustError::Read {
            what: "the endorsements",
            path: path.to_owned(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)?.take(MAX_ENTRIES) {
            let file = entry.map_err(failed)?.path();
            // Not a pipe, which would be waited for.
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
                && file.is_file()
            {
                files.push(file);
            }
        }
        if files.len() > MAX_FILES {
            return Err(failed(std::io::Error::other("too many files")));
        }
        if files.is_empty() {
            return Err(TrustError::NoEndorsements(path.to_owned()));
        }
        files.sort_unstable();
        Ok(files)
    }

    /// What changes when the endorsements change: files, their sizes and times.
    fn stamp(&self) -> Stamp {
        let stamp = |path: PathBuf| {
            let metadata = std::fs::metadata(&path).ok()?;
            Some((path, metadata.len(), metadata.modified().ok()))
        };
        let files = self.endorsement_files().unwrap_or_default();
        files.into_iter().filter_map(stamp).collect()
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
    let file = std::fs::File::open(path).map_err(failed)?;
    let limit = sesemi_attest::verifier::MAX_ENDORSEMENTS as u64;
    let mut bytes = Vec::new();
    // One more than is allowed, so that too long a file shows, whatever its metadata says.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(failed(std::io::Error::other("the file is far too long")));
    }
    Ok(bytes)
}
