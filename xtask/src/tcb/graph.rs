//! Who depends on whom: the resolved dependencies of the workspace, without those that only tests use.

use std::collections::{BTreeSet, HashMap, VecDeque};

use cargo_metadata::{DependencyKind, Metadata, NodeDep, Package, TargetKind};

use crate::Outcome;

/// A crate's place in its [`Graph`].
pub(crate) type Index = usize;

/// All crates, and the edges between them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) crates: Vec<Crate>,
}

/// One crate.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its folder in the workspace, without `crates/`: `trusted/attest`. None if it is not ours.
    pub(crate) folder: Option<String>,
    /// Whether it runs in the compiler only.
    pub(crate) is_proc_macro: bool,
    /// What is under its `[dependencies]`.
    pub(crate) normal: Vec<Index>,
    /// What is under its `[build-dependencies]`.
    pub(crate) build: Vec<Index>,
}

/// Which edges to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// To what ends in the program: normal dependencies that are not procedural macros.
    Linked,
    /// To what also runs on the machine that builds: procedural macros and build dependencies too.
    Everything,
}

impl Graph {
    /// Reads what cargo resolved.
    pub(crate) fn read(metadata: &Metadata) -> Outcome<Self> {
        let resolve = metadata
            .resolve
            .as_ref()
            .ok_or("cargo did not resolve the dependencies of the workspace")?;
        let packages: HashMap<_, _> = metadata
            .packages
            .iter()
            .map(|package| (&package.id, package))
            .collect();
        let places: HashMap<_, _> = resolve
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| (&node.id, index))
            .collect();
        let unknown = || String::from("cargo resolved a package that it does not describe");
        let mut crates = Vec::with_capacity(resolve.nodes.len());
        for node in &resolve.nodes {
            let package = packages.get(&node.id).ok_or_else(unknown)?;
            let targets = |kind| -> Outcome<Vec<Index>> {
                let edges = node.deps.iter().filter(|edge| is_of_kind(edge, kind));
                edges
                    .map(|edge| places.get(&edge.pkg).copied().ok_or_else(unknown))
                    .collect()
            };
            crates.push(Crate {
                name: package.name.to_string(),
                version: package.version.to_string(),
                folder: folder(metadata, package),
                is_proc_macro: package
                    .targets
                    .iter()
                    .any(|target| target.is_kind(TargetKind::ProcMacro)),
                normal: targets(DependencyKind::Normal)?,
                build: targets(DependencyKind::Build)?,
            });
        }
        Ok(Self { crates })
    }

    /// The place of one of our own crates.
    pub(crate) fn member(&self, name: &str) -> Option<Index> {
        self.crates
            .iter()
            .position(|it| it.name == name && it.folder.is_some())
    }

    /// Our own crates and their folders.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Index, &str)> {
        self.crates
            .iter()
            .enumerate()
            .filter_map(|(index, it)| Some((index, it.folder.as_deref()?)))
    }

    /// What `from` names as its dependencies.
    pub(crate) fn direct(&self, from: Index, follow: Follow) -> impl Iterator<Item = Index> {
        let build: &[Index] = if follow == Follow::Everything {
            &self.crates[from].build
        } else {
            &[]
        };
        let named = self.crates[from].normal.iter().chain(build).copied();
        named.filter(move |to| follow == Follow::Everything || !self.crates[*to].is_proc_macro)
    }

    /// `from` and all that it depends on, directly or not.
    pub(crate) fn closure(&self, from: Index, follow: Follow) -> BTreeSet<Index> {
        self.paths(from, follow).into_keys().collect()
    }

    /// A shortest way from `from` to every crate that it depends on, both ends included.
    pub(crate) fn paths(&self, from: Index, follow: Follow) -> HashMap<Index, Vec<Index>> {
        let mut paths = HashMap::from([(from, vec![from])]);
        let mut queue = VecDeque::from([vec![from]]);
        while let Some(path) = queue.pop_front() {
            for next in path
                .last()
                .into_iter()
                .flat_map(|last| self.direct(*last, follow))
            {
                paths.entry(next).or_insert_with(|| {
                    let longer = [path.as_slice(), &[next]].concat();
                    queue.push_back(longer.clone());
                    longer
                });
            }
        }
        paths
    }

    /// A path in words: `a -> b -> c`.
    pub(crate) fn in_words(&self, path: &[Index]) -> String {
        path.iter()
            .map(|index| self.crates[*index].name.as_str())
            .collect::<Vec<_>>()
            .join(" -> ")
    }
}

