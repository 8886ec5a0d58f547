//! What is learned of models: how long they run and load, how often they are asked for. Old experience counts less and less.
//!
//! Nothing here is believed for more than an estimate: a wrong one costs time, never an answer.

use std::time::{Duration, Instant};

/// Buckets of a histogram.
const BUCKETS: usize = 48;
/// The lower bound of the first bucket, in seconds.
const LEAST: f64 = 1e-4;
/// Each bucket's bound over the one before: 48 of them reach from 0.1 ms to 180 s.
const FACTOR: f64 = 1.35;
/// Each observation weighs so much more than the one before: half as much after 23 of them.
const GROWTH: f64 = 1.03;
/// Weights are scaled down above this, so that they stay numbers.
const HEAVY: f64 = 1e12;

/// Quantiles of a duration, over observations that count half as much after 23 more.
#[derive(Debug, Clone)]
pub struct Quantiles {
    weights: [f64; BUCKETS],
    total: f64,
    next: f64,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self {
            weights: [0.0; BUCKETS],
            total: 0.0,
            next: 1.0,
        }
    }
}

impl Quantiles {
    /// Counts an observation.
    pub fn observe(&mut self, took: Duration) {
        let bucket = (took.as_secs_f64() / LEAST).max(1.0).ln() / FACTOR.ln();
        // Above 180 s everything is one.
        let bucket = (bucket as usize).min(BUCKETS - 1);
        if let Some(weight) = self.weights.get_mut(bucket) {
            *weight += self.next;
            self.total += self.next;
            self.next *= GROWTH;
        }
        if self.total > HEAVY {
            for weight in &mut self.weights {
                *weight /= HEAVY;
            }
            self.total = self.weights.iter().sum();
            self.next /= HEAVY;
        }
    }

    /// The duration below which `share` (0 to 1) of the observations are, to a fifth. `None` without any.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        if self.total <= 0.0 {
            return None;
        }
        let (mut left, mut last) = (self.total * share.clamp(0.0, 1.0), 0);
        for (bucket, weight) in self.weights.iter().enumerate() {
            if *weight <= 0.0 {
                continue;
            }
            last = bucket;
            if left <= *weight {
                return Some(middle(bucket, left / weight));
            }
            left -= weight;
        }
        // Rounding may leave a rest.
        Some(middle(last, 1.0))
    }
}

/// A point inside a bucket.
fn middle(bucket: usize, part: f64) -> Duration {
    Duration::from_secs_f64(LEAST * FACTOR.powf(bucket as f64 + part))
}

/// How often something happens, in times a second: each event counts for about `memory` and fades.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    last: Option<Instant>,
    per_second: f64,
}

impl Rate {
    /// It happened.
    pub fn happened(&mut self, now: Instant, memory: Duration) {
        self.per_second = self.at(now, memory) + memory.as_secs_f64().max(1e-3).recip();
        self.last = Some(now);
    }

    /// Times a second, as of now.
    #[must_use]
    pub fn at(&self, now: Instant, memory: Duration) -> f64 {
        let Some(last) = self.last else {
            return 0.0;
        };
        let age = now.saturating_duration_since(last).as_secs_f64();
        self.per_second * (-age / memory.as_secs_f64().max(1e-3)).exp()
    }

    /// When it happened last.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(found: Option<Duration>, expected: f64, share: f64) {
        let found = found.unwrap().as_secs_f64();
        assert!((found / expected - 1.0).abs() < share, "{found} {expected}");
    }

    #[test]
    fn quantiles_are_those_of_what_was_seen_to_a_fifth() {
        let mut seen = Quantiles::default();
        assert_eq!(seen.quantile(0.5), None);
        for n in 0..400_u64 {
            // 10 to 109 ms, in a mixed order.
            seen.observe(Duration::from_millis(10 + n * 37 % 100));
        }
        within(seen.quantile(0.5), 0.06, 0.2);
        within(seen.quantile(0.95), 0.104, 0.2);
        within(seen.quantile(0.05), 0.015, 0.25);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut seen = Quantiles::default();
        for _ in 0..1000 {
            seen.observe(Duration::from_millis(10));
        }
        for _ in 0..100 {
            seen.observe(Duration::from_millis(500));
        }
        within(seen.quantile(0.5), 0.5, 0.2);
    }

    #[test]
    fn very_many_and_very_long_observations_stay_numbers() {
        let mut seen = Quantiles::default();
        for _ in 0..100_000 {
            seen.observe(Duration::from_secs(3));
        }
        seen.observe(Duration::MAX);
        seen.observe(Duration::ZERO);
        within(seen.quantile(0.5), 3.0, 0.2);
    }

    #[test]
    fn a_rate_is_that_of_late_and_fades() {
        let (memory, start) = (Duration::from_secs(60), Instant::now());
        let mut rate = Rate::default();
        assert_eq!(rate.at(start, memory), 0.0);
        for n in 0..1200 {
            rate.happened(start + Duration::from_millis(250 * n), memory);
        }
        let end = start + Duration::from_secs(300);
        assert!(
            (rate.at(end, memory) - 4.0).abs() < 0.2,
            "{}",
            rate.at(end, memory)
        );
        assert!(rate.at(end + 3 * memory, memory) < 0.25);
    }
}
