//! What `sesemi-bench` prints about one subject, as figures and as a table.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Outcome;
use crate::measurement::{Figure, Measurement};

/// What the program prints.
#[derive(Deserialize)]
pub(super) struct Report {
    pub(super) tee: String,
    pub(super) engine: Option<String>,
    pub(super) threads: Option<u32>,
    metrics: Vec<Samples>,
}

/// The samples of one figure, in the order of the rounds.
#[derive(Deserialize)]
struct Samples {
    name: String,
    unit: String,
    at_most: Option<f64>,
    at_least: Option<f64>,
    /// The figure that this one explains.
    explains: Option<String>,
    samples: Vec<f64>,
}

/// Which figures explain a figure, by its name.
pub(super) type Explanations = BTreeMap<String, Vec<String>>;

impl Report {
    /// The figures, in the report's order.
    pub(super) fn figures(&self) -> Outcome<Vec<Figure>> {
        let figures = self.metrics.iter().map(|samples| {
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

    pub(super) fn explanations(&self) -> Explanations {
        let mut all = Explanations::new();
        for samples in &self.metrics {
            if let Some(figure) = &samples.explains {
                let names = all.entry(figure.clone()).or_default();
                names.push(samples.name.clone());
            }
        }
        all
    }
}

/// A row for each figure: its median, spread and aim. Those that explain another come below it, if it missed its aim.
pub(super) fn in_words(measurement: &Measurement, explanations: &Explanations) -> String {
    let head = format!(
        "{}, TEE: {}, commit {}\n\n{:<44} {:>12} {:>10}  {:<20} aim\n",
        measurement.machine, measurement.tee, measurement.commit, "median", "", "spread", "unit"
    );
    let explaining = |name: &String| explanations.values().flatten().any(|it| it == name);
    let mut text = head;
    for figure in &measurement.figures {
        if explaining(&figure.name) {
            continue;
        }
        text.push_str(&row("", figure));
        if figure.met == Some(false) {
            for name in explanations.get(&figure.name).into_iter().flatten() {
                let mut all = measurement.figures.iter();
                let found = all.find(|figure| figure.name == *name);
                text.extend(found.map(|figure| row("  ", figure)));
            }
        }
    }
    text
}

fn row(indent: &str, figure: &Figure) -> String {
    let aim = match (figure.aim, figure.met) {
        (Some(aim), Some(true)) => format!("{aim}: met"),
        (Some(aim), _) => format!("{aim}: MISSED"),
        (None, _) => String::new(),
    };
    let row = format!(
        "{:<44} {:>12.3} {:>10.3}  {:<20} {aim}",
        format!("{indent}{}", figure.name),
        figure.value,
        figure.spread,
        figure.unit
    );
    format!("{}\n", row.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_str(
            r#"{"tee": "simulated", "engine": null, "threads": null, "metrics": [
                {"name": "keyservice.startup_s", "unit": "s", "at_most": 5.0, "at_least": null, "explains": null, "samples": [6.0, 4.0, 9.0]},
                {"name": "keyservice.durable_ratio", "unit": "times redb alone", "at_most": null, "at_least": 0.7, "explains": null, "samples": [0.8]},
                {"name": "step_a", "unit": "s", "at_most": null, "at_least": null, "explains": "keyservice.startup_s", "samples": [4.0]},
                {"name": "step_b", "unit": "s", "at_most": null, "at_least": null, "explains": "keyservice.durable_ratio", "samples": [2.0]}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_aim_is_a_ceiling_or_a_floor_or_none() {
        let figures = report().figures().unwrap();
        let found: Vec<_> = figures.iter().map(|it| (it.value, it.met)).collect();
        let expected = [
            (6.0, Some(false)),
            (0.8, Some(true)),
            (4.0, None),
            (2.0, None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_missed_aim_is_shown_in_its_row_with_what_explains_it_below() {
        let report = report();
        let measurement = Measurement {
            machine: "Some CPU, 2 cores".into(),
            commit: "0123456789ab".into(),
            tee: "simulated".into(),
            engines: Vec::new(),
            threads: None,
            command: String::new(),
            figures: report.figures().unwrap(),
        };
        let text = in_words(&measurement, &report.explanations());
        assert!(text.contains("s                    5: MISSED"), "{text}");
        assert!(text.contains("0.7: met"), "{text}");
        let names: Vec<&str> = text
            .lines()
            .skip(3)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let expected = ["keyservice.startup_s", "step_a", "keyservice.durable_ratio"];
        assert_eq!(names, expected, "{text}");
    }
}
