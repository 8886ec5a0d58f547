//! What tests do where a library cannot be had: they are skipped, unless whoever runs them says that it must be there.

use std::ffi::OsStr;

use crate::InstallError;

/// A variable of the environment: if it is 1, a library that cannot be had fails a test instead of skipping it.
pub const REQUIRED: &str = "SESEMI_REQUIRE_ONNXRUNTIME";

/// For tests, and tools that can do without: what was installed, or none where it cannot be had, which is said on standard error.
///
/// # Errors
/// Any other [`InstallError`]; and this one too if [`REQUIRED`] is 1 in the environment.
pub fn optional<T>(installed: Result<T, InstallError>) -> Result<Option<T>, InstallError> {
    let required = std::env::var_os(REQUIRED);
    unless_required(installed, required.as_deref())
}

fn unless_required<T>(
    installed: Result<T, InstallError>,
    required: Option<&OsStr>,
) -> Result<Option<T>, InstallError> {
    match installed {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.cannot_be_had() && required != Some(OsStr::new("1")) => {
            let hint = format!("{REQUIRED}=1 makes this a failure");
            eprintln!("skipped, for it cannot be had here ({hint}): {error}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{InstallError, unless_required};

    #[test]
    fn what_cannot_be_had_is_skipped_unless_it_is_required_and_a_fault_never_is() {
        let slow = || Err::<(), _>(InstallError::Slow(600));
        let fault = || Err::<(), _>(InstallError::NoFolder);
        for not in [None, Some("0".as_ref()), Some("".as_ref())] {
            assert_eq!(unless_required(slow(), not).unwrap(), None);
            assert!(unless_required(fault(), not).is_err());
        }
        let required = Some("1".as_ref());
        assert!(unless_required(slow(), required).is_err());
        assert!(unless_required(fault(), required).is_err());
        assert_eq!(unless_required(Ok(7), required).unwrap(), Some(7));
    }
}