fn is_of_kind(edge: &NodeDep, kind: DependencyKind) -> bool {
    edge.dep_kinds.iter().any(|it| it.kind == kind)
}

fn folder(metadata: &Metadata, package: &Package) -> Option<String> {
    if !metadata.workspace_members.contains(&package.id) {
        return None;
    }
    let folder = package.manifest_path.parent()?;
    let inside = folder.strip_prefix(&metadata.workspace_root).ok()?;
    Some(inside.strip_prefix("crates").unwrap_or(inside).to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Draws a graph by hand: `("trusted/attest", &["trusted/protocol", "ring"])`. A name with a slash,
    /// `testkit` and `xtask` are ours; the rest is from elsewhere.
    pub(crate) fn drawn(edges: &[(&str, &[&str])]) -> Graph {
        let mut graph = Graph::default();
        for (from, to) in edges {
            let from = place(&mut graph, from);
            let normal: Vec<_> = to.iter().map(|name| place(&mut graph, name)).collect();
            graph.crates[from].normal.extend(normal);
        }
        graph
    }

    pub(crate) fn place(graph: &mut Graph, name: &str) -> Index {
        let folder = (name.contains('/') || ["testkit", "bench", "xtask"].contains(&name))
            .then(|| name.to_owned());
        let name = name
            .rsplit_once('/')
            .map_or(name.to_owned(), |(_, last)| format!("sesemi-{last}"));
        graph
            .crates
            .iter()
            .position(|it| it.name == name)
            .unwrap_or_else(|| {
                graph.crates.push(Crate {
                    name,
                    version: "1.0.0".into(),
                    folder,
                    ..Crate::default()
                });
                graph.crates.len() - 1
            })
    }

    fn names(graph: &Graph, indices: impl IntoIterator<Item = Index>) -> BTreeSet<&str> {
        indices
            .into_iter()
            .map(|index| graph.crates[index].name.as_str())
            .collect()
    }

    #[test]
    fn what_is_linked_leaves_out_macros_and_build_dependencies_and_what_only_they_use() {
        let mut graph = drawn(&[
            ("trusted/semirt", &["serde"]),
            ("serde", &["serde_derive"]),
            ("serde_derive", &["syn"]),
        ]);
        let (derive, cc) = (place(&mut graph, "serde_derive"), place(&mut graph, "cc"));
        graph.crates[derive].is_proc_macro = true;
        graph.crates[0].build.push(cc);
        let linked = graph.closure(0, Follow::Linked);
        assert_eq!(
            names(&graph, linked),
            BTreeSet::from(["sesemi-semirt", "serde"])
        );
        let everything = graph.closure(0, Follow::Everything);
        assert_eq!(
            names(&graph, everything),
            BTreeSet::from(["cc", "sesemi-semirt", "serde", "serde_derive", "syn"])
        );
    }

    #[test]
    fn a_path_is_a_shortest_one_and_a_circle_ends() {
        let graph = drawn(&[("a", &["b", "c"]), ("b", &["c", "a"]), ("c", &["d"])]);
        let paths = graph.paths(0, Follow::Linked);
        let words: BTreeSet<_> = paths.values().map(|path| graph.in_words(path)).collect();
        assert_eq!(
            words,
            BTreeSet::from(["a", "a -> b", "a -> c", "a -> c -> d"].map(String::from))
        );
    }
}
