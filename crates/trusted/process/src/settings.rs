//! Settings: flags over environment over one TOML file, checked before anything starts.
//!
//! Nothing here is trusted: the host writes it. What it can spoil is availability; a wrong trust anchor only makes code
//! identities that nobody approved.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Longest settings file, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too long for settings.
    #[error("the settings file {0} is longer than 64 KiB")]
    TooLong(PathBuf),
    /// The file has a mistake.
    #[error("the settings file {path} has a mistake:\n{message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A setting is missing.
    #[error(
        "--{0} is needed (or `{0}` in the settings file, or its environment variable; see --help)"
    )]
    Missing(&'static str),
    /// A setting is out of range.
    #[error("{0} must be {1}")]
    Range(&'static str, &'static str),
    /// The environment would change what trusted code does.
    #[error("the environment variable {0} would make the engine print what it computes; unset it")]
    Environment(String),
}

/// Reads a settings file; without one, everything is unset.
///
/// # Errors
/// [`SettingsError`], with the line at fault.
pub fn read_file<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, SettingsError> {
    let Some(path) = path else {
        return Ok(T::default());
    };
    let failed = |source| SettingsError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(SettingsError::TooLong(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    toml::from_str(&text).map_err(|error| SettingsError::Parse {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

/// A number within its range.
///
/// # Errors
/// [`SettingsError::Range`].
pub fn within<T: PartialOrd>(
    name: &'static str,
    value: T,
    range: core::ops::RangeInclusive<T>,
    described: &'static str,
) -> Result<T, SettingsError> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(SettingsError::Range(name, described))
    }
}
