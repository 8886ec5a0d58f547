//! What is pinned.

use crate::InstallError;

/// The name of the library's file, which is part of an enclave's measurement.
pub const LIBRARY: &str = "libonnxruntime.so";

/// A version of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The engine, which is also the name of its package.
    pub engine: &'static str,
    /// Its version.
    pub version: &'static str,
    builds: &'static [Build],
}

/// A version for one kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Build {
    /// As Rust names the processor.
    architecture: &'static str,
    /// As the package index names system, C library and processor.
    pub(crate) platform: &'static str,
    /// SHA-256 of the package.
    pub(crate) package_sha256: &'static str,
    /// SHA-256 of the library in it.
    pub(crate) library_sha256: &'static str,
    /// The library's name in the package.
    pub(crate) library: &'static str,
}

/// ONNX Runtime as its makers publish it for Python (<https://pypi.org/project/onnxruntime/1.32.0/>), for processors alone.
pub const ONNXRUNTIME: Release = Release {
    engine: "onnxruntime",
    version: "1.32.0",
    builds: &[
        Build {
            architecture: "x86_64",
            platform: "manylinux_2_28_x86_64",
            package_sha256: "5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d",
            library_sha256: "6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f",
            library: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        },
        Build {
            architecture: "aarch64",
            platform: "manylinux_2_28_aarch64",
            package_sha256: "2303372a85299b6757b0e11e1cbf13e410ddf7e10c37f4b37e99d1c90e7daf7c",
            library_sha256: "49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a",
            library: "onnxruntime/capi/libonnxruntime.so.1.32.0",
        },
    ],
};

impl Release {
    /// The build for this machine.
    pub(crate) fn build(&self) -> Result<&'static Build, InstallError> {
        let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
        let mut builds = self.builds.iter();
        builds
            .find(|build| system == "linux" && build.architecture == architecture)
            .ok_or_else(|| InstallError::Machine {
                engine: self.engine,
                machine: format!("{system} on {architecture}"),
            })
    }
}

impl Build {
    /// One of the builds for Python, always the same one: the library in all of them is the same.
    pub(crate) fn choice(&self) -> [&'static str; 8] {
        [
            "--python-version",
            "3.11",
            "--implementation",
            "cp",
            "--abi",
            "cp311",
            "--platform",
            self.platform,
        ]
    }
}
