//! What the sources of every trusted crate must say: no unsafe code, and the lints of the workspace. Two crates have unsafe
//! code, in functions or a module that are marked.

use std::fs;

use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{Package, Target, TargetKind};

use super::rules::Violation;
use crate::Outcome;

const NO_UNSAFE: &str = "#![forbid(unsafe_code)]";
/// What the crates say whose functions or modules may ask for an exception.
const MARKED_UNSAFE: &str = "#![deny(unsafe_code)]";
/// The crates that call the operating system, and an engine in another language, where no library does so safely.
const WITH_UNSAFE: [&str; 2] = ["sesemi-hardening", "sesemi-onnxruntime"];

/// Everything else is a library or a program, of whatever type.
const NOT_SHIPPED: [TargetKind; 4] = [
    TargetKind::Test,
    TargetKind::Bench,
    TargetKind::Example,
    TargetKind::CustomBuild,
];

/// What is missing in one trusted crate: in the root file of each library and program, and in its manifest.
pub(crate) fn check(package: &Package, workspace_root: &Utf8Path) -> Outcome<Vec<Violation>> {
    let shown = |path: &Utf8Path| {
        path.strip_prefix(workspace_root)
            .unwrap_or(path)
            .to_string()
    };
    let mut violations = Vec::new();
    let is_shipped =
        |target: &&Target| !NOT_SHIPPED.iter().any(|kind| target.is_kind(kind.clone()));
    let roots = package.targets.iter().filter(is_shipped);
    let rule = if WITH_UNSAFE.contains(&package.name.as_str()) {
        MARKED_UNSAFE
    } else {
        NO_UNSAFE
    };
    for root in roots.map(|target| &target.src_path) {
        let text = read(root)?;
        if !says(&text, rule) && !says(&text, NO_UNSAFE) {
            violations.push(Violation(format!(
                "{}: {} does not say {rule}",
                package.name,
                shown(root)
            )));
        }
    }
    if !takes_workspace_lints(&read(&package.manifest_path)?) {
        let manifest = shown(&package.manifest_path);
        violations.push(Violation(format!(
            "{}: {manifest} does not say [lints] workspace = true",
            package.name
        )));
    }
    Ok(violations)
}

fn read(path: &Utf8Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

fn says(root: &str, rule: &str) -> bool {
    root.lines().any(|line| line.trim_end() == rule)
}

fn takes_workspace_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines.find(|line| line.starts_with('[') || *line == "workspace = true")
        == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_forbidden_by_the_attribute_and_not_by_a_comment_or_a_condition() {
        let forbids_unsafe = |root| says(root, NO_UNSAFE);
        assert!(forbids_unsafe("//! About.\n\n#![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("//! About.\n// #![forbid(unsafe_code)]\n"));
        assert!(!forbids_unsafe("#![cfg_attr(test, forbid(unsafe_code))]\n"));
        assert!(!forbids_unsafe("#![deny(unsafe_code)]\n"));
    }

    #[test]
    fn the_lints_are_those_of_the_workspace_only_if_their_section_says_so() {
        assert!(takes_workspace_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!takes_workspace_lints(
            "[lints]\n\n[dependencies]\nworkspace = true\n"
        ));
        assert!(!takes_workspace_lints(
            "[lints]\nrust.unsafe_code = \"allow\"\n"
        ));
        assert!(!takes_workspace_lints("[package]\nname = \"a\"\n"));
    }
}
