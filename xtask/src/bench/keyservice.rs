//! `cargo xtask bench keyservice`: what KeyService does with many grants. `crates/bench` measures; here its samples become figures.

use std::path::Path;

use serde::Deserialize;

use crate::Outcome;
use crate::measurement::{Figure, Measurement};

/// What `sesemi-bench keyservice` prints.
#[derive(Deserialize)]
struct Report {
    tee: String,
    metrics: Vec<Samples>,
}

/// The samples of one figure, in the order of the rounds.
#[derive(Deserialize)]
struct Samples {
    name: String,
    unit: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    samples: Vec<f64>,
}

/// The command: so many rounds with so many grants.
pub(crate) fn run(json: Option<&Path>, grants: u32, rounds: u32) -> Outcome<()> {
    let (grants, rounds) = (grants.to_string(), rounds.to_string());
    let arguments = ["keyservice", "--grants", &grants, "--rounds", &rounds];
    let measured = super::measured(&arguments, |report: Report| {
        Ok((figures(&report)?, report.tee, None))
    })?;
    super::tell(&measured, &in_words(&measured), json)
}

fn figures(report: &Report) -> Outcome<Vec<Figure>> {
    let figures = report.metrics.iter().map(|samples| {
        let figure = Figure::of(&samples.name, &samples.unit, &samples.samples)
            .ok_or_else(|| format!("there is no sample of {}", samples.name))?;
        Ok(match (samples.at_most, samples.at_least) {
            (Some(aim), _) => figure.with_aim_at_most(aim),
            (None, Some(aim)) => figure.with_aim_at_least(aim),
            (None, None) => figure,
        })
    });
    figures.collect()
}

/// A row for each figure: its median, spread and aim.
fn in_words(measurement: &Measurement) -> String {
    let head = format!(
        "{}, TEE: {}, commit {}\n\n{:<34} {:>12} {:>10}  {:<20} aim\n",
        measurement.machine, measurement.tee, measurement.commit, "median", "", "spread", "unit"
    );
    let rows = measurement.figures.iter().map(|figure| {
        let aim = match (figure.aim, figure.met) {
            (Some(aim), Some(true)) => format!("{aim}: met"),
            (Some(aim), _) => format!("{aim}: MISSED"),
            (None, _) => String::new(),
        };
        let row = format!(
            "{:<34} {:>12.3} {:>10.3}  {:<20} {aim}",
            figure.name, figure.value, figure.spread, figure.unit
        );
        format!("{}\n", row.trim_end())
    });
    core::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_str(
            r#"{"tee": "simulated", "metrics": [
                {"name": "keyservice.startup_s", "unit": "s", "at_most": 5.0, "at_least": null, "samples": [6.0, 4.0, 9.0]},
                {"name": "keyservice.durable_ratio", "unit": "times redb alone", "at_most": null, "at_least": 0.7, "samples": [0.8]},
                {"name": "keyservice.redb_alone", "unit": "values/s", "at_most": null, "at_least": null, "samples": [2.0]}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_aim_is_a_ceiling_or_a_floor_or_none() {
        let figures = figures(&report()).unwrap();
        let found: Vec<_> = figures.iter().map(|it| (it.value, it.met)).collect();
        assert_eq!(found, [(6.0, Some(false)), (0.8, Some(true)), (2.0, None)]);
    }

    #[test]
    fn a_missed_aim_is_shown_in_its_row() {
        let text = in_words(&Measurement {
            machine: "Some CPU, 2 cores".into(),
            commit: "0123456789ab".into(),
            tee: "simulated".into(),
            threads: None,
            command: String::new(),
            figures: figures(&report()).unwrap(),
        });
        assert!(text.contains("s                    5: MISSED"), "{text}");
        assert!(text.contains("0.7: met"), "{text}");
    }
}
