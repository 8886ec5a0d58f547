//! Where the time of requests went, as SeMIRT says inside its sealed answers: what a figure that missed its aim is explained by.

use sesemi::Report;

use super::bound::Pieces;
use crate::figures::Samples;

/// Reports beside the whole time that their requests took.
#[derive(Default)]
pub(crate) struct Steps {
    total: Vec<f64>,
    reports: Vec<Report>,
}

impl Steps {
    pub(crate) fn add(&mut self, total_ms: f64, report: Report) {
        self.total.push(total_ms);
        self.reports.push(report);
    }

    /// The whole time of each, in milliseconds.
    pub(crate) fn total(&self) -> &[f64] {
        &self.total
    }

    /// What of the whole was not the run, in milliseconds. It says what a call adds even where a busy machine makes two runs of one
    /// engine differ by more than that.
    pub(crate) fn outside_run(&self) -> Vec<f64> {
        let all = self.total.iter().zip(&self.reports);
        all.map(|(total, report)| total - report.steps.run_us as f64 / 1e3)
            .collect()
    }

    /// A figure for each step, and for what is left of the whole: both ends' sealing, HTTP, and in a cold start the process.
    pub(crate) fn samples(&self, figure: &str) -> Vec<Samples> {
        let step = |name: &str, of: fn(&Report) -> u64| {
            let all = self.reports.iter().map(|report| of(report) as f64 / 1e3);
            explaining(figure, &format!("step_{name}"), all.collect())
        };
        let rest = self.total.iter().zip(&self.reports);
        let rest = rest.map(|(total, report)| total - in_the_enclave(report));
        vec![
            explaining(figure, "whole", self.total.clone()),
            step("queue", |it| it.steps.queue_us),
            step("key", |it| it.steps.key_us),
            step("fetch", |it| it.steps.fetch_us),
            step("decrypt", |it| it.steps.decrypt_us),
            step("load", |it| it.steps.load_us),
            step("open", |it| it.steps.open_us),
            step("run", |it| it.steps.run_us),
            explaining(figure, "rest", rest.collect()),
        ]
    }
}

/// The parts of a bound, next to which the steps are read.
pub(crate) fn of_bound(figure: &str, pieces: &[Pieces]) -> Vec<Samples> {
    let piece = |name: &str, of: fn(&Pieces) -> f64| {
        explaining(figure, name, pieces.iter().map(of).collect())
    };
    vec![
        piece("bound", Pieces::sum),
        piece("bound_process", |it| it.process_ms),
        piece("bound_init", |it| it.init_ms),
        piece("bound_decrypt", |it| it.decrypt_ms),
        piece("bound_load", |it| it.load_ms),
        piece("bound_run", |it| it.run_ms),
    ]
}

/// `hot.overhead_ratio.tiny.rten` is explained by `hot.step_run_ms.tiny.rten`.
pub(crate) fn explaining(figure: &str, what: &str, samples: Vec<f64>) -> Samples {
    let mut words = figure.split('.');
    let command = words.next().unwrap_or_default();
    let of: String = words.skip(1).flat_map(|word| [".", word]).collect();
    Samples::new(format!("{command}.{what}_ms{of}"), "ms", samples).explaining(figure)
}

fn in_the_enclave(report: &Report) -> f64 {
    let it = &report.steps;
    let steps = [
        it.queue_us,
        it.key_us,
        it.fetch_us,
        it.decrypt_us,
        it.load_us,
        it.open_us,
        it.run_us,
    ];
    steps.iter().sum::<u64>() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use sesemi::{ModelVersion, Path};

    #[test]
    fn what_no_step_explains_is_the_rest() {
        let report = Report {
            path: Path::Hot,
            steps: sesemi::Steps {
                queue_us: 500,
                run_us: 2_000,
                ..sesemi::Steps::default()
            },
            version: ModelVersion::new(1).unwrap(),
        };
        let mut steps = Steps::default();
        steps.add(4.0, report);
        let samples = steps.samples("hot.overhead_ratio.tiny.rten");
        let json = serde_json::to_value(&samples).unwrap();
        let of = |name: &str| {
            let all = json.as_array().unwrap();
            let found = all.iter().find(|it| it["name"] == name).unwrap();
            assert_eq!(found["explains"], "hot.overhead_ratio.tiny.rten");
            found["samples"][0].as_f64().unwrap()
        };
        assert_eq!(of("hot.step_run_ms.tiny.rten"), 2.0);
        assert_eq!(of("hot.whole_ms.tiny.rten"), 4.0);
        assert_eq!(of("hot.rest_ms.tiny.rten"), 1.5);
    }
}
