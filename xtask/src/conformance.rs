//! `cargo xtask conformance`: real models on every engine. `crates/conformance` does it, with the binaries that are built here.

use std::path::Path;
use std::process::Command;

use crate::binaries::CONFORMANCE;
use crate::{Outcome, build, workspace};

/// The command.
pub(crate) fn run(models: &[String], json: Option<&Path>, allow_skips: bool) -> Outcome<()> {
    let built = build::build()?;
    let program = build::build_tool(&CONFORMANCE)?;
    let mut command = Command::new(program);
    command.arg("--bin-dir").arg(&built.folder);
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
