//! `cargo xtask tcb`: the trusted computing base, how large it is and whether its walls hold.
//!
//! It reads the dependencies that cargo resolved for this machine, with the features that the whole workspace turns on,
//! and checks them against the [`rules`] and the [`sources`] of the trusted crates. It then counts what is linked
//! into each binary that runs in a TEE, so that its growth is seen in review.

mod graph;
mod lines;
mod rules;
mod sources;

use std::fmt::Write as _;
use std::path::Path;

use cargo_metadata::{Metadata, Package};
use serde::{Serialize, Serializer};

use self::graph::{Follow, Graph, Index};
use self::rules::Violation;
use crate::binaries::{self, Binary};
use crate::workspace::Workspace;
use crate::{Outcome, output};

/// What was found.
#[derive(Serialize)]
struct Report {
    binaries: Vec<Size>,
    violations: Vec<Violation>,
}

/// One binary that runs in a TEE, and what is linked into it.
#[derive(Serialize)]
struct Size {
    name: &'static str,
    /// Crates that are linked, ours and others'.
    crates: usize,
    /// Lines of our own crates among them.
    own_lines: usize,
    /// The others', as `name version`.
    external: Vec<String>,
    /// Hash implementations beside the provider's.
    #[serde(skip)]
    hashes: Vec<String>,
}

impl Serialize for Violation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The command `cargo xtask tcb`.
pub(crate) fn run(json: Option<&Path>) -> Outcome<()> {
    let report = report(&Workspace::load()?.metadata)?;
    if let Some(file) = json {
        output::write_json(file, &report)?;
    }
    output::print(&in_words(&report))?;
    match report.violations.len() {
        0 => Ok(()),
        1 => Err("a rule of the trusted computing base does not hold: see above".into()),
        count => Err(format!(
            "{count} rules of the trusted computing base do not hold: see above"
        )),
    }
}

fn report(metadata: &Metadata) -> Outcome<Report> {
    let graph = Graph::read(metadata)?;
    let mut violations = rules::check(&graph);
    for (index, _) in graph
        .members()
        .filter(|(_, folder)| folder.starts_with("trusted/"))
    {
        let package = member(metadata, &graph.crates[index].name)?;
        violations.extend(sources::check(package, &metadata.workspace_root)?);
    }
    let binaries = binaries::in_tee()
        .map(|binary| size(metadata, &graph, binary))
        .collect::<Outcome<_>>()?;
    Ok(Report {
        binaries,
        violations,
    })
}

fn size(metadata: &Metadata, graph: &Graph, binary: &Binary) -> Outcome<Size> {
    let root = graph
        .member(binary.package)
        .ok_or_else(|| no_member(binary.package))?;
    let linked = graph.closure(root, Follow::Linked);
    let (own, others): (Vec<Index>, Vec<Index>) = linked
        .iter()
        .partition(|index| graph.crates[**index].folder.is_some());
    let own_lines = own.iter().map(|index| {
        let manifest = &member(metadata, &graph.crates[*index].name)?.manifest_path;
        manifest
            .parent()
            .map_or(Ok(0), |folder| lines::of_crate(folder.as_std_path()))
    });
    let own_lines = own_lines.sum::<Outcome<usize>>()?;
    let names = others.iter().map(|index| &graph.crates[*index]);
    let mut external: Vec<_> = names
        .map(|it| format!("{} {}", it.name, it.version))
        .collect();
    external.sort();
    Ok(Size {
        name: binary.name,
        crates: linked.len(),
        own_lines,
        external,
        hashes: rules::hashes(graph, root),
    })
}

fn member<'a>(metadata: &'a Metadata, name: &str) -> Outcome<&'a Package> {
    let mut members = metadata.workspace_packages().into_iter();
    members
        .find(|package| package.name == name)
        .ok_or_else(|| no_member(name))
}

fn no_member(name: &str) -> String {
    format!("the workspace has no crate {name}")
}

fn in_words(report: &Report) -> String {
    let mut text = String::from(
        "Trusted computing base: what is linked into each binary that runs in a TEE.\n\
         Counted are normal dependencies on this machine, with the features that the whole workspace turns on.\n\
         Procedural macros and build dependencies, and what only they use, are not counted.\n\
         Own lines: Rust of ours without blank lines, comments and tests.\n\n",
    );
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<20} {:>7} {:>10} {:>10}",
        "binary", "crates", "external", "own lines"
    );
    for size in &report.binaries {
        let external = size.external.len();
        let _ = writeln!(
            text,
            "{:<20} {:>7} {external:>10} {:>10}",
            size.name, size.crates, size.own_lines
        );
    }
    for size in &report.binaries {
        let _ = writeln!(text, "\nexternal crates of {}:", size.name);
        text.push_str(&wrapped(&size.external));
        for way in &size.hashes {
            let _ = writeln!(text, "  note: a hash beside the provider's: {way}");
        }
    }
    text.push('\n');
    if report.violations.is_empty() {
        text.push_str("No dependency crosses a trust boundary.\n");
    }
    for violation in &report.violations {
        let _ = writeln!(text, "VIOLATION {violation}");
    }
    text
}

/// The items with commas between them, in lines that fit a terminal.
fn wrapped(items: &[String]) -> String {
    const WIDTH: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let comma = if index + 1 < items.len() { "," } else { "" };
        match lines.last_mut() {
            Some(line) if line.len() + item.len() + 2 <= WIDTH => {
                *line += &format!(" {item}{comma}")
            }
            _ => lines.push(format!("  {item}{comma}")),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_keeps_its_rules() {
        let report = report(&Workspace::load().unwrap().metadata).unwrap();
        println!("{}", in_words(&report));
        assert_eq!(report.violations, []);
    }

    #[test]
    fn the_shape_of_the_report_is_pinned() {
        let size = Size {
            name: "sesemi-semirt",
            crates: 2,
            own_lines: 10,
            external: vec!["ring 0.17.14".into()],
            hashes: vec!["not written".into()],
        };
        let report = Report {
            binaries: vec![size],
            violations: vec![Violation("a -> b: no".into())],
        };
        let expected = r#"{"binaries":[{"name":"sesemi-semirt","crates":2,"own_lines":10,"external":["ring 0.17.14"]}],"violations":["a -> b: no"]}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), expected);
    }

    #[test]
    fn a_long_list_is_wrapped_between_its_items() {
        let items: Vec<_> = (100..130)
            .map(|number| format!("crate {number}.0.0"))
            .collect();
        let text = wrapped(&items);
        assert!(
            text.lines().count() > 1 && text.lines().all(|line| line.len() <= 100),
            "{text}"
        );
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>().join(" "),
            items.join(", ")
        );
    }
}
