//! The processors of a host, shared evenly by what runs: each job has a processor to itself if there are enough, and an equal part of
//! all otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Jobs that run, each with the processor time that it still needs.
#[derive(Debug)]
pub(super) struct Cpu<J> {
    processors: f64,
    left: BTreeMap<J, f64>,
    now: Instant,
}

impl<J: Copy + Ord> Cpu<J> {
    pub(super) fn new(processors: f64, now: Instant) -> Self {
        Self {
            processors,
            left: BTreeMap::new(),
            now,
        }
    }

    /// Processor seconds a second that each job has.
    fn rate(&self) -> f64 {
        (self.processors / self.left.len().max(1) as f64).min(1.0)
    }

    /// Time passes, during which no job begins or ends.
    pub(super) fn pass(&mut self, now: Instant) {
        let done = now.saturating_duration_since(self.now).as_secs_f64() * self.rate();
        for left in self.left.values_mut() {
            *left = (*left - done).max(0.0);
        }
        self.now = now;
    }

    /// A job begins that needs so much processor time.
    pub(super) fn begin(&mut self, job: J, work: Duration) {
        self.left.insert(job, work.as_secs_f64());
    }

    /// A job is given up.
    pub(super) fn give_up(&mut self, job: J) {
        self.left.remove(&job);
    }

    /// Which job ends next, and when.
    pub(super) fn next(&self) -> Option<(Instant, J)> {
        let (job, left) = self.left.iter().min_by(|a, b| a.1.total_cmp(b.1))?;
        let time = Duration::from_secs_f64(left / self.rate());
        // A nanosecond more than rounding takes away.
        Some((self.now + time, *job))
    }

    /// A job ends.
    pub(super) fn end(&mut self, job: J) {
        self.left.remove(&job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_share_processors_evenly_and_no_job_has_more_than_one() {
        let start = Instant::now();
        let mut cpu = Cpu::new(2.0, start);
        for job in 0..4 {
            cpu.begin(job, Duration::from_secs(1 + job));
        }
        let mut ends = Vec::new();
        while let Some((at, job)) = cpu.next() {
            cpu.pass(at);
            cpu.end(job);
            ends.push(at.duration_since(start).as_secs_f64());
        }
        // Half a processor each; then two thirds; then one each.
        let expected = [2.0, 3.5, 4.5, 5.5];
        for (end, expected) in ends.iter().zip(expected) {
            assert!((end - expected).abs() < 1e-6, "{ends:?}");
        }
    }
}
