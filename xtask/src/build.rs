//! `cargo xtask build`: the product's binaries, as they are deployed.
//!
//! They are static (static-pie): what a TEE measures is then the whole program. The flag for it is set for the one
//! cargo that builds them, because tests and build scripts do not need it. A program that maps a shared library cannot be
//! static: the TEE has to measure that library, the dynamic linker and the C library as well.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;

use crate::binaries::{self, BINARIES, Binary};
use crate::workspace::{self, Workspace};
use crate::{Outcome, elf, output};

/// What makes a program static.
const STATIC: &str = "-C target-feature=+crt-static";

/// Cargo would use these in place of the flags of the target.
const OVERRIDING: [&str; 2] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"];

/// Where the binaries are.
#[derive(Serialize)]
pub(crate) struct Built {
    /// The folder that has them all.
    pub(crate) folder: PathBuf,
    /// The path of each, by name.
    pub(crate) binaries: BTreeMap<&'static str, PathBuf>,
}

/// The command `cargo xtask build`.
pub(crate) fn run(json: bool) -> Outcome<()> {
    let built = build()?;
    if json {
        return output::print(&output::json(&built)?);
    }
    eprintln!(
        "{} binaries are in {}",
        built.binaries.len(),
        built.folder.display()
    );
    Ok(())
}

/// Builds every binary, and checks that those for a TEE are static.
pub(crate) fn build() -> Outcome<Built> {
    let workspace = Workspace::load()?;
    supported(&workspace.host)?;
    note_overridden_flags();
    for group in builds() {
        workspace::run(
            "cargo's build of the binaries",
            &mut cargo_build(&workspace.host, &group),
        )?;
    }
    let folder = workspace.release_folder();
    let binaries = BINARIES
        .iter()
        .map(|binary| (binary.name, folder.join(binary.name)))
        .collect();
    let built = Built { folder, binaries };
    require_static(&built)?;
    Ok(built)
}

/// Builds one program of the product, as [`build`] does.
pub(crate) fn build_one(name: &str) -> Outcome<PathBuf> {
    let binary = binaries::named(name).ok_or_else(|| format!("there is no program {name}"))?;
    build_tool(binary)
}

/// Builds a tool of developers the way the product is built, so that what it measures is the product's code.
pub(crate) fn build_tool(tool: &Binary) -> Outcome<PathBuf> {
    let workspace = Workspace::load()?;
    supported(&workspace.host)?;
    note_overridden_flags();
    let name = format!("cargo's build of {}", tool.name);
    workspace::run(&name, &mut cargo_build(&workspace.host, &[tool]))?;
    Ok(workspace.release_folder().join(tool.name))
}

fn supported(host: &str) -> Outcome<()> {
    if host.split('-').any(|part| part == "linux") {
        return Ok(());
    }
    Err(format!(
        "SeSeMI's binaries run on Linux only, and this machine is {host}; build them there or in a container"
    ))
}

fn note_overridden_flags() {
    for name in OVERRIDING {
        if env::var_os(name).is_some_and(|flags| !flags.is_empty()) {
            eprintln!(
                "note: {name} is ignored here: the binaries are built with `{STATIC}` and nothing else"
            );
        }
    }
}

/// What is built together. Cargo unifies the features of all that it builds at once, so each program for a TEE is built
/// alone: a feature that a host crate wants must not change what the TEE measures.
fn builds() -> Vec<Vec<&'static Binary>> {
    let mut builds: Vec<Vec<_>> = binaries::in_tee().map(|binary| vec![binary]).collect();
    // Static programs and those that cannot be are compiled with other flags.
    for maps_library in [false, true] {
        let group = BINARIES.iter().filter(|binary| !binary.in_tee);
        builds.push(
            group
                .filter(|binary| binary.maps_library == maps_library)
                .collect(),
        );
    }
    builds
}

fn cargo_build(host: &str, group: &[&Binary]) -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["build", "--release", "--locked", "--target", host]);
    for binary in group {
        cargo.args(["--package", binary.package, "--bin", binary.name]);
    }
    for name in OVERRIDING {
        cargo.env_remove(name);
    }
    let dynamic = group.iter().any(|binary| binary.maps_library);
    cargo.env(flags_variable(host), if dynamic { "" } else { STATIC });
    cargo
}

fn flags_variable(host: &str) -> OsString {
    format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        host.to_uppercase().replace(['-', '.'], "_")
    )
    .into()
}

fn require_static(built: &Built) -> Outcome<()> {
    let all = binaries::in_tee().filter(|binary| !binary.maps_library);
    for name in all.map(|binary| binary.name) {
        let path = built.folder.join(name);
        let file =
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        match elf::has_interpreter(&file) {
            Some(false) => {}
            Some(true) => {
                return Err(format!(
                    "{name} is dynamic (it has a PT_INTERP header): it would load code into the TEE that was not measured"
                ));
            }
            None => return Err(format!("{} is not a 64-bit ELF program", path.display())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn only_linux_is_supported() {
        assert_eq!(supported("x86_64-unknown-linux-gnu"), Ok(()));
        assert!(
            supported("aarch64-apple-darwin")
                .unwrap_err()
                .contains("Linux only")
        );
    }

    #[test]
    fn static_flags_are_set_for_the_target_and_nothing_overrides_them() {
        let cargo = cargo_build("x86_64-unknown-linux-gnu", &[]);
        let set = |name: &str| {
            cargo
                .get_envs()
                .find(|(it, _)| *it == name)
                .map(|(_, value)| value)
        };
        let flags = set("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS");
        assert_eq!(flags, Some(Some(OsStr::new(STATIC))));
        for removed in OVERRIDING {
            assert_eq!(set(removed), Some(None));
        }
    }

    #[test]
    fn what_maps_a_library_is_built_by_itself_and_without_the_static_flags() {
        let groups = builds().into_iter();
        let groups = groups.filter(|group| group.iter().any(|binary| binary.maps_library));
        let groups: Vec<_> = groups.collect();
        assert_eq!(groups.len(), 2);
        for group in groups {
            assert_eq!(group.len(), 1);
            let cargo = cargo_build("x86_64-unknown-linux-gnu", &group);
            let mut set = cargo.get_envs();
            assert!(set.all(|(_, value)| value != Some(OsStr::new(STATIC))));
        }
    }

    #[test]
    fn every_binary_is_built_once_and_those_for_a_tee_alone() {
        let builds = builds();
        let names = |group: &Vec<&Binary>| group.iter().map(|b| b.name).collect::<Vec<_>>();
        let mut all: Vec<_> = builds.iter().flat_map(names).collect();
        all.sort_unstable();
        let mut expected: Vec<_> = BINARIES.iter().map(|binary| binary.name).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
        for group in builds.iter().filter(|group| group.iter().any(|b| b.in_tee)) {
            assert_eq!(group.len(), 1, "{:?}", names(group));
        }
    }
}
