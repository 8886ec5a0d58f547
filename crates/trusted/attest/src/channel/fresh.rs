//! Fresh evidence of this side, without holding up the runtime: making it takes hardware up to seconds, and other
//! connections are served by the same few threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::ChannelError;
use crate::attester::{Attester, AttesterError};
use crate::evidence::Evidence;

/// Has the TEE make evidence on a thread that may block, and waits for it no longer than `limit`.
pub(super) async fn evidence(
    attester: &Arc<dyn Attester>,
    report_data: [u8; 64],
    limit: Duration,
) -> Result<Evidence, ChannelError> {
    let attester = attester.clone();
    let mut task = spawn_blocking(move || attester.evidence(&report_data));
    match timeout(limit, &mut task).await {
        Ok(Ok(evidence)) => Ok(evidence?),
        Ok(Err(_)) => Err(ChannelError::Task),
        Err(_) => {
            // If it has not begun it never will; if it has, the attester's own deadline ends it.
            task.abort();
            Err(AttesterError::TimedOut("give evidence").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use sesemi_protocol::SecretKey;

    use super::*;
    use crate::attester::SealBinding;
    use crate::code_identity::TeeKind;

    /// After this a test has failed.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Gives evidence once it is told to; a sender that is gone tells it too.
    struct Told(Mutex<Receiver<()>>);

    impl Attester for Told {
        fn name(&self) -> &'static str {
            "told"
        }

        fn tee(&self) -> TeeKind {
            TeeKind::Sgx
        }

        fn evidence(&self, _: &[u8; 64]) -> Result<Evidence, AttesterError> {
            let told = self.0.lock().unwrap().recv_timeout(PATIENCE);
            if told == Err(RecvTimeoutError::Timeout) {
                return Err(AttesterError::TimedOut("hear from the test"));
            }
            Ok(Evidence::from_bytes(vec![3, 0, 2, 0, 0, 0, 0, 0])?)
        }

        fn sealing_key(&self, _: SealBinding) -> Result<SecretKey, AttesterError> {
            Err(AttesterError::NoTee)
        }
    }

    #[tokio::test]
    async fn the_runtimes_only_thread_goes_on_while_the_tee_makes_evidence() {
        let (tell, told) = channel();
        let attester: Arc<dyn Attester> = Arc::new(Told(Mutex::new(told)));
        let making = evidence(&attester, [0; 64], PATIENCE.saturating_mul(2));
        // On a thread that were held up this would never be reached, and the evidence never be made.
        let telling = async move { tell.send(()).unwrap() };
        let (made, ()) = tokio::join!(making, telling);
        assert_eq!(made.unwrap().tee(), TeeKind::Sgx);
    }

    #[tokio::test]
    async fn evidence_that_does_not_come_is_given_up() {
        let (tell, told) = channel();
        let attester: Arc<dyn Attester> = Arc::new(Told(Mutex::new(told)));
        let made = evidence(&attester, [0; 64], Duration::from_millis(20)).await;
        drop(tell);
        assert!(matches!(
            made,
            Err(ChannelError::Attester(AttesterError::TimedOut(_)))
        ));
    }
}
