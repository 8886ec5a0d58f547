//! Who may depend on whom, and the check of it.
//!
//! The rules are the tables at the top. They say what is allowed: a new crate needs a row, and an edge that no row
//! allows is a violation. Dependencies of tests (`[dev-dependencies]`) are no part of a program and are not looked at.

use std::collections::BTreeSet;
use std::fmt;

use super::graph::{Follow, Graph, Index};
use crate::binaries;

/// What a crate may name under `[dependencies]` and `[build-dependencies]`, of our own crates.
enum Allowed {
    Only(&'static [&'static str]),
    Anything,
}
use Allowed::{Anything, Only};

/// A row for each of our crates, by folder. No row names `testkit`, which is for `[dev-dependencies]` and for the tools of
/// developers (`bench`, `conformance`, `crash`, `fuzz`), nor these, `interleavings` and `paper-models`, on which nothing depends.
const MAY_DEPEND_ON: [(&str, Allowed); 25] = [
    ("trusted/hardening", Only(&[])),
    ("trusted/protocol", Only(&["trusted/hardening"])),
    ("trusted/attest", Only(&["trusted/protocol"])),
    // The gateway writes the same spans as the servers that it calls, and sees no more by it: nothing here holds a secret.
    ("trusted/traces", Only(&["trusted/protocol"])),
    (
        "trusted/process",
        Only(&[
            "trusted/hardening",
            "trusted/protocol",
            "trusted/attest",
            "trusted/traces",
        ]),
    ),
    (
        "trusted/keyservice",
        Only(&[
            "trusted/protocol",
            "trusted/attest",
            "trusted/process",
            "trusted/traces",
        ]),
    ),
    (
        "trusted/semirt",
        Only(&[
            "trusted/protocol",
            "trusted/attest",
            "trusted/process",
            "trusted/traces",
        ]),
    ),
    // A SeMIRT with another engine: nothing depends on it but tools that make what it loads.
    (
        "trusted/onnxruntime",
        Only(&["trusted/protocol", "trusted/process", "trusted/semirt"]),
    ),
    ("host/simtee", Only(&[])),
    (
        "host/platform",
        Only(&["trusted/protocol", "trusted/traces"]),
    ),
    (
        "host/fnpacker",
        Only(&["trusted/protocol", "trusted/traces", "host/platform"]),
    ),
    // Knows nothing but the file format: what reads a model has no business with keys.
    ("client/onnx", Only(&[])),
    // Fetches what is measured later: it needs to know nothing of keys either.
    ("client/engines", Only(&[])),
    // Runs what it makes in the engines that will serve it.
    (
        "client/compile",
        Only(&[
            "client/onnx",
            "trusted/onnxruntime",
            "trusted/protocol",
            "trusted/semirt",
        ]),
    ),
    ("client/sdk", Only(&["trusted/protocol", "trusted/attest"])),
    (
        "client/cli",
        Only(&[
            // Without its engines: the folders that it writes, and what a graph says of itself.
            "client/compile",
            "client/engines",
            "client/onnx",
            "client/sdk",
            "trusted/hardening",
            "trusted/protocol",
            "trusted/attest",
            "trusted/process",
            "host/fnpacker",
            "host/platform",
        ]),
    ),
    // Writes the files of experiments, and needs of the product only how such a file is written.
    // SeMIRT's shared state under a model checker, from the same source files.
    (
        "interleavings",
        Only(&["trusted/protocol", "trusted/attest", "trusted/traces"]),
    ),
    ("packing-bench", Only(&["host/fnpacker", "host/platform"])),
    ("paper-models", Only(&["client/onnx"])),
    ("fuzz", Anything),
    ("testkit", Anything),
    ("bench", Anything),
    ("conformance", Anything),
    ("crash", Anything),
    ("xtask", Only(&[])),
];

/// What no crate of a folder may reach, through however many others. It holds whatever the rows above come to say.
const MUST_NOT_REACH: [(&str, &[&str]); 2] = [
    (
        "trusted/",
        &[
            "host/",
            "client/",
            "fuzz",
            "testkit",
            "bench",
            "conformance",
            "crash",
            "packing-bench",
            "paper-models",
            "xtask",
        ],
    ),
    (
        "host/",
        &[
            "trusted/attest",
            "trusted/process",
            "trusted/keyservice",
            "trusted/semirt",
            "trusted/onnxruntime",
        ],
    ),
];

/// The one cryptographic provider of a trusted binary, in one version.
const PROVIDER: &str = "ring";

