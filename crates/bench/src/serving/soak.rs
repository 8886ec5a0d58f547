//! Very many hot requests, and whether the instance's memory grows with them.
//!
//! Memory is looked at twenty times, after a moment of quiet in which the instance gives back what is free: what is left is what it
//! holds. While requests come it is some pages more or fewer, in steps that say nothing. The first looks, until pools are full, do
//! not count. The others are fitted with a line, whose slope is noise if it is within its standard error times Student's t for 95 %.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::callers::at_once;
use super::memory::resident_kib;
use super::model::Prepared;
use super::site::Caller;
use super::{ENOUGH_MIB, Plan, Stage, WARM_UP, bar};
use crate::error::BenchError;
use crate::figures::Samples;

/// Callers at once.
const CALLERS: usize = 2;
/// Times that memory is looked at.
const LOOKS: usize = 20;
/// Looks at first that do not count.
const FIRST: usize = 2;
/// Student's t for 95 % and two fewer degrees of freedom than looks that count.
const T: f64 = 2.120;
/// Until the instance has given back what is free: half a second after its last request.
const QUIET: Duration = Duration::from_secs(1);
/// Requests that a slope is for.
const PER: f64 = 1e5;

/// After so many requests, so much memory, in KiB.
type Look = (f64, f64);

pub(super) fn measure(plan: &Plan, requests: usize) -> Result<Vec<Samples>, BenchError> {
    plan.each_model(|stage, prepared| {
        let looks = looks(plan, stage, prepared, requests)?;
        let line = fit(looks.get(FIRST..).unwrap_or_default());
        let line = line.ok_or(BenchError::Unexpected("too few requests to fit a line"))?;
        let name = |what: &str| plan.chosen.figure(what, prepared.model);
        let memory = looks.iter().map(|look| look.1 / 1024.0).collect();
        Ok(vec![
            Samples::new(
                name("soak.slope_over_noise"),
                "times",
                vec![line.over_noise()],
            )
            .at_most(1.0),
            Samples::new(
                name("soak.rss_slope_kib_per_1e5"),
                "KiB",
                vec![line.slope * PER],
            ),
            Samples::new(
                name("soak.rss_slope_error_kib_per_1e5"),
                "KiB",
                vec![line.error * PER],
            ),
            Samples::new(name("soak.rss_mib"), "MiB", memory),
            Samples::new(name("soak.requests"), "requests", vec![requests as f64]),
        ])
    })
}

fn looks(
    plan: &Plan,
    stage: &mut Stage,
    prepared: &Prepared,
    requests: usize,
) -> Result<Vec<Look>, BenchError> {
    let Stage { site, launcher, .. } = stage;
    let pushed = site.push(prepared, 1)?;
    let users = (0..CALLERS).map(|_| site.user(std::slice::from_ref(&pushed), launcher.code));
    let users = users.collect::<Result<Vec<_>, _>>()?;
    let instance = launcher.launch(&site.arguments(&plan.chosen, CALLERS, ENOUGH_MIB))?;
    let call = |user: &Caller| {
        let answer = user.call(&instance.gateway, &pushed, prepared);
        answer.map(drop)
    };
    let (_, users) = at_once(users, |user| (0..WARM_UP).try_for_each(|_| call(user)))?;

    let shown = bar("soak", requests);
    let (mut users, mut looks) = (users, Vec::with_capacity(LOOKS));
    for look in 1..=LOOKS {
        let (done, stretch) = (AtomicUsize::new(0), requests.div_ceil(LOOKS));
        (_, users) = at_once(users, |user| {
            while done.fetch_add(1, Ordering::Relaxed) < stretch {
                call(user)?;
            }
            Ok(())
        })?;
        std::thread::sleep(QUIET);
        looks.push(((look * stretch) as f64, resident_kib(instance.pid)?));
        shown.set_position((look * stretch) as u64);
    }
    shown.finish_and_clear();
    launcher.stop_all()?;
    Ok(looks)
}

/// A line through points, in KiB for each request.
#[derive(Debug)]
struct Line {
    slope: f64,
    /// Standard error of the slope.
    error: f64,
}

impl Line {
    /// How many times the largest slope that is noise: 1 at most if zero is within noise.
    fn over_noise(&self) -> f64 {
        let noise = T * self.error;
        if self.slope == 0.0 {
            0.0
        } else {
            self.slope.abs() / noise
        }
    }
}

/// Least squares. None without enough points.
fn fit(points: &[Look]) -> Option<Line> {
    let degrees = points.len().checked_sub(2).filter(|it| *it > 0)? as f64;
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    let (x, y) = (x / count, y / count);
    let width: f64 = points.iter().map(|it| (it.0 - x).powi(2)).sum();
    let both: f64 = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    let slope = both / width;
    let off = points.iter().map(|it| it.1 - y - slope * (it.0 - x));
    let off: f64 = off.map(|it| it.powi(2)).sum();
    let error = (off / degrees / width).sqrt();
    slope.is_finite().then_some(Line { slope, error })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn looks(memory: impl Fn(f64) -> f64) -> Vec<Look> {
        let at = |look| f64::from(look) * 50_000.0;
        (1..=18).map(|look| (at(look), memory(at(look)))).collect()
    }

    /// Something that goes up and down, with no end.
    fn noise(at: f64) -> f64 {
        (at * 0.7).sin() * 40.0
    }

    #[test]
    fn memory_that_goes_up_and_down_has_no_slope_and_memory_that_grows_has() {
        let line = |growth: f64| fit(&looks(|at| 50_000.0 + noise(at) + at * growth)).unwrap();
        assert!(line(0.0).over_noise() <= 1.0, "{:?}", line(0.0));
        // 100 KiB in 100 000 requests.
        let grows = line(1e-3);
        assert!(grows.over_noise() > 1.0, "{grows:?}");
        assert!((grows.slope * PER - 100.0).abs() < 15.0, "{grows:?}");
    }

    #[test]
    fn memory_that_stays_has_no_slope() {
        let line = fit(&looks(|_| 90_000.0)).unwrap();
        assert!(line.slope == 0.0 && line.over_noise() == 0.0, "{line:?}");
    }

    #[test]
    fn two_points_make_no_error() {
        assert!(fit(&[(0.0, 1.0), (1.0, 2.0)]).is_none());
    }
}
