//! `cargo xtask demo`, for short `cargo demo`: from a checkout to a private prediction in one command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::Outcome;
use crate::binaries::SESEMI;
use crate::build::{self, Built};

/// Builds, and becomes `sesemi demo`: its exit status, and a signal to it, are then the caller's own business.
pub(crate) fn run(args: &[OsString]) -> Outcome<()> {
    let error = command(&build::build()?).args(args).exec();
    Err(format!("cannot run `{SESEMI} demo`: {error}"))
}

/// The command `sesemi demo`, in the caller's folder.
pub(crate) fn command(built: &Built) -> Command {
    let mut demo = Command::new(built.folder.join(SESEMI));
    demo.arg("demo");
    demo
}