/// Other providers, none of which may be linked into a trusted binary.
const OTHER_PROVIDERS: [&str; 15] = [
    "aws-lc-fips-sys",
    "aws-lc-rs",
    "aws-lc-sys",
    "boring",
    "boring-sys",
    "graviola",
    "mbedtls",
    "native-tls",
    "openssl",
    "openssl-sys",
    "rustls-graviola",
    "rustls-mbedcrypto-provider",
    "rustls-openssl",
    "rustls-rustcrypto",
    "wolfssl-sys",
];

/// Implementations of a hash that come through a library's own dependencies: said, not forbidden.
const HASHES: [&str; 7] = [
    "blake2",
    "hmac",
    "md-5",
    "sha1",
    "sha2",
    "sha3",
    "tiny-keccak",
];

/// A rule that does not hold, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every rule that the graph breaks.
pub(crate) fn check(graph: &Graph) -> Vec<Violation> {
    let (mut violations, forbidden) = direct_edges(graph);
    violations.extend(reaches(graph, &forbidden));
    for binary in binaries::in_tee().filter_map(|binary| graph.member(binary.package)) {
        violations.extend(providers(graph, binary));
    }
    violations
}

type Edges = BTreeSet<(Index, Index)>;

fn direct_edges(graph: &Graph) -> (Vec<Violation>, Edges) {
    let (mut violations, mut forbidden) = (Vec::new(), Edges::new());
    for (from, folder) in graph.members() {
        let name = &graph.crates[from].name;
        let Some((_, allowed)) = MAY_DEPEND_ON.iter().find(|(row, _)| *row == folder) else {
            violations.push(Violation(format!(
                "{name} ({folder}) has no row in the rules of xtask/src/tcb/rules.rs"
            )));
            continue;
        };
        let Only(allowed) = allowed else { continue };
        let edges: BTreeSet<_> = graph.direct(from, Follow::Everything).collect();
        for to in edges {
            let Some(target) = graph.crates[to]
                .folder
                .as_deref()
                .filter(|target| !allowed.contains(target))
            else {
                continue;
            };
            forbidden.insert((from, to));
            let edge = graph.in_words(&[from, to]);
            violations.push(Violation(format!(
                "{edge}: {folder} may not depend on {target}"
            )));
        }
    }
    (violations, forbidden)
}

/// Ways to a place that must not be reached, except those over an edge that is reported already.
fn reaches(graph: &Graph, reported: &Edges) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (from, folder) in graph.members() {
        let paths = graph.paths(from, Follow::Everything);
        for (_, targets) in MUST_NOT_REACH
            .iter()
            .filter(|(source, _)| folder.starts_with(source))
        {
            for (to, target) in graph
                .members()
                .filter(|(_, it)| targets.iter().any(|target| it.starts_with(target)))
            {
                let Some(path) = paths.get(&to) else { continue };
                if path
                    .windows(2)
                    .any(|edge| reported.contains(&(edge[0], edge[1])))
                {
                    continue;
                }
                let way = graph.in_words(path);
                violations.push(Violation(format!(
                    "{way}: {folder} may not reach {target}, also not through others"
                )));
            }
        }
    }
    violations
}

fn providers(graph: &Graph, binary: Index) -> Vec<Violation> {
    let name = &graph.crates[binary].name;
    let mut violations = Vec::new();
    for way in ways_to(graph, binary, &OTHER_PROVIDERS) {
        violations.push(Violation(format!(
            "{way}: {name} may use no cryptographic provider but {PROVIDER}"
        )));
    }
    let own = ways_to(graph, binary, &[PROVIDER]);
    if own.len() > 1 {
        let ways = own.join(", ");
        violations.push(Violation(format!(
            "{ways}: {name} links {} versions of {PROVIDER}",
            own.len()
        )));
    }
    violations
}

/// The ways to the hash implementations that a trusted binary links beside its provider.
pub(crate) fn hashes(graph: &Graph, binary: Index) -> Vec<String> {
    ways_to(graph, binary, &HASHES)
}

fn ways_to(graph: &Graph, binary: Index, names: &[&str]) -> Vec<String> {
    let paths = graph.paths(binary, Follow::Linked);
    let found = paths
        .iter()
        .filter(|(index, _)| names.contains(&graph.crates[**index].name.as_str()));
    let mut ways: Vec<_> = found
        .map(|(index, path)| format!("{} {}", graph.in_words(path), graph.crates[*index].version))
        .collect();
    ways.sort();
    ways
}

#[cfg(test)]
mod tests {
    use super::super::graph::tests::{drawn, place};
    use super::*;

