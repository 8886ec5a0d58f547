//! The way of a span to a file: a bounded queue, and one thread that writes.
//!
//! Whoever ends a span never waits: if the queue is full, because the disk is slow, the span is dropped and counted, as one is for
//! which the file ([`file`](crate::file)) has no room. The file is opened before the sandbox closes ([`Export::open`]) and the thread is started after it ([`Opened::start`]). There is
//! nothing else: no socket, no other file, no retry.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core::num::NonZeroU128;
use sesemi_protocol::entropy::random;
use sesemi_protocol::{Entropy, SystemEntropy};

use crate::file::{Lines, Sink};
use crate::otlp::{self, MAX_SPANS, Resource};
use crate::settings::{Export, Ratio, WHOLE};
use crate::span::Finished;

/// Spans that may wait to be written.
pub const QUEUE: usize = 4096;
/// How long the end of the program waits for what is queued.
const FLUSH: Duration = Duration::from_secs(2);
/// How often it is said that spans were lost, at most.
const COMPLAIN: Duration = Duration::from_secs(60);

/// This process's traces, if it writes any.
static TRACER: OnceLock<Tracer> = OnceLock::new();

pub(crate) fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Spans of this process that were not written, because the queue was full, the file was as long as it may be, or it
/// could not be written to.
#[must_use]
pub fn dropped() -> u64 {
    tracer().map_or(0, Tracer::dropped)
}

/// Why no traces can be written.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The file cannot be opened.
    #[error(
        "cannot open {path} for traces; name a file that can be written to, or a folder that exists"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is something else than a file.
    #[error("{0} is no regular file: traces are written to a file, or to a new one in a folder")]
    NoFile(PathBuf),
    /// The thread that writes cannot be started.
    #[error("cannot start the thread that writes traces")]
    Thread(#[source] std::io::Error),
    /// No name for this process.
    #[error(transparent)]
    Entropy(#[from] sesemi_protocol::EntropyError),
}

impl Export {
    /// Opens the file. To be called before the sandbox is entered.
    ///
    /// # Errors
    /// [`TracesError`], which names the file.
    pub fn open(&self, service: &'static str) -> Result<Opened, TracesError> {
        let instance = u128::from_be_bytes(random(&SystemEntropy::new())?);
        let path = if self.to.is_dir() {
            self.to.join(format!("{service}-{instance:032x}.jsonl"))
        } else {
            self.to.clone()
        };
        Ok(Opened {
            lines: Lines::open(&path, self.max_bytes)?,
            ratio: self.ratio,
            service,
            instance,
        })
    }
}

/// A file that is open, and nothing else yet: no thread.
#[derive(Debug)]
pub struct Opened {
    lines: Lines<File>,
    ratio: Ratio,
    service: &'static str,
    instance: u128,
}

impl Opened {
    /// Starts the thread that writes, and has every span of this process go to it from now on. `tee` is the TEE that this
    /// process runs in, if it must run in one.
    ///
    /// # Errors
    /// [`TracesError::Thread`].
    pub fn start(
        self,
        version: &'static str,
        tee: Option<&'static str>,
    ) -> Result<Running, TracesError> {
        let resource = Resource {
            service: self.service,
            version,
            instance: self.instance,
            tee,
        };
        let (tracer, running) = start(self.lines, resource, self.ratio, QUEUE)?;
        // A second start in one process writes nothing: the first goes on.
        let _ = TRACER.set(tracer);
        Ok(running)
    }
}

/// Opens and starts in one, for a program without a sandbox; nothing without a place.
///
/// # Errors
/// [`TracesError`].
pub fn server(
    export: Option<&Export>,
    service: &'static str,
    version: &'static str,
) -> Result<Option<Running>, TracesError> {
    let Some(export) = export else {
        return Ok(None);
    };
    export.open(service)?.start(version, None).map(Some)
}

/// Makes spans and takes finished ones. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    /// Until the end: without a sender the thread writes what is queued, and ends. Written to once, so nobody waits for it.
    queue: RwLock<Option<SyncSender<Finished>>>,
    dropped: AtomicU64,
    ratio: Ratio,
    entropy: SystemEntropy,
}

impl core::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tracer(..)")
    }
}

