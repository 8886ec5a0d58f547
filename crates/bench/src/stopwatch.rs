//! Two clocks, read together: what was waited for, and what this process worked.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Runs from [`Stopwatch::start`] on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

/// One measured time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lap {
    /// What the clock on the wall says.
    pub(crate) wall: Duration,
    /// CPU time of this process, in user space and in the kernel. It depends little on what else the machine does.
    pub(crate) cpu: Duration,
}

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Self {
        Self {
            cpu: process_time(),
            wall: Instant::now(),
        }
    }

    /// The time since the start.
    pub(crate) fn stop(self) -> Lap {
        Lap {
            wall: self.wall.elapsed(),
            cpu: process_time().saturating_sub(self.cpu),
        }
    }
}

fn process_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    // Never negative: it counts from the start of the process.
    Duration::from_secs(u64::try_from(tv_sec).unwrap_or(0))
        + Duration::from_nanos(u64::try_from(tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_shows_on_the_wall_and_work_as_cpu_time() {
        let watch = Stopwatch::start();
        std::thread::sleep(Duration::from_millis(50));
        assert!(watch.stop().wall >= Duration::from_millis(50));

        let watch = Stopwatch::start();
        let mut digest = sesemi_protocol::Digest([0; 32]);
        for _ in 0..10_000 {
            digest = sesemi_protocol::Digest::of(digest.as_bytes());
        }
        assert!(watch.stop().cpu > Duration::ZERO, "{digest}");
    }
}
