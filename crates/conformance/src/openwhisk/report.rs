//! What was found: a table for people, JSON for tools.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::Outcome;

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Passed,
    Failed,
    /// It could not be tried.
    Skipped,
    /// It asks for what SeMIRT is not.
    NotApplicable,
}

/// One case.
#[derive(Debug, Serialize)]
pub(super) struct Case {
    suite: &'static str,
    case: String,
    state: State,
    /// What was seen, or why it was not tried.
    detail: String,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    tee: &'static str,
    cases: Vec<Case>,
}

impl Report {
    pub(super) fn add(
        &mut self,
        suite: &'static str,
        case: &str,
        state: State,
        detail: impl Into<String>,
    ) {
        self.tee = "simulated";
        self.cases.push(Case {
            suite,
            case: case.to_owned(),
            state,
            detail: detail.into(),
        });
    }

    /// A case that was tried: what was seen, or what was wrong.
    pub(super) fn tried(&mut self, suite: &'static str, case: &str, seen: Outcome<String>) {
        match seen {
            Ok(detail) => self.add(suite, case, State::Passed, detail),
            Err(detail) => self.add(suite, case, State::Failed, detail),
        }
    }

    /// Fails if a case failed, and if some could not be tried, unless that is allowed.
    pub(super) fn verdict(&self, allow_skips: bool) -> Outcome<()> {
        let count = |state| self.cases.iter().filter(|case| case.state == state).count();
        let all = self.cases.len();
        match (count(State::Failed), count(State::Skipped)) {
            _ if count(State::Passed) == 0 => Err("no case was tried with success".to_owned()),
            (0, 0) => Ok(()),
            (0, _) if allow_skips => Ok(()),
            (0, skipped) => Err(format!(
                "{skipped} of {all} cases could not be tried, for the reasons above; --allow-skips takes that for a success"
            )),
            (failed, _) => Err(format!("{failed} of {all} cases failed")),
        }
    }

    pub(super) fn write(&self, file: &Path) -> Outcome<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        let written = std::fs::write(file, text + "\n");
        written.map_err(|error| format!("cannot write {}: {error}", file.display()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:<52} {:<8} SEEN", "SUITE", "CASE", "STATE")?;
        for case in &self.cases {
            let state = match case.state {
                State::Passed => "passed",
                State::Failed => "FAILED",
                State::Skipped => "skipped",
                State::NotApplicable => "n/a",
            };
            let detail: String = case.detail.chars().take(160).collect();
            write!(
                f,
                "\n{:<10} {:<52} {state:<8} {detail}",
                case.suite, case.case
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn report(states: &[State]) -> Report {
        let mut report = Report::default();
        for state in states {
            report.add("suite", "case", *state, "");
        }
        report
    }

    #[test]
    fn what_failed_or_was_not_tried_is_no_success() {
        use State::{Failed, NotApplicable, Passed, Skipped};
        assert_eq!(report(&[Passed, NotApplicable]).verdict(false), Ok(()));
        let skipped = report(&[Passed, Skipped]);
        assert!(
            skipped
                .verdict(false)
                .unwrap_err()
                .contains("--allow-skips")
        );
        assert_eq!(skipped.verdict(true), Ok(()));
        let failed = report(&[Passed, Failed, Skipped]);
        assert_eq!(failed.verdict(true).unwrap_err(), "1 of 3 cases failed");
        for nothing in [&[][..], &[Skipped], &[NotApplicable]] {
            assert!(report(nothing).verdict(true).is_err());
        }
    }
}
