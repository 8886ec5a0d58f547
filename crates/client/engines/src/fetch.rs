//! A package by pip, and the library out of it.
//!
//! pip is told the build and its digest, so that it takes no other whatever Python it runs in, follows the user's own settings for
//! indexes and proxies, and runs no code of the package, because a wheel is only downloaded.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::release::{Build, LIBRARY};
use crate::{InstallError, Release, io_error};

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

/// Copies one file out of a package.
const UNPACK: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as package, package.open(sys.argv[2]) as member, open(sys.argv[3], 'xb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
";

/// Fetches the package into `working` and gives the library's path there. It is not verified.
pub(crate) fn fetch(
    release: &Release,
    working: &Path,
    folder: &Path,
) -> Result<PathBuf, InstallError> {
    let build = release.build()?;
    let package = format!("{}=={}", release.engine, release.version);
    let requirements = working.join(REQUIREMENTS);
    let pinned = format!("{package} --hash=sha256:{}\n", build.package_sha256);
    fs::write(&requirements, pinned).map_err(io_error(&requirements))?;
    let failed = |said: String| {
        let package = package.clone();
        // pip ends in the same way whatever went wrong.
        if said.to_lowercase().contains(OTHER_HASH) {
            return InstallError::Package { package, said };
        }
        InstallError::Fetch { package, said }
    };
    let mut pip = Command::new(PYTHON);
    // Python looks for modules in the current folder before anywhere else, so that is one with nothing in it. (Isolated mode would do
    // as well, but has no pip that a user installed for themselves; the variable is known since Python 3.11.)
    pip.current_dir(working).env("PYTHONSAFEPATH", "1");
    pip.args(["-m", "pip", "download", "--require-hashes", "--no-deps"])
        .args(["--only-binary", ":all:", "--disable-pip-version-check"])
        .args(["--no-input", "--quiet", "--retries", "2", "--timeout", "30"])
        .args(python_of(build))
        .args(["--dest", ".", "--requirement", REQUIREMENTS]);
    finish(&mut pip, folder)?.map_err(&failed)?;
    let wheel = wheel_in(working)?.ok_or_else(|| failed("it left no package".into()))?;
    let library = working.join(LIBRARY);
    let mut unpack = Command::new(PYTHON);
    unpack
        .args(["-I", "-c", UNPACK])
        .arg(wheel)
        .arg(build.library)
        .arg(&library);
    finish(&mut unpack, folder)?.map_err(&failed)?;
    Ok(library)
}

/// One of the builds for Python, always the same one: the library in all of them is the same.
fn python_of(build: &Build) -> [&'static str; 8] {
    [
        "--python-version",
        "3.11",
        "--implementation",
        "cp",
        "--abi",
        "cp311",
        "--platform",
        build.platform,
    ]
}

fn wheel_in(folder: &Path) -> Result<Option<PathBuf>, InstallError> {
    let failed = io_error(folder);
    for entry in fs::read_dir(folder).map_err(&failed)? {
        let path = entry.map_err(&failed)?.path();
        if path.extension().is_some_and(|it| it == "whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Runs a program to its end; what it said if that was not a good one.
fn finish(command: &mut Command, folder: &Path) -> Result<Result<(), String>, InstallError> {
    let failed = |source| InstallError::Client {
        program: PYTHON,
        folder: folder.to_owned(),
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
