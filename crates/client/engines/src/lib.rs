//! Libraries of inference engines, which are too large for a source tree: fetched by a package manager's own client, accepted
//! only with the digest that is pinned here, and put into a folder of the user.
//!
//! The library ends in an enclave's measurement, so who fetched it and from where does not matter: another one has another digest,
//! is refused here, and would be another measurement there.

#![forbid(unsafe_code)]

mod fetch;
mod optional;
mod release;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

pub use fetch::Package;
use fetch::Wanted;
pub use optional::{REQUIRED, optional};
pub use release::{LIBRARY, ONNXRUNTIME, Release};

/// Why a library, or another file of a package, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is none for this kind of machine.
    #[error("there is no pinned build of {engine} for {machine}; the engine rten needs none")]
    Machine {
        /// The engine.
        engine: &'static str,
        /// Operating system and processor.
        machine: String,
    },
    /// The package manager's client is missing.
    #[error(
        "cannot start {program}: install Python 3 with pip, or put {file} of the right digest into {} yourself", folder.display()
    )]
    Client {
        /// What was to be started.
        program: &'static str,
        /// What it was to fetch.
        file: &'static str,
        /// Where that is looked for.
        folder: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// It could not fetch the package.
    #[error("pip cannot fetch {package}: {said}")]
    Fetch {
        /// Name and version.
        package: String,
        /// What it said last.
        said: String,
    },
    /// The index has another package under this name and version.
    #[error("the package index has another {package} than the pinned one: {said}")]
    Package {
        /// Name and version.
        package: String,
        /// What pip said last.
        said: String,
    },
    /// It did not end.
    #[error("pip did not end within {0} seconds; is the package index reachable?")]
    Slow(u64),
    /// What came is not what is pinned.
    #[error("{} has SHA-256 {found} instead of {expected}: it is not the pinned library", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: String,
        /// What is pinned.
        expected: &'static str,
    },
    /// Files.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing says where the user's data is.
    #[error("neither XDG_DATA_HOME nor HOME is set; name a folder")]
    NoFolder,
}

impl InstallError {
    /// Whether it cannot be had here: no build for this machine, no Python with pip, no index, no network. Anything else,
    /// another package or library above all, is a fault.
    #[must_use]
    pub fn cannot_be_had(&self) -> bool {
        /// What pip says then.
        const UNREACHABLE: [&str; 6] = [
            "no module named pip",
            "from versions: none",
            "max retries exceeded",
            "connection",
            "timed out",
            "http error",
        ];
        match self {
            Self::Machine { .. } | Self::Slow(_) => true,
            Self::Client { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::Fetch { said, .. } => {
                let said = said.to_lowercase();
                UNREACHABLE.iter().any(|it| said.contains(it))
            }
            _ => false,
        }
    }
}

/// Where libraries are put unless told otherwise: `$XDG_DATA_HOME/sesemi/engines`.
///
/// # Errors
/// [`InstallError::NoFolder`].
pub fn default_folder() -> Result<PathBuf, InstallError> {
    let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty());
    let data = variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/share"));
    let data = data.filter(|it| it.is_absolute()).or_else(home);
    Ok(data.ok_or(InstallError::NoFolder)?.join("sesemi/engines"))
}

impl Release {
    /// The library's file in a folder of engines.
    #[must_use]
    pub fn path(&self, folder: &Path) -> PathBuf {
        let own = format!("{}-{}", self.engine, self.version);
        folder.join(own).join(LIBRARY)
    }

    /// The library, if it is installed; its digest is compared.
    ///
    /// # Errors
    /// [`InstallError::Digest`] if another one lies there, [`InstallError::Io`], [`InstallError::Machine`].
    pub fn installed(&self, folder: &Path) -> Result<Option<PathBuf>, InstallError> {
        let path = self.path(folder);
        match self.verify(&path) {
            Ok(()) => Ok(Some(path)),
            Err(InstallError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Fetches the library and puts it into its place, unless it is there. Others may do the same at the same time.
    ///
    /// # Errors
    /// [`InstallError`]; nothing is left then.
    pub fn install(&self, folder: &Path) -> Result<PathBuf, InstallError> {
        if let Ok(Some(path)) = self.installed(folder) {
            return Ok(path);
        }
        let path = self.path(folder);
        let own = path.parent().unwrap_or(folder).to_owned();
        let failed = io_error(&own);
        fs::create_dir_all(&own).map_err(&failed)?;
        // In the same folder, so that the library appears there whole or not at all.
        let working = tempfile::tempdir_in(&own).map_err(&failed)?;
        let (build, fetched) = (self.build()?, working.path().join(LIBRARY));
        let package = Package {
            requirement: &format!("{}=={}", self.engine, self.version),
            sha256: build.package_sha256,
            build: &build.choice(),
        };
        let wanted = Wanted {
            file: LIBRARY,
            folder: &own,
        };
        package.extract_wanted(build.library, working.path(), &fetched, wanted)?;
        self.verify(&fetched)?;
        fs::rename(&fetched, &path).map_err(io_error(&path))?;
        Ok(path)
    }

    /// Compares a file with the pinned digest.
    ///
    /// # Errors
    /// [`InstallError::Digest`], [`InstallError::Io`], [`InstallError::Machine`].
    pub fn verify(&self, path: &Path) -> Result<(), InstallError> {
        let build = self.build()?;
        let found = sha256(path).map_err(io_error(path))?;
        if found == build.library_sha256 {
            return Ok(());
        }
        Err(InstallError::Digest {
            path: path.to_owned(),
            found,
            expected: build.library_sha256,
        })
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> InstallError {
    move |source| InstallError::Io {
        path: path.to_owned(),
        source,
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(context.finish())),
            read => context.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
