//! `cargo xtask bench keyservice`: what KeyService does with many grants. `crates/bench` measures; here its samples become figures.

use std::path::Path;

use super::table::{Explanations, Report, in_words};
use crate::Outcome;

/// The command: so many rounds with so many grants.
pub(crate) fn run(json: Option<&Path>, grants: u32, rounds: u32) -> Outcome<()> {
    let (grants, rounds) = (grants.to_string(), rounds.to_string());
    let arguments = ["keyservice", "--grants", &grants, "--rounds", &rounds];
    let measured = super::measured(&arguments, |report: Report| {
        Ok((report.figures()?, report.tee, None))
    })?;
    super::tell(&measured, &in_words(&measured, &Explanations::new()), json)
}
