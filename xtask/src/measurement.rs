//! The one shape of every measured result: what was measured, where, on which code, and how sure the figure is.
//!
//! A result without machine, commit and TEE cannot be compared with another, so none of them is optional.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::Outcome;
use crate::workspace::stdout_of;

/// One measurement: some figures, and all that is needed to repeat it.
#[derive(Debug, Serialize)]
pub(crate) struct Measurement {
    /// Processor and number of cores.
    pub(crate) machine: String,
    /// The commit that was measured, with `-dirty` if the checkout had changes.
    pub(crate) commit: String,
    /// Which TEE it ran in. A simulated one is called so.
    pub(crate) tee: String,
    /// Which engines ran the models, where that was the question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) engines: Vec<String>,
    /// How many threads, on as many cores, shared the work, where that was fixed; none if every program took what it wanted.
    pub(crate) threads: Option<u32>,
    /// How to repeat it.
    pub(crate) command: String,
    /// What was found.
    pub(crate) figures: Vec<Figure>,
}

/// One figure of a measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is the figure of, as `what.which_unit`.
    pub(crate) name: String,
    /// The median of the samples.
    pub(crate) value: f64,
    /// The unit of `value`, `aim` and `spread`.
    pub(crate) unit: String,
    /// What it should be; none if nobody has said.
    pub(crate) aim: Option<f64>,
    /// Whether the aim is met; none without an aim.
    pub(crate) met: Option<bool>,
    /// How many samples there are.
    pub(crate) samples: usize,
    /// The largest sample less the smallest.
    pub(crate) spread: f64,
}

impl Figure {
    /// The figure of these samples, without an aim; `None` if there is no sample.
    pub(crate) fn of(name: &str, unit: &str, samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (smallest, largest) = (sorted.first()?, sorted.last()?);
        Some(Self {
            name: name.into(),
            value: median(&sorted)?,
            unit: unit.into(),
            aim: None,
            met: None,
            samples: sorted.len(),
            spread: largest - smallest,
        })
    }

    /// The same figure, which should be `aim` at most.
    pub(crate) fn with_aim_at_most(self, aim: f64) -> Self {
        Self {
            aim: Some(aim),
            met: Some(self.value <= aim),
            ..self
        }
    }

    /// The same figure, which should be `aim` at least.
    pub(crate) fn with_aim_at_least(self, aim: f64) -> Self {
        Self {
            aim: Some(aim),
            met: Some(self.value >= aim),
            ..self
        }
    }
}

/// The middle of sorted samples; of an even number, the mean of the two in the middle.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// This machine: its processor and the number of its cores.
pub(crate) fn machine() -> Outcome<String> {
    let info = fs::read_to_string("/proc/cpuinfo")
        .map_err(|error| format!("cannot read /proc/cpuinfo: {error}"))?;
    Ok(describe(&info))
}

fn describe(cpuinfo: &str) -> String {
    let values = |key: &'static str| {
        let fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields
            .filter(move |(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    };
    let model = values("model name").next().unwrap_or("unknown processor");
    match values("processor").count() {
        1 => format!("{model}, 1 core"),
        cores => format!("{model}, {cores} cores"),
    }
}

/// The commit of this checkout.
pub(crate) fn commit() -> Outcome<String> {
    let head = stdout_of(Command::new("git").args(["rev-parse", "--short=12", "HEAD"]))?;
    let changes = stdout_of(Command::new("git").args(["status", "--porcelain"]))?;
    let dirty = if changes.trim().is_empty() {
        ""
    } else {
        "-dirty"
    };
    Ok(format!("{}{dirty}", head.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_measurement_is_pinned() {
        let measurement = Measurement {
            machine: "Some CPU, 2 cores".into(),
            commit: "0123456789ab-dirty".into(),
            tee: "simulated".into(),
            engines: Vec::new(),
            threads: None,
            command: "cargo xtask bench demo --runs 3".into(),
            figures: vec![Figure::of("demo.cold_ms", "ms", &[30.5, 10.0, 20.25]).unwrap()],
        };
        let expected = r#"{
  "machine": "Some CPU, 2 cores",
  "commit": "0123456789ab-dirty",
  "tee": "simulated",
  "threads": null,
  "command": "cargo xtask bench demo --runs 3",
  "figures": [
    {
      "name": "demo.cold_ms",
      "value": 20.25,
      "unit": "ms",
      "aim": null,
      "met": null,
      "samples": 3,
      "spread": 20.5
    }
  ]
}"#;
        assert_eq!(
            serde_json::to_string_pretty(&measurement).unwrap(),
            expected
        );
    }

    #[test]
    fn the_value_is_the_median_and_no_sample_is_no_figure() {
        let value = |samples: &[f64]| Figure::of("x", "ms", samples).map(|figure| figure.value);
        assert_eq!(value(&[9.0]), Some(9.0));
        assert_eq!(value(&[9.0, 1.0]), Some(5.0));
        assert_eq!(value(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
        assert_eq!(value(&[]), None);
    }

    #[test]
    fn an_aim_is_met_up_to_and_including_itself() {
        let met = |value| {
            let figure = Figure::of("x", "ms", &[value]).unwrap();
            figure.with_aim_at_most(3.0).met
        };
        assert_eq!((met(3.0), met(3.1)), (Some(true), Some(false)));
        let met = |value| {
            let figure = Figure::of("x", "ms", &[value]).unwrap();
            figure.with_aim_at_least(3.0).met
        };
        assert_eq!((met(3.0), met(2.9)), (Some(true), Some(false)));
    }

    #[test]
    fn a_machine_is_its_processor_and_its_cores() {
        let info =
            "processor\t: 0\nmodel name\t: Some CPU\nprocessor\t: 1\nmodel name\t: Some CPU\n";
        assert_eq!(describe(info), "Some CPU, 2 cores");
        assert_eq!(describe("processor : 0\n"), "unknown processor, 1 core");
    }
}
