//! A run that is stopped if nobody waits for it any more, because its client left or its time is over.

use std::sync::Arc;

use crate::engine::Stop;
use crate::sync::{Mutex, lock};

/// Held by whoever waits for a run: dropping it stops the run, if that has not ended and the engine can be stopped.
pub(super) struct UnderWay {
    stopper: Option<Arc<dyn Stop>>,
    state: Arc<Mutex<State>>,
}

/// Told by the run itself that it has ended.
pub(super) struct StillWanted(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Runs,
    /// The engine was told to stop, or would have been if it could.
    Unwanted,
    Ended,
}

impl UnderWay {
    pub(super) fn new(stopper: Option<Arc<dyn Stop>>) -> Self {
        Self {
            stopper,
            state: Arc::new(Mutex::new(State::Runs)),
        }
    }

    /// Has the run go on with another execution, which is stopped in place of the one before.
    pub(super) fn stops(&mut self, stopper: Option<Arc<dyn Stop>>) {
        self.stopper = stopper;
    }

    pub(super) fn still_wanted(&self) -> StillWanted {
        StillWanted(self.state.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if *state == State::Runs {
            *state = State::Unwanted;
            // Under the lock: an execution that has ended is used for another request soon.
            if let Some(stopper) = &self.stopper {
                stopper.stop();
            }
        }
    }
}

impl StillWanted {
    /// Notes that the run has ended: it is not stopped from now on. Whether it was not stopped before.
    pub(super) fn ended(&self) -> bool {
        let mut state = lock(&self.0);
        let wanted = *state == State::Runs;
        *state = State::Ended;
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Stops(AtomicUsize);

    impl Stop for Stops {
        fn stop(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_run_is_stopped_once_it_is_unwanted_and_never_after_it_ended() {
        let stops = Arc::new(Stops::default());
        let under_way = UnderWay::new(Some(stops.clone()));
        let still_wanted = under_way.still_wanted();
        drop(under_way);
        assert_eq!(stops.0.load(Ordering::SeqCst), 1);
        assert!(!still_wanted.ended());

        let under_way = UnderWay::new(Some(stops.clone()));
        assert!(under_way.still_wanted().ended());
        drop(under_way);
        assert_eq!(stops.0.load(Ordering::SeqCst), 1);
    }
}
