//! What came of traffic: latencies and memory, as figures.

use std::time::Duration;

/// One call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Served {
    /// Its model.
    pub model: usize,
    /// From the call to the answer.
    pub took: Duration,
    /// Whether an instance was started for it.
    pub cold: bool,
}

/// What came of all calls.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Calls with an answer.
    pub served: Vec<Served>,
    /// Calls that were refused.
    pub refused: usize,
    /// Memory of all instances over time, in GB-seconds.
    pub gb_s: f64,
}

impl Outcome {
    /// The latency below which `share` (0 to 1) of the answers are, in milliseconds; 0 without answers.
    #[must_use]
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let mut all: Vec<Duration> = self.served.iter().map(|it| it.took).collect();
        all.sort();
        // The nearest rank.
        let rank = (share * all.len() as f64).ceil() as usize;
        let value = all.get(rank.saturating_sub(1).min(all.len().saturating_sub(1)));
        value.map_or(0.0, |it| it.as_secs_f64() * 1e3)
    }

    /// The part of answers for which an instance was started.
    #[must_use]
    pub fn cold_share(&self) -> f64 {
        let cold = self.served.iter().filter(|it| it.cold).count();
        cold as f64 / self.served.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let served = (1..=200).map(|ms| Served {
            model: 0,
            took: Duration::from_millis(ms),
            cold: ms > 150,
        });
        let outcome = Outcome {
            served: served.collect(),
            ..Outcome::default()
        };
        assert_eq!(outcome.quantile_ms(0.5), 100.0);
        assert_eq!(outcome.quantile_ms(0.99), 198.0);
        assert_eq!(outcome.quantile_ms(1.0), 200.0);
        assert_eq!(outcome.cold_share(), 0.25);
        assert_eq!(Outcome::default().quantile_ms(0.5), 0.0);
    }
}
