//! What was found, as JSON for machines and as a table for people.

use std::fmt;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// How one thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It can be used.
    Ready,
    /// It is there, and weaker than it should be.
    Weak,
    /// It is not there, or not set up.
    Absent,
    /// Nothing to judge.
    Info,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// Its name.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was seen.
    pub detail: String,
    /// What to do if it is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

/// Things that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Its name, for machines.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// What was looked at.
    pub facts: Vec<Fact>,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What a SeSeMI started here is protected by: `nothing (simulated)`, or the TEEs that are ready.
    pub protects: String,
    /// The TEEs that a trusted program started here can run in.
    pub usable: Vec<&'static str>,
    /// The kinds of confidential virtual machine that this machine can host.
    pub hosts: Vec<&'static str>,
    /// Part by part.
    pub sections: Vec<Section>,
}

impl Fact {
    /// A thing and what was seen of it.
    pub(super) fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self {
            name,
            state,
            detail: detail.into(),
            hint: None,
        }
    }

    /// Ready, or absent with this hint.
    pub(super) fn ready_if(
        name: &'static str,
        ready: bool,
        detail: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        let state = if ready { State::Ready } else { State::Absent };
        let mut fact = Self::new(name, state, detail);
        fact.hint = (!ready).then_some(hint);
        fact
    }
}

impl Report {
    /// As one line of JSON.
    #[must_use]
    pub fn as_json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Weak => "weak",
            Self::Absent => "absent",
            Self::Info => "",
        }
    }

    fn style(self) -> Style {
        let colour = match self {
            Self::Ready => AnsiColor::Green,
            Self::Weak => AnsiColor::Yellow,
            Self::Absent => AnsiColor::BrightBlack,
            Self::Info => return Style::new(),
        };
        colour.on_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bold = Style::new().bold();
        writeln!(f, "{bold}protects: {}{bold:#}", self.protects)?;
        for Section { name, about, facts } in &self.sections {
            writeln!(f, "\n{bold}{name}{bold:#}  {about}")?;
            for fact in facts {
                let style = fact.state.style();
                let (name, word) = (fact.name, fact.state.word());
                writeln!(f, "  {name:<16} {style}{word:<7}{style:#} {}", fact.detail)?;
                if let Some(hint) = fact.hint {
                    writeln!(f, "{:26} -> {hint}", "")?;
                }
            }
        }
        writeln!(
            f,
            "\nThis is what the kernel shows. A host can show its guests anything: only verified evidence proves a TEE."
        )
    }
}
