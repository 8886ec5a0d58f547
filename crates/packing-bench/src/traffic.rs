//! Who asks for what, when: the traffic that policies are compared on. The same seed gives the same traffic.
//!
//! | pattern | what it is |
//! |---|---|
//! | `poisson` | single requests, arrivals without memory, models by Zipf's law |
//! | `bursts` | the same, but the rate jumps between low and high: a Markov-modulated Poisson process of two states |
//! | `sessions` | people who call five models in turn, each call some time after the last answer |
//! | `mixed` | bursts and sessions together, each at half its rate |

use std::time::Duration;

/// The exponent of Zipf's law.
const ZIPF: f64 = 1.1;
/// Models that a session calls.
const CALLS: usize = 5;
/// Time that a person looks at an answer, on average.
const THINK: f64 = 1.5;
/// How much higher than on average the rate of bursts is, how much lower between them, and how long each lasts on average.
const BURST: (f64, f64, f64) = (3.0, 0.333, 8.0);

/// A pattern of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Arrivals without memory.
    Poisson,
    /// A rate that jumps.
    Bursts,
    /// Five models in turn.
    Sessions,
    /// Bursts and sessions.
    Mixed,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Poisson, Self::Bursts, Self::Sessions, Self::Mixed];

    /// Its name in figures.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Bursts => "bursts",
            Self::Sessions => "sessions",
            Self::Mixed => "mixed",
        }
    }
}

/// What one user does: calls, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// When the first call is, from the start.
    pub at: Duration,
    /// Who it is.
    pub user: u32,
    /// Models, each with the time between the answer before and this call; the first has none.
    pub calls: Vec<(Duration, usize)>,
}

/// How much traffic there is.
#[derive(Debug, Clone, Copy)]
pub struct Volume {
    /// Models; the first is the most popular.
    pub models: usize,
    /// Requests a second, on average.
    pub rate: f64,
    /// For how long new scripts begin.
    pub time: Duration,
    /// Users of single requests.
    pub users: u32,
}

/// The traffic of a pattern, in the order of its beginnings.
#[must_use]
pub fn traffic(pattern: Pattern, volume: &Volume, seed: u64) -> Vec<Script> {
    let mut dice = Dice(seed);
    let mut scripts = match pattern {
        Pattern::Poisson => singles(volume, volume.rate, None, &mut dice),
        Pattern::Bursts => singles(volume, volume.rate, Some(BURST), &mut dice),
        Pattern::Sessions => sessions(volume, volume.rate, &mut dice),
        Pattern::Mixed => {
            let mut some = singles(volume, volume.rate / 2.0, Some(BURST), &mut dice);
            some.extend(sessions(volume, volume.rate / 2.0, &mut dice));
            some
        }
    };
    scripts.sort_by_key(|script| script.at);
    scripts
}

fn singles(
    volume: &Volume,
    rate: f64,
    burst: Option<(f64, f64, f64)>,
    dice: &mut Dice,
) -> Vec<Script> {
    let popularity = zipf(volume.models);
    let (mut now, mut scripts) = (0.0, Vec::new());
    let end = volume.time.as_secs_f64();
    let (mut high, mut until) = (false, f64::INFINITY);
    if let Some((_, _, lasts)) = burst {
        until = dice.exponential(lasts);
    }
    loop {
        let factor = burst.map_or(1.0, |(up, down, _)| if high { up } else { down });
        let mut next = now + dice.exponential(1.0 / (rate * factor));
        // Without memory: what is left of a gap when the rate changes is as long as any gap.
        while next > until
            && let Some((up, down, lasts)) = burst
        {
            high = !high;
            let factor = if high { up } else { down };
            next = until + dice.exponential(1.0 / (rate * factor));
            until += dice.exponential(if high { lasts / 3.0 } else { lasts });
        }
        if next >= end {
            return scripts;
        }
        now = next;
        scripts.push(Script {
            at: Duration::from_secs_f64(now),
            user: dice.below(u64::from(volume.users)) as u32,
            calls: vec![(Duration::ZERO, dice.choose(&popularity))],
        });
    }
}

