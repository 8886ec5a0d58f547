//! What loads leave in the allocator goes back to the kernel a little later.
//!
//! What a model leaves that had to go is what the next one takes, if it is still there: its buffers, which it fills in its first run.
//! Given back at once, the kernel would wipe it and hand it out again page by page, in the middle of the request that waits for that
//! run. What nobody has taken a moment later goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sesemi_process::give_back_what_is_free;

/// Longer than first runs take, and short for memory that is paid for by the second.
const A_MOMENT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub(super) struct Tidying {
    due: AtomicBool,
}

impl Tidying {
    /// Something was left. However many say so, it is done once in each moment.
    pub(super) fn soon(self: &Arc<Self>) {
        if self.due.swap(true, Ordering::AcqRel) {
            return;
        }
        let tidying = self.clone();
        drop(tokio::spawn(async move {
            tokio::time::sleep(A_MOMENT).await;
            tidying.due.store(false, Ordering::Release);
            // It takes its time: not on a thread of the network.
            drop(tokio::task::spawn_blocking(give_back_what_is_free));
        }));
    }
}