impl Tracer {
    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &self.0.entropy
    }

    /// Whether to record a trace that begins here. The same for the same id, so that programs with one ratio agree.
    pub(crate) fn samples(&self, trace_id: NonZeroU128) -> bool {
        let random = trace_id.get() & u128::from(WHOLE.saturating_sub(1));
        random < u128::from(self.0.ratio.0)
    }

    /// Puts a span into the queue, or drops it.
    pub(crate) fn hand_in(&self, finished: Finished) {
        let queue = self.0.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queued = match &*queue {
            Some(queue) => queue.try_send(finished).is_ok(),
            None => false,
        };
        if !queued {
            self.0.lost(1);
        }
    }

    /// Takes no more spans, which has the thread end.
    fn close(&self) {
        let mut queue = self.0.queue.write().unwrap_or_else(PoisonError::into_inner);
        *queue = None;
    }

    /// Spans that were not written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lost(&self, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }
}

/// The thread that writes. Dropping this has it write what is queued, for a bounded time, and end.
#[derive(Debug)]
pub struct Running {
    tracer: Tracer,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tracer.close();
        let ended = self.done.recv_timeout(FLUSH);
        // A disk that hangs is no reason to hang too.
        if ended != Err(RecvTimeoutError::Timeout)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
impl Running {
    /// Ends as a drop does, however long it takes: a test knows that nothing hangs.
    fn finish(mut self) {
        self.tracer.close();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A tracer whose spans are written to `out`, with at most `queue` of them waiting.
///
/// # Errors
/// [`TracesError::Thread`].
pub fn start<W: Sink + Send + 'static>(
    out: Lines<W>,
    resource: Resource,
    ratio: Ratio,
    queue: usize,
) -> Result<(Tracer, Running), TracesError> {
    let (send, receive) = sync_channel(queue);
    let shared = Arc::new(Shared {
        queue: RwLock::new(Some(send)),
        dropped: AtomicU64::new(0),
        ratio,
        entropy: SystemEntropy::new(),
    });
    let writer = Writer {
        shared: shared.clone(),
        queue: receive,
        out,
        resource,
    };
    let (ended, done) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("traces".into())
        .spawn(move || {
            writer.run();
            let _ = ended.send(());
        })
        .map_err(TracesError::Thread)?;
    let tracer = Tracer(shared);
    let running = Running {
        tracer: tracer.clone(),
        done,
        thread: Some(thread),
    };
    Ok((tracer, running))
}

struct Writer<W> {
    shared: Arc<Shared>,
    queue: Receiver<Finished>,
    out: Lines<W>,
    resource: Resource,
}

impl<W: Sink> Writer<W> {
    /// Until nobody can hand in a span any more and the queue is empty.
    fn run(mut self) {
        let mut complaint = Complaint::default();
        while let Ok(first) = self.queue.recv() {
            let batch = self.queued(first);
            self.write(&batch);
            complaint.make(self.lost(), Instant::now());
        }
        complaint.say(self.lost());
    }

    fn lost(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// A span and those that are in the queue already, as many as fit on a line.
    fn queued(&self, first: Finished) -> Vec<Finished> {
        let more = self.queue.try_iter().take(MAX_SPANS.saturating_sub(1));
        std::iter::once(first).chain(more).collect()
    }

    fn write(&mut self, batch: &[Finished]) {
        if let Err(error) = self.out.put(&otlp::line(&self.resource, batch)) {
            self.shared.lost(batch.len());
            tracing::debug!(%error, "spans could not be written");
        }
    }
}

/// Says now and then that spans were lost.
#[derive(Default)]
struct Complaint {
    said: u64,
    at: Option<Instant>,
}

impl Complaint {
    fn make(&mut self, lost: u64, now: Instant) {
        let long_ago = |at| now.saturating_duration_since(at) >= COMPLAIN;
        if lost > self.said && self.at.is_none_or(long_ago) {
            self.at = Some(now);
            self.say(lost);
        }
    }

    fn say(&mut self, lost: u64) {
        if lost > self.said {
            self.said = lost;
            tracing::warn!(
                lost,
                "spans were lost: the file for traces is too slow, cannot be written to, or is as long as it may be \
                 (traces-max-mib)"
            );
        }
    }
}

#[cfg(test)]
mod tests;
