//! What cargo and rustc say about this workspace and this machine.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};

use crate::Outcome;

/// The workspace of the current folder.
pub(crate) struct Workspace {
    /// The target triple of this machine.
    pub(crate) host: String,
    /// Packages and their resolved dependencies on this machine.
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Asks cargo. The lock file is taken as it is.
    pub(crate) fn load() -> Outcome<Self> {
        let host = host_triple()?;
        let metadata = MetadataCommand::new()
            .other_options(["--locked", "--filter-platform", &host].map(String::from))
            .exec()
            .map_err(|error| format!("cannot read the workspace: {}", error.to_string().trim()))?;
        Ok(Self { host, metadata })
    }

    /// Where `cargo xtask build` puts the binaries.
    pub(crate) fn release_folder(&self) -> PathBuf {
        self.metadata
            .target_directory
            .join(&self.host)
            .join("release")
            .into()
    }
}

/// The cargo that runs this program, or the one in `PATH`.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn host_triple() -> Outcome<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = stdout_of(Command::new(rustc).arg("-vV"))?;
    host_line(&version).ok_or_else(|| "`rustc -vV` does not say which host it is for".into())
}

fn host_line(version: &str) -> Option<String> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(String::from)
}

/// What a command prints; a failure names the command and says what it said.
pub(crate) fn stdout_of(command: &mut Command) -> Outcome<String> {
    let name = display(command);
    let output = command
        .output()
        .map_err(|error| format!("cannot run `{name}`: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{name}` failed: {}", said.trim()));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| format!("`{name}` printed something that is not UTF-8"))
}

/// Runs a command on this terminal, waits for its success, and calls it `name` if it fails.
pub(crate) fn run(name: &str, command: &mut Command) -> Outcome<()> {
    let status = command
        .status()
        .map_err(|error| format!("cannot run {name}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{name} failed ({status}), see above"))
    }
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_read_from_what_rustc_says() {
        let version =
            "rustc 1.95.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        assert_eq!(
            host_line(version).as_deref(),
            Some("x86_64-unknown-linux-gnu")
        );
        assert_eq!(host_line("rustc 1.95.0\n"), None);
    }

    #[test]
    fn a_failed_command_is_named_with_what_it_said() {
        let problem =
            stdout_of(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        assert_eq!(problem, "`sh -c echo no >&2; exit 3` failed: no");
    }
}