fn sessions(volume: &Volume, rate: f64, dice: &mut Dice) -> Vec<Script> {
    let popularity = zipf(volume.models);
    let (mut now, mut scripts) = (0.0, Vec::new());
    loop {
        now += dice.exponential(CALLS as f64 / rate);
        if now >= volume.time.as_secs_f64() {
            return scripts;
        }
        // A person compares what several models say: those that follow the first in the list.
        let first = dice.choose(&popularity);
        let calls = (0..CALLS).map(|n| {
            let think = if n == 0 { 0.0 } else { dice.exponential(THINK) };
            (Duration::from_secs_f64(think), (first + n) % volume.models)
        });
        let calls = calls.collect();
        scripts.push(Script {
            at: Duration::from_secs_f64(now),
            user: volume.users + scripts.len() as u32,
            calls,
        });
    }
}

/// The part of requests up to each model.
fn zipf(models: usize) -> Vec<f64> {
    let weights = (1..=models).map(|rank| (rank as f64).powf(-ZIPF));
    let total: f64 = weights.clone().sum();
    let mut sum = 0.0;
    weights
        .map(|weight| {
            sum += weight / total;
            sum
        })
        .collect()
}

/// Random numbers that are the same each time (SplitMix64; S. Vigna, 2015).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1, neither of them.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.unit() * bound as f64) as u64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -self.unit().ln() * mean
    }

    fn choose(&mut self, up_to: &[f64]) -> usize {
        let unit = self.unit();
        up_to.iter().position(|it| unit < *it).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Volume = Volume {
        models: 8,
        rate: 10.0,
        time: Duration::from_secs(2_000),
        users: 20,
    };

    fn calls(scripts: &[Script]) -> usize {
        scripts.iter().map(|it| it.calls.len()).sum()
    }

    #[test]
    fn each_pattern_has_the_rate_that_was_asked_for_and_is_the_same_each_time() {
        for pattern in Pattern::ALL {
            let scripts = traffic(pattern, &VOLUME, 7);
            let rate = calls(&scripts) as f64 / 2_000.0;
            assert!((8.0..12.0).contains(&rate), "{pattern:?}: {rate}");
            assert_eq!(scripts, traffic(pattern, &VOLUME, 7));
            assert_ne!(scripts, traffic(pattern, &VOLUME, 8));
            assert!(scripts.is_sorted_by_key(|it| it.at));
        }
    }

    #[test]
    fn the_first_model_is_the_most_popular_and_all_are_asked_for() {
        let scripts = traffic(Pattern::Poisson, &VOLUME, 7);
        let mut counts = [0; 8];
        for script in &scripts {
            counts[script.calls[0].1] += 1;
        }
        assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
        assert!(counts[7] > 100);
    }

    #[test]
    fn bursts_come_in_bursts() {
        let spread = |pattern| {
            let mut seconds = vec![0.0_f64; 2_000];
            for script in traffic(pattern, &VOLUME, 7) {
                seconds[script.at.as_secs() as usize] += 1.0;
            }
            let mean = seconds.iter().sum::<f64>() / 2_000.0;
            let off = seconds.iter().map(|it| (it - mean).powi(2)).sum::<f64>();
            off / 2_000.0 / mean
        };
        // The variance of a Poisson process is its mean.
        assert!((0.8..1.2).contains(&spread(Pattern::Poisson)));
        assert!(spread(Pattern::Bursts) > 3.0);
    }

    #[test]
    fn a_session_calls_five_models_with_time_between() {
        for script in traffic(Pattern::Sessions, &VOLUME, 7) {
            assert_eq!(script.calls.len(), 5);
            assert!(script.calls[0].0.is_zero() && !script.calls[1].0.is_zero());
        }
    }
}
