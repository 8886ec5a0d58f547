//! What was found: a table for people, JSON for tools.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use sesemi::in_one_line;
use sesemi_engines::InstallError;

use crate::Outcome;
use crate::models::RealModel;

/// What became of a model on an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Its answers are those of plain ONNX Runtime.
    Agrees,
    /// The engine cannot run it, which was said at compile and again at load.
    Refused,
    /// It could not be had.
    Skipped,
    /// Anything else.
    Failed,
}

/// One model on one engine.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) model: &'static str,
    pub(crate) package: &'static str,
    pub(crate) engine: Option<&'static str>,
    pub(crate) state: State,
    /// The form that was compiled for it.
    pub(crate) form: Option<String>,
    pub(crate) largest_difference: Option<f64>,
    pub(crate) tolerance: f64,
    /// Why it is not as it should be.
    pub(crate) reason: Option<String>,
}

impl Row {
    pub(crate) fn new(model: &RealModel, engine: &'static str, state: State) -> Self {
        Self {
            model: model.name,
            package: model.package,
            engine: Some(engine),
            state,
            form: None,
            largest_difference: None,
            tolerance: model.tolerance,
            reason: None,
        }
    }

    /// Of a model that did not come, or for which there is no ONNX Runtime. Only where that cannot be had at all is it skipped: another
    /// package than the pinned one, or a full disk, is a failure.
    pub(crate) fn not_had(model: &RealModel, error: &InstallError) -> Self {
        let state = if error.cannot_be_had() {
            State::Skipped
        } else {
            State::Failed
        };
        Self {
            engine: None,
            reason: Some(in_one_line(error)),
            ..Self::new(model, "", state)
        }
    }

    pub(crate) fn failed(model: &RealModel, engine: &'static str, why: String) -> Self {
        Self {
            reason: Some(why),
            ..Self::new(model, engine, State::Failed)
        }
    }
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Fails if anything failed, and if nothing was compared, which shows nothing, unless skips are allowed.
    pub(crate) fn verdict(&self, allow_skips: bool) -> Outcome<()> {
        let count = |state| self.rows.iter().filter(|row| row.state == state).count();
        match (count(State::Failed), count(State::Agrees)) {
            (0, 0) if !allow_skips => Err(
                "no answer of any model was compared with plain ONNX Runtime's, for the reasons above; --allow-skips takes that for a \
                 success"
                    .to_owned(),
            ),
            (0, _) => Ok(()),
            (failed, _) => Err(format!("{failed} of {} rows failed", self.rows.len())),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Outcome<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        let written = std::fs::write(file, text + "\n");
        written.map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} {:<12} {:<8} {:<22} {:>10} {:>10}",
            "MODEL", "ENGINE", "STATE", "FORM", "DIFFERS", "MAY"
        )?;
        for row in &self.rows {
            let state = format!("{:?}", row.state).to_lowercase();
            let difference = row
                .largest_difference
                .map_or("-".into(), |it| format!("{it:.1e}"));
            write!(
                f,
                "\n{:<12} {:<12} {state:<8} {:<22} {difference:>10} {:>10.1e}",
                row.model,
                row.engine.unwrap_or("-"),
                row.form.as_deref().unwrap_or("-"),
                row.tolerance
            )?;
            if let Some(reason) = &row.reason {
                write!(f, "\n             {reason}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::{InstallError, Report, Row, State};
    use crate::models::MODELS;

    fn report(rows: Vec<Row>) -> Report {
        Report { rows }
    }

    fn row(state: State) -> Row {
        Row::new(&MODELS[0], "rten", state)
    }

    #[test]
    fn a_run_that_compared_nothing_is_no_success_unless_that_is_allowed() {
        let nothing = [
            vec![],
            vec![row(State::Skipped)],
            vec![row(State::Refused), row(State::Skipped)],
        ];
        for rows in nothing {
            let report = report(rows);
            let why = report.verdict(false).unwrap_err();
            assert!(why.contains("--allow-skips"), "{why}");
            report.verdict(true).unwrap();
        }
        let some = report(vec![row(State::Agrees), row(State::Skipped)]);
        some.verdict(false).unwrap();
        let failed = report(vec![row(State::Agrees), row(State::Failed)]);
        assert_eq!(failed.verdict(true).unwrap_err(), "1 of 2 rows failed");
    }

    #[test]
    fn only_what_cannot_be_had_is_skipped() {
        let state = |error: &InstallError| Row::not_had(&MODELS[0], error).state;
        assert_eq!(state(&InstallError::Slow(600)), State::Skipped);
        let other = InstallError::Package {
            package: MODELS[0].package.to_owned(),
            said: "DO NOT MATCH THE HASHES".to_owned(),
        };
        let full = InstallError::Io {
            path: "cache".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        for fault in [other, full] {
            assert_eq!(state(&fault), State::Failed, "{fault}");
        }
    }
}
