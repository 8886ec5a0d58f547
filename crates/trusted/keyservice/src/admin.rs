//! What the operator may ask over plain HTTP: is it alive, is it ready, the metrics, and a backup. Nothing here is secret (a
//! backup is sealed), and nothing can be changed.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use sesemi_process::http::{Answer, Handler, HttpBounds, Received, operator_page, pieces, text};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::log::backup;
use crate::metrics::Metrics;
use crate::service::KeyService;

/// Bounds of the operator's server: few connections, no bodies to speak of.
pub const BOUNDS: HttpBounds = HttpBounds {
    connections: 16,
    head: Duration::from_secs(10),
    body: Duration::from_secs(5),
    body_bytes: 1024,
    memory: 64 * 1024 * 1024,
    answer: Duration::from_secs(30),
    streams: 8,
};

/// Length of the pieces in which a backup is sent, in bytes.
const PIECE: usize = 256 * 1024;
/// Longest that whoever fetches a backup may keep it waiting.
const STALL: Duration = Duration::from_secs(30);

/// Answers the operator.
#[derive(Debug)]
pub struct Admin {
    /// What to show.
    pub metrics: Arc<Metrics>,
    /// The service; `None` while its state is locked.
    pub service: Option<Arc<KeyService>>,
    /// The state folder.
    pub folder: PathBuf,
    /// Whether the service is draining.
    pub stopping: watch::Receiver<bool>,
    /// One backup at a time: each keeps a thread and old pages of the database.
    pub backups: Arc<Semaphore>,
}

impl Handler for Admin {
    async fn answer(&self, request: Received) -> Answer {
        let path = request.uri().path();
        if path == "/backup" {
            return self.backup();
        }
        // A service that is locked cannot release keys: it is alive and not ready. Unlike draining, that does not end by itself.
        if path == "/health/ready" && self.service.is_none() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "locked\n");
        }
        operator_page(path, *self.stopping.borrow(), || self.metrics.render())
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "no such page\n"))
    }
}

impl Admin {
    /// A consistent copy of the sealed state, while the service goes on.
    fn backup(&self) -> Answer {
        let Some(service) = &self.service else {
            let why = "the state is locked; copy its folder, nobody writes to it\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        let Ok(place) = self.backups.clone().try_acquire_owned() else {
            let why = "another backup is under way; try again when it is done\n";
            return text(StatusCode::TOO_MANY_REQUESTS, why);
        };
        let (send, receive) = mpsc::channel(4);
        let (reader, folder) = (service.reader().clone(), self.folder.clone());
        tokio::task::spawn_blocking(move || {
            let mut out = Pieces::new(send);
            let written = backup::write(&reader, &folder, &mut out).map_err(std::io::Error::other);
            match written.and_then(|summary| out.flush().map(|()| summary)) {
                Ok(summary) => tracing::info!(entries = summary.entries, "backup sent"),
                Err(error) => {
                    tracing::error!(%error, "backup broken off");
                    out.fail(error);
                }
            }
            drop(place);
        });
        pieces(StatusCode::OK, "application/octet-stream", receive)
    }
}

/// Sends what is written to it, in pieces, to somebody who may be slow but not for ever.
struct Pieces {
    send: mpsc::Sender<std::io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(send: mpsc::Sender<std::io::Result<Bytes>>) -> Self {
        Self {
            send,
            piece: Vec::with_capacity(PIECE),
        }
    }

    fn fail(&self, error: std::io::Error) {
        // Nobody reads it if the other side left.
        let _ = self.send.try_send(Err(error));
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let full = core::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let mut piece = Ok(Bytes::from(full));
        let started = Instant::now();
        loop {
            piece = match self.send.try_send(piece) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(_)) if started.elapsed() > STALL => {
                    return Err(std::io::ErrorKind::TimedOut.into());
                }
                Err(TrySendError::Full(piece)) => piece,
                Err(TrySendError::Closed(_)) => return Err(std::io::ErrorKind::BrokenPipe.into()),
            };
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
