//! `cargo xtask bench attest`: what attestation costs. `crates/bench` measures; here its samples become figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use crate::Outcome;
use crate::measurement::{Figure, Measurement};

/// What `sesemi-bench attest` prints.
#[derive(Deserialize)]
struct Report {
    tee: String,
    threads: u32,
    baseline: String,
    metrics: Vec<Samples>,
}

/// The samples of one metric, in milliseconds, in the order of the rounds.
#[derive(Deserialize)]
struct Samples {
    name: String,
    aim_ms: Option<f64>,
    compares: bool,
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

/// The command: `runs` rounds, or as many as begin within `limit` seconds.
pub(crate) fn run(json: Option<&Path>, runs: u32, limit: u64) -> Outcome<()> {
    eprintln!("measuring for {limit} s at most");
    let (runs, limit) = (runs.to_string(), limit.to_string());
    let arguments = ["attest", "--runs", &runs, "--limit", &limit];
    let measured = super::measured(&arguments, |report: Report| {
        Ok((figures(&report)?, report.tee, Some(report.threads)))
    })?;
    super::tell(&measured, &in_words(&measured), json)
}

/// For each metric the wall clock's time and the CPU time; for connections also how many times the baseline's they take.
fn figures(report: &Report) -> Outcome<Vec<Figure>> {
    let mut metrics = report.metrics.iter();
    let baseline = metrics
        .find(|samples| samples.name == report.baseline)
        .ok_or("the baseline was not measured")?;
    let mut all = Vec::new();
    for samples in &report.metrics {
        let name = &samples.name;
        let figure = |name: String, unit: &str, values: &[f64]| {
            Figure::of(&name, unit, values).ok_or_else(|| format!("there is no sample of {name}"))
        };
        let wall = figure(format!("{name}_ms"), "ms", &samples.wall_ms)?;
        all.push(match samples.aim_ms {
            Some(aim) => wall.with_aim_at_most(aim),
            None => wall,
        });
        all.push(figure(format!("{name}_cpu_ms"), "ms", &samples.cpu_ms)?);
        if samples.compares {
            let unit = format!("times {}_cpu_ms", baseline.name);
            let ratios = ratios(&samples.cpu_ms, &baseline.cpu_ms);
            all.push(figure(format!("{name}_ratio"), &unit, &ratios)?);
        }
    }
    Ok(all)
}

/// Round by round, so that a slow moment of the machine slows both sides of the ratio; of CPU times, because on a busy
/// machine the longer of two times is the one that is interrupted.
fn ratios(these: &[f64], those: &[f64]) -> Vec<f64> {
    these.iter().zip(those).map(|(a, b)| a / b).collect()
}

/// A row for each metric: what the wall clock said, its spread and aim, CPU time, and the ratio.
fn in_words(measurement: &Measurement) -> String {
    let by_name: BTreeMap<&str, &Figure> = measurement
        .figures
        .iter()
        .map(|figure| (figure.name.as_str(), figure))
        .collect();
    let mut text = format!(
        "{}, TEE: {}, commit {}\n\n{:<31} {:>9} {:>9} {:>9} {:>9} {:>7}  aim\n",
        measurement.machine,
        measurement.tee,
        measurement.commit,
        "median of times in ms",
        "wall",
        "spread",
        "cpu",
        "samples",
        "x TLS"
    );
    for figure in &measurement.figures {
        let Some(name) = figure
            .name
            .strip_suffix("_ms")
            .filter(|name| !name.ends_with("_cpu"))
        else {
            continue;
        };
        let value = |suffix: &str| {
            let found = by_name.get(format!("{name}{suffix}").as_str());
            found.map_or(String::new(), |figure| format!("{:.2}", figure.value))
        };
        let aim = match (figure.aim, figure.met) {
            (Some(aim), Some(true)) => format!("at most {aim} ms: met"),
            (Some(aim), _) => format!("at most {aim} ms: MISSED"),
            (None, _) => String::new(),
        };
        let row = format!(
            "{name:<31} {:>9.3} {:>9.3} {:>9} {:>9} {:>7}  {aim}",
            figure.value,
            figure.spread,
            value("_cpu_ms"),
            figure.samples,
            value("_ratio"),
        );
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        serde_json::from_str(
            r#"{"tee": "simulated", "threads": 1, "baseline": "attest.tls", "metrics": [
                {"name": "attest.tls", "aim_ms": null, "compares": false,
                 "wall_ms": [1.0, 2.0, 10.0], "cpu_ms": [1.0, 1.0, 1.0]},
                {"name": "attest.channel", "aim_ms": 3.0, "compares": true,
                 "wall_ms": [3.0, 5.0, 40.0], "cpu_ms": [2.5, 2.5, 2.5]}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn samples_become_times_with_their_aim_and_ratios_round_by_round() {
        let figures = figures(&report()).unwrap();
        let found: Vec<_> = figures
            .iter()
            .map(|it| (it.name.as_str(), it.value, it.unit.as_str(), it.met))
            .collect();
        let expected = [
            ("attest.tls_ms", 2.0, "ms", None),
            ("attest.tls_cpu_ms", 1.0, "ms", None),
            ("attest.channel_ms", 5.0, "ms", Some(false)),
            ("attest.channel_cpu_ms", 2.5, "ms", None),
            ("attest.channel_ratio", 2.5, "times attest.tls_cpu_ms", None),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn without_its_baseline_nothing_is_compared() {
        let report = Report {
            baseline: "attest.other".into(),
            ..report()
        };
        assert_eq!(
            figures(&report).unwrap_err(),
            "the baseline was not measured"
        );
    }

    #[test]
    fn a_missed_aim_is_shown_in_its_row() {
        let text = in_words(&Measurement {
            machine: "Some CPU, 2 cores".into(),
            commit: "0123456789ab".into(),
            tee: "simulated".into(),
            engines: Vec::new(),
            threads: Some(1),
            command: String::new(),
            figures: figures(&report()).unwrap(),
        });
        let rows: Vec<&str> = text.lines().skip(3).collect();
        assert_eq!(rows.len(), 2, "{text}");
        assert!(
            rows[0].starts_with("attest.tls ") && rows[0].ends_with(" 3"),
            "{text}"
        );
        assert!(rows[1].ends_with("2.50  at most 3 ms: MISSED"), "{text}");
    }
}
