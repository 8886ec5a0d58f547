//! Landlock: which files can be opened.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::{HardenError, Measure, Paths, State};
use crate::sys;

pub(super) const NAME: &str = "landlock";

/// The versions whose rights are known here; a kernel that has fewer enforces what it has.
const FILES: ABI = ABI::V5;
const SCOPES: ABI = ABI::V6;

pub(super) fn restrict(paths: &Paths) -> Result<Measure, HardenError> {
    let version = match sys::landlock_version() {
        Ok(version) => version,
        Err(error) => {
            let detail = format!(
                "files outside the service's own folders stay reachable ({error}); boot with lsm=landlock,…"
            );
            return Ok(Measure::new(NAME, State::NotOffered, detail));
        }
    };
    let all = AccessFs::from_all(FILES);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(SCOPES)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for (path, rights) in rules_of(paths) {
        let open = PathFd::new(path).map_err(|error| HardenError::Path {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        // Rights over a folder's entries mean nothing for a file.
        let rights = if path.is_dir() {
            rights
        } else {
            rights & AccessFs::from_file(FILES)
        };
        rules = rules
            .add_rule(PathBeneath::new(open, rights))
            .map_err(failed)?;
    }
    let status = rules.restrict_self().map_err(failed)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(HardenError::Refused {
            measure: NAME,
            reason: format!("the kernel says that it has version {version}, and enforced nothing"),
        });
    }
    let detail = format!("version {version}: {}", what_holds(version));
    Ok(Measure::new(NAME, State::Enforced, detail))
}

fn rules_of(paths: &Paths) -> impl Iterator<Item = (&Path, BitFlags<AccessFs>)> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        // For the devices of TEEs.
        | AccessFs::IoctlDev;
    let read = paths.read.iter().map(move |path| (path.as_path(), read));
    let write = paths.write.iter().map(move |path| (path.as_path(), write));
    read.chain(write)
}

fn what_holds(version: u32) -> &'static str {
    match version {
        0..3 => "files cannot be opened outside the service's own folders, but truncated",
        3..5 => "no files outside the service's own folders",
        5 => "no files or devices outside the service's own folders",
        6.. => {
            "no files, devices, abstract sockets or signals outside the service's own folders and process"
        }
    }
}

fn failed(error: RulesetError) -> HardenError {
    HardenError::Refused {
        measure: NAME,
        reason: error.to_string(),
    }
}
