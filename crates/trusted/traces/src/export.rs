//! The way of a span to a file: a bounded queue, and one thread that writes.
//!
//! Whoever ends a span never waits: if the queue is full, because the disk is slow or full, the span is dropped and counted. The
//! file is opened before the sandbox closes ([`Export::open`]) and the thread is started after it ([`Opened::start`]). There is
//! nothing else: no socket, no other file, no retry.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use core::num::NonZeroU128;
use serde::Deserialize;
use sesemi_protocol::entropy::random;
use sesemi_protocol::{Entropy, SystemEntropy};

use crate::otlp::{self, MAX_SPANS, Resource};
use crate::span::Finished;

/// Spans that may wait to be written.
pub const QUEUE: usize = 4096;
/// How often it is looked whether to stop, when nothing happens.
const IDLE: Duration = Duration::from_millis(500);
/// How long the end of the program waits for what is queued.
const FLUSH: Duration = Duration::from_secs(2);
/// How often it is said that spans were lost, at most.
const COMPLAIN: Duration = Duration::from_secs(60);

/// This process's traces, if it writes any.
static TRACER: OnceLock<Tracer> = OnceLock::new();

pub(crate) fn tracer() -> Option<&'static Tracer> {
    TRACER.get()
}

/// Spans of this process that were not written, because the queue was full or the file could not be written to.
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

/// The share of traces that begin here which is recorded, 0 to 1. A caller that has a trace decides for itself.
///
/// Held in 2^-56ths: level 2 of Trace Context says that the last 56 bits of a trace's id are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "f64")]
pub struct Ratio(u64);

/// All values of the random bits of a trace's id.
const WHOLE: u64 = 1 << 56;

impl Ratio {
    /// All of them.
    pub const ALL: Self = Self(WHOLE);
}

impl TryFrom<f64> for Ratio {
    type Error = &'static str;

    fn try_from(ratio: f64) -> Result<Self, Self::Error> {
        let within = (0.0..=1.0).contains(&ratio);
        // 2^56 is exact as a float, and so is every product with it.
        let part = (ratio * WHOLE as f64) as u64;
        within.then_some(Self(part)).ok_or("must be 0 to 1")
    }
}

impl FromStr for Ratio {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<f64>().unwrap_or(f64::NAN).try_into()
    }
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// A file, which is appended to; or a folder, in which each process makes a file of its own.
    pub to: PathBuf,
    /// How many of those that begin here.
    pub ratio: Ratio,
}

impl Export {
    /// What two settings mean: without a place there are no traces.
    #[must_use]
    pub fn new(to: Option<PathBuf>, ratio: Option<Ratio>) -> Option<Self> {
        to.map(|to| Self {
            to,
            ratio: ratio.unwrap_or(Ratio::ALL),
        })
    }

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
        let (file, whole) = open(&path)?;
        Ok(Opened {
            file,
            whole,
            ratio: self.ratio,
            service,
            instance,
        })
    }
}

/// A file for traces, and whether it ends with a whole line.
fn open(path: &Path) -> Result<(File, bool), TracesError> {
    let failed = |source| TracesError::Open {
        path: path.to_owned(),
        source,
    };
    // A pipe would be waited for until somebody reads it.
    if path.exists() && !path.is_file() {
        return Err(TracesError::NoFile(path.to_owned()));
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(failed)?;
    let mut last = [b'\n'];
    if file.metadata().map_err(failed)?.len() > 0 {
        file.seek(SeekFrom::End(-1)).map_err(failed)?;
        file.read_exact(&mut last).map_err(failed)?;
    }
    Ok((file, last == *b"\n"))
}

/// A file that is open, and nothing else yet: no thread.
#[derive(Debug)]
pub struct Opened {
    file: File,
    whole: bool,
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
        let out = Lines::new(self.file, self.whole);
        let (tracer, running) = start(out, resource, self.ratio, QUEUE)?;
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
    queue: SyncSender<Finished>,
    dropped: AtomicU64,
    stopping: AtomicBool,
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
        if self.0.queue.try_send(finished).is_err() {
            self.0.lost(1);
        }
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
        self.tracer.0.stopping.store(true, Ordering::Release);
        let ended = self.done.recv_timeout(FLUSH);
        // A disk that hangs is no reason to hang too.
        if ended != Err(RecvTimeoutError::Timeout)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// A tracer whose spans are written to `out`, with at most `queue` of them waiting.
///
/// # Errors
/// [`TracesError::Thread`].
pub fn start<W: Write + Send + 'static>(
    out: Lines<W>,
    resource: Resource,
    ratio: Ratio,
    queue: usize,
) -> Result<(Tracer, Running), TracesError> {
    let (send, receive) = sync_channel(queue);
    let shared = Arc::new(Shared {
        queue: send,
        dropped: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
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

impl<W: Write> Writer<W> {
    fn run(mut self) {
        let mut complaint = Complaint::default();
        loop {
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            let batch = if stopping {
                self.queued(Vec::new())
            } else {
                match self.queue.recv_timeout(IDLE) {
                    Ok(first) => self.queued(vec![first]),
                    Err(_) => Vec::new(),
                }
            };
            if !batch.is_empty() {
                self.write(&batch);
            }
            let lost = self.shared.dropped.load(Ordering::Relaxed);
            complaint.make(lost, Instant::now());
            if stopping && batch.is_empty() {
                return;
            }
        }
    }

    /// What is in the queue already, as much as fits on a line.
    fn queued(&self, mut batch: Vec<Finished>) -> Vec<Finished> {
        while batch.len() < MAX_SPANS {
            match self.queue.try_recv() {
                Ok(finished) => batch.push(finished),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        batch
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
            tracing::warn!(
                lost,
                "spans were lost: the file for traces is too slow, or cannot be written to"
            );
            (self.said, self.at) = (lost, Some(now));
        }
    }
}

/// Whole lines. What a failed write left of one is ended before the next, so that it costs no other line.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    whole: bool,
}

impl<W: Write> Lines<W> {
    /// Lines after what `out` has, which ends with a whole one or does not.
    pub fn new(out: W, whole: bool) -> Self {
        Self { out, whole }
    }

    fn put(&mut self, line: &str) -> std::io::Result<()> {
        if !self.whole {
            self.out.write_all(b"\n")?;
        }
        self.whole = false;
        // One call for one line: several processes may append to one file.
        self.out.write_all(line.as_bytes())?;
        self.out.flush()?;
        self.whole = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
