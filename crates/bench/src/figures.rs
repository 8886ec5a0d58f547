//! What this program prints: the samples of each figure, raw, with what the figure should be.

use serde::Serialize;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The TEE that the enclaves ran in.
    pub(crate) tee: &'static str,
    /// The engine that ran the models, where any did.
    pub(crate) engine: Option<String>,
    /// How many threads an engine had.
    pub(crate) threads: Option<usize>,
    pub(crate) metrics: Vec<Samples>,
}

/// The samples of one figure.
#[derive(Debug, Serialize)]
pub(crate) struct Samples {
    name: String,
    unit: &'static str,
    at_most: Option<f64>,
    at_least: Option<f64>,
    /// The figure that this one explains, if it is of interest only where that one is not what it should be.
    explains: Option<String>,
    samples: Vec<f64>,
}

impl Samples {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self {
            name: name.into(),
            unit,
            at_most: None,
            at_least: None,
            explains: None,
            samples,
        }
    }

    pub(crate) fn at_most(self, aim: f64) -> Self {
        Self {
            at_most: Some(aim),
            ..self
        }
    }

    pub(crate) fn at_least(self, aim: f64) -> Self {
        Self {
            at_least: Some(aim),
            ..self
        }
    }

    pub(crate) fn explaining(self, figure: &str) -> Self {
        Self {
            explains: Some(figure.to_owned()),
            ..self
        }
    }
}
