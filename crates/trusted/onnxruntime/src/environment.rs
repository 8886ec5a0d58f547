//! Variables of the environment that the host must not set.

use std::ffi::OsString;

use sesemi_process::settings::SettingsError;

/// Beginnings of the names of variables that make ONNX Runtime, its allocator or its C libraries write down what they do, load
/// other code, or compute otherwise.
const REFUSED: [&str; 10] = [
    "ORT_",
    "ONNXRUNTIME_",
    "ONNX_",
    "MLAS_",
    "OMP_",
    "KMP_",
    "GOMP_",
    // The dynamic linker's and the C library's own: they are read before this program starts, so they are refused afterwards,
    // where the TEE did not clear them.
    "LD_",
    "GLIBC_",
    "MALLOC_",
];

/// Refuses an environment in which ONNX Runtime would talk about what it computes, or is not what was measured.
///
/// # Errors
/// [`SettingsError::Environment`], which names the variable.
pub fn check_environment(
    variables: impl IntoIterator<Item = OsString>,
) -> Result<(), SettingsError> {
    let found = variables
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned())
        .find(|name| REFUSED.iter().any(|refused| name.starts_with(refused)));
    match found {
        Some(name) => Err(SettingsError::Environment(name)),
        None => Ok(()),
    }
}
