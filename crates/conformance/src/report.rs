//! What was found: a table for people, JSON for tools.

use std::fmt;
use std::path::Path;

use serde::Serialize;

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

    pub(crate) fn skipped(model: &RealModel, why: String) -> Self {
        Self {
            engine: None,
            reason: Some(why),
            ..Self::new(model, "", State::Skipped)
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

    /// Whether nothing failed. What was skipped did not.
    pub(crate) fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.state != State::Failed)
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