    /// The house as it is planned, with one edge more.
    fn house_with(edge: (&str, &[&str])) -> Vec<String> {
        let graph = drawn(&[
            ("trusted/hardening", &["libc"]),
            ("trusted/protocol", &["trusted/hardening", "ring"]),
            ("trusted/attest", &["trusted/protocol", "ring", "rustls"]),
            ("trusted/process", &["trusted/hardening", "trusted/attest"]),
            (
                "trusted/keyservice",
                &["trusted/protocol", "trusted/attest", "trusted/process"],
            ),
            (
                "trusted/semirt",
                &["trusted/protocol", "trusted/attest", "trusted/process"],
            ),
            ("host/simtee", &["ring"]),
            ("host/platform", &["tokio"]),
            ("host/fnpacker", &["host/platform", "trusted/protocol"]),
            ("client/sdk", &["trusted/protocol", "trusted/attest"]),
            (
                "client/cli",
                &["client/sdk", "host/fnpacker", "host/platform"],
            ),
            (
                "testkit",
                &[
                    "trusted/keyservice",
                    "trusted/semirt",
                    "host/fnpacker",
                    "client/sdk",
                ],
            ),
            (
                "bench",
                &["trusted/keyservice", "client/sdk", "host/simtee"],
            ),
            ("xtask", &["clap"]),
            edge,
        ]);
        check(&graph)
            .into_iter()
            .map(|violation| violation.0)
            .collect()
    }

    #[test]
    fn the_house_as_planned_is_in_order() {
        assert_eq!(house_with(("rustls", &["ring"])), [""; 0]);
    }

    #[test]
    fn a_forbidden_edge_is_found_and_named_once() {
        let cases = [
            (
                ("trusted/attest", "host/platform"),
                "sesemi-attest -> sesemi-platform: trusted/attest may not depend on host/platform",
            ),
            (
                ("trusted/protocol", "trusted/attest"),
                "sesemi-protocol -> sesemi-attest: trusted/protocol may not depend on trusted/attest",
            ),
            (
                ("host/platform", "trusted/attest"),
                "sesemi-platform -> sesemi-attest: host/platform may not depend on trusted/attest",
            ),
            (
                ("host/fnpacker", "client/sdk"),
                "sesemi-fnpacker -> sesemi-sdk: host/fnpacker may not depend on client/sdk",
            ),
            (
                ("client/cli", "testkit"),
                "sesemi-cli -> testkit: client/cli may not depend on testkit",
            ),
            (
                ("client/cli", "bench"),
                "sesemi-cli -> bench: client/cli may not depend on bench",
            ),
            (
                ("xtask", "client/sdk"),
                "xtask -> sesemi-sdk: xtask may not depend on client/sdk",
            ),
        ];
        for ((from, to), expected) in cases {
            assert_eq!(house_with((from, &[to])), [expected]);
        }
    }

    #[test]
    fn a_build_dependency_is_an_edge_too() {
        let mut graph = drawn(&[("trusted/protocol", &[])]);
        let simtee = place(&mut graph, "host/simtee");
        graph.crates[0].build.push(simtee);
        let found = check(&graph);
        assert_eq!(
            found[0].0,
            "sesemi-protocol -> sesemi-simtee: trusted/protocol may not depend on host/simtee"
        );
    }

    #[test]
    fn a_way_through_others_is_found_and_named() {
        // No row looks at what a crate from elsewhere depends on.
        let found = house_with(("tokio", &["trusted/semirt"]));
        let way = "sesemi-platform -> tokio -> sesemi-semirt: host/platform may not reach trusted/semirt, also not through others";
        assert!(found.iter().any(|it| it == way), "{found:#?}");
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let found = house_with(("host/newcomer", &[]));
        assert_eq!(
            found,
            ["sesemi-newcomer (host/newcomer) has no row in the rules of xtask/src/tcb/rules.rs"]
        );
    }

    #[test]
    fn a_second_provider_is_found_in_every_binary_that_links_it() {
        let found = house_with(("trusted/semirt", &["openssl"]));
        let expected = "sesemi-semirt -> openssl 1.0.0: sesemi-semirt may use no cryptographic provider but ring";
        assert_eq!(found, [expected]);
        assert_eq!(house_with(("rustls", &["aws-lc-rs"])).len(), 2);
        assert_eq!(house_with(("host/simtee", &["openssl"])), [""; 0]);
    }

    #[test]
    fn two_versions_of_the_provider_are_found() {
        let mut graph = drawn(&[("trusted/semirt", &["ring"])]);
        let old = graph.crates.len();
        graph.crates.push(super::super::graph::Crate {
            name: "ring".into(),
            version: "0.16.0".into(),
            ..Default::default()
        });
        graph.crates[0].normal.push(old);
        assert!(
            check(&graph)[0]
                .0
                .ends_with("sesemi-semirt links 2 versions of ring")
        );
    }
}
