//! `cargo xtask conformance`: what others have made, with SeSeMI: real models on every engine, and OpenWhisk's own client and cases.
//! `crates/conformance` does it, with the binaries that are built here.

use std::path::Path;
use std::process::Command;

use crate::binaries::CONFORMANCE;
use crate::build::Built;
use crate::{Outcome, build, workspace};

/// Real models.
pub(crate) fn models(models: &[String], json: Option<&Path>, allow_skips: bool) -> Outcome<()> {
    let (built, mut command) = program("models")?;
    // Packages are kept beside what is built, and gone with it.
    command
        .arg("--cache")
        .arg(built.folder.join("conformance-packages"));
    for model in models {
        command.arg("--model").arg(model);
    }
    if let Some(file) = json {
        command.arg("--json").arg(file);
    }
    if allow_skips {
        command.arg("--allow-skips");
    }
    workspace::run(CONFORMANCE.name, &mut command)
}

/// OpenWhisk's client and cases.
pub(crate) fn openwhisk(json: Option<&Path>, allow_skips: bool) -> Outcome<()> {
    let (_, mut command) = program("openwhisk")?;
    if let Some(file) = json {
        command.arg("--json").arg(file);
    }
    if allow_skips {
        command.arg("--allow-skips");
    }
    workspace::run(CONFORMANCE.name, &mut command)
}

/// Builds everything.
fn program(what: &str) -> Outcome<(Built, Command)> {
    let built = build::build()?;
    let program = build::build_tool(&CONFORMANCE)?;
    let mut command = Command::new(program);
    command.arg(what).arg("--bin-dir").arg(&built.folder);
    Ok((built, command))
}
