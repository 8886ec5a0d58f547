//! One thread for one device. The host stands behind a TEE's device files and can let any of them hang, and a blocking
//! read cannot be called back. So a thread of its own does the work and whoever asks waits for it with a deadline. There is
//! never more than this one thread: while it hangs, callers are refused at once. Work is done one piece at a time, which
//! devices with one global set of registers (Gramine) need anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::attester::AttesterError;

/// Most callers that wait for the device at once.
const QUEUE: usize = 64;

/// States of a piece of work.
const WAITED_FOR: u8 = 0;
const DONE: u8 = 1;
const GIVEN_UP: u8 = 2;

type Work = Box<dyn FnOnce() + Send>;

/// A device with its thread, which ends when this is dropped and the last piece of work is done.
#[derive(Debug)]
pub(super) struct Device {
    queue: SyncSender<Work>,
    /// Pieces of work that nobody waits for any more and that have not ended.
    overdue: Arc<AtomicUsize>,
    deadline: Duration,
}

impl Device {
    /// Starts the thread. No call takes longer than `deadline`.
    pub(super) fn start(deadline: Duration) -> Result<Self, AttesterError> {
        let (queue, work) = sync_channel::<Work>(QUEUE);
        thread::Builder::new()
            .name("tee-device".into())
            .spawn(move || work.into_iter().for_each(|work| work()))?;
        Ok(Self {
            queue,
            overdue: Arc::new(AtomicUsize::new(0)),
            deadline,
        })
    }

    /// Has the thread do `work`, which is told until when it is waited for. `what` completes "did not ... in time".
    pub(super) fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(Instant) -> Result<T, AttesterError> + Send + 'static,
    ) -> Result<T, AttesterError> {
        if self.overdue.load(Ordering::SeqCst) > 0 {
            return Err(AttesterError::OutOfService(
                "it has still not answered an earlier request",
            ));
        }
        let until = Instant::now()
            .checked_add(self.deadline)
            .ok_or(AttesterError::TimedOut(what))?;
        let state = Arc::new(AtomicU8::new(WAITED_FOR));
        let (reply, answer) = sync_channel(1);
        let piece = {
            let (state, overdue) = (state.clone(), self.overdue.clone());
            move || {
                if state.load(Ordering::SeqCst) == WAITED_FOR {
                    // The channel has room for this one answer; nobody may be left to take it.
                    let _ = reply.send(work(until));
                }
                if state.swap(DONE, Ordering::SeqCst) == GIVEN_UP {
                    overdue.fetch_sub(1, Ordering::SeqCst);
                }
            }
        };
        self.queue
            .try_send(Box::new(piece))
            .map_err(|_| AttesterError::OutOfService("too many requests wait for it"))?;
        match answer.recv_timeout(self.deadline) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => {
                Err(AttesterError::OutOfService("its thread ended"))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.overdue.fetch_add(1, Ordering::SeqCst);
                if state.swap(GIVEN_UP, Ordering::SeqCst) == DONE {
                    self.overdue.fetch_sub(1, Ordering::SeqCst);
                    return answer
                        .try_recv()
                        .unwrap_or(Err(AttesterError::TimedOut(what)));
                }
                Err(AttesterError::TimedOut(what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Long enough that it never passes in a test that passes.
    const AMPLE: Duration = Duration::from_secs(600);

    /// Short enough to wait for, where something hangs.
    const SOON: Duration = Duration::from_millis(300);

    /// The thread notes the end of overdue work just after it.
    fn wait_until_noted(device: &Device) {
        let begun = Instant::now();
        while device.overdue.load(Ordering::SeqCst) > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "never noted");
            thread::yield_now();
        }
    }

    #[test]
    fn a_call_returns_what_its_work_returned() {
        let device = Device::start(AMPLE).unwrap();
        assert_eq!(device.call("count", |_| Ok(7)).unwrap(), 7);
        assert!(matches!(
            device.call("count", |_| Err::<(), _>(AttesterError::Raced)),
            Err(AttesterError::Raced)
        ));
    }

    #[test]
    fn while_the_device_hangs_callers_are_refused_and_afterwards_served() {
        let device = Device::start(SOON).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let hung = device.call("answer", move |_| {
            // Ends when the test drops its end.
            let _ = held.recv();
            drop(ended);
            Ok(())
        });
        assert!(matches!(hung, Err(AttesterError::TimedOut("answer"))));
        for _ in 0..3 {
            assert!(matches!(
                device.call("answer", |_| Ok(())),
                Err(AttesterError::OutOfService(_))
            ));
        }
        drop(release);
        assert!(end.recv().is_err());
        wait_until_noted(&device);
        let patient = Device {
            deadline: AMPLE,
            ..device
        };
        assert_eq!(patient.call("answer", |_| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let device = Arc::new(Device::start(SOON).unwrap());
        let (release, held) = mpsc::channel::<()>();
        let (begun, first) = mpsc::channel::<()>();
        let hung = {
            let device = device.clone();
            thread::spawn(move || {
                device.call("answer", move |_| {
                    drop(begun);
                    let _ = held.recv();
                    Ok(())
                })
            })
        };
        assert!(first.recv().is_err());
        let (ran, was_run) = mpsc::channel::<()>();
        let queued = device.call("answer", move |_| {
            let _ = ran.send(());
            Ok(())
        });
        // It waited behind the first and gave up, or came when the first had already been given up.
        assert!(matches!(
            queued,
            Err(AttesterError::TimedOut(_) | AttesterError::OutOfService(_))
        ));
        assert!(hung.join().unwrap().is_err());
        drop(release);
        wait_until_noted(&device);
        assert!(was_run.recv().is_err(), "the work was begun");
    }

    #[test]
    fn a_device_whose_thread_ended_is_out_of_service() {
        let device = Device::start(AMPLE).unwrap();
        for _ in 0..2 {
            assert!(matches!(
                device.call("answer", |_| -> Result<(), _> { panic!("a defect") }),
                Err(AttesterError::OutOfService(_))
            ));
        }
    }
}
