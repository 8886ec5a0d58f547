//! What instances print: drained for as long as they live, kept in bounded files, and read for one line only, the one that
//! says where they listen. A pipe that nobody reads would block its writer, so draining never stops before the end.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::{ActionName, InstanceId};

/// Longest line that may announce an address, in bytes.
const MAX_LINE: usize = 4096;
/// Most that is kept of one stream, in bytes; the rest is read and dropped.
const MAX_LOG_BYTES: usize = 8 << 20;
/// Instances whose logs are kept; with more, the oldest logs are deleted.
const MAX_INSTANCES: usize = 256;

/// The directory with the instances' logs.
#[derive(Debug)]
pub(super) struct LogDir {
    directory: PathBuf,
    kept: Mutex<VecDeque<[PathBuf; 2]>>,
}

/// A log file that takes so much and no more.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    left: usize,
}

impl LogDir {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            kept: Mutex::default(),
        })
    }

    /// New logs for stdout and stderr of an instance.
    pub(super) fn create(&self, action: &ActionName, instance: InstanceId) -> io::Result<[Log; 2]> {
        let paths = ["stdout", "stderr"].map(|stream| {
            self.directory
                .join(format!("{action}.{instance}.{stream}.log"))
        });
        let logs = [Log::create(&paths[0])?, Log::create(&paths[1])?];
        let surplus = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(paths);
            if kept.len() > MAX_INSTANCES {
                kept.pop_front()
            } else {
                None
            }
        };
        for path in surplus.into_iter().flatten() {
            // Somebody may have tidied up already; a log that stays is no harm.
            let _ = std::fs::remove_file(path);
        }
        Ok(logs)
    }
}

impl Log {
    fn create(path: &Path) -> io::Result<Self> {
        // Readable by the host's operator only: instances print what their own logs allow, but that is for them to know.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file: File::from_std(file),
            left: MAX_LOG_BYTES,
        })
    }

    async fn write(&mut self, bytes: &[u8]) {
        let (bytes, _) = bytes.split_at(bytes.len().min(self.left));
        self.left -= bytes.len();
        // A full disk costs log lines, never an instance.
        let kept = match self.file.write_all(bytes).await {
            Ok(()) => self.file.flush().await,
            Err(error) => Err(error),
        };
        if kept.is_err() {
            self.left = 0;
        }
    }
}

/// Reads a stream to its end into its log. Sends the address of the first listening line to `announce`, if asked to look.
pub(super) async fn drain(
    mut stream: impl AsyncRead + Unpin,
    mut log: Log,
    mut announce: Option<oneshot::Sender<SocketAddr>>,
) {
    let mut scanner = LineScanner::default();
    let mut chunk = [0; 8192];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        let (chunk, _) = chunk.split_at(read);
        if announce.is_some()
            && let Some(address) = scanner.feed(chunk)
            && let Some(announce) = announce.take()
        {
            let _ = announce.send(address);
        }
        log.write(chunk).await;
    }
}

/// Finds `{"event":"listening","address":"IP:PORT"}` on a line of its own. Lines before it are log lines.
#[derive(Debug, Default)]
struct LineScanner {
    line: Vec<u8>,
    too_long: bool,
}

impl LineScanner {
    fn feed(&mut self, chunk: &[u8]) -> Option<SocketAddr> {
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_LINE - self.line.len();
            self.too_long |= part.len() > room;
            self.line.extend(part.iter().take(room));
            if part.ends_with(b"\n") {
                let address = if self.too_long {
                    None
                } else {
                    listening(&self.line)
                };
                self.line.clear();
                self.too_long = false;
                if address.is_some() {
                    return address;
                }
            }
        }
        None
    }
}

fn listening(line: &[u8]) -> Option<SocketAddr> {
    let event: serde_json::Value = serde_json::from_slice(line).ok()?;
    if event.get("event")?.as_str()? != "listening" {
        return None;
    }
    event.get("address")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"{\"event\":\"listening\",\"address\":\"127.0.0.1:80\"}\n";

    #[test]
    fn the_listening_line_is_found_however_it_is_cut_and_whatever_precedes_it() {
        let text = [b"hello\n{\"event\":\"other\"}\n{}\n\n", LINE].concat();
        for size in [1, 7, text.len()] {
            let mut scanner = LineScanner::default();
            let found = text.chunks(size).find_map(|chunk| scanner.feed(chunk));
            assert_eq!(
                found,
                Some("127.0.0.1:80".parse().unwrap()),
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_counts_as_none() {
        let mut scanner = LineScanner::default();
        for _ in 0..100 {
            assert_eq!(scanner.feed(&[b'x'; 1000]), None);
            assert!(scanner.line.len() <= MAX_LINE);
        }
        assert_eq!(scanner.feed(b"\n"), None);
        assert!(scanner.feed(LINE).is_some());
    }

    #[tokio::test]
    async fn a_log_takes_no_more_than_its_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = Log::create(&path).unwrap();
        log.left = 5;
        log.write(b"abc").await;
        log.write(b"defg").await;
        log.write(b"h").await;
        assert_eq!(std::fs::read(path).unwrap(), b"abcde");
    }

    #[test]
    fn logs_of_old_instances_make_room_for_new_ones() {
        let directory = tempfile::tempdir().unwrap();
        let logs = LogDir::open(directory.path()).unwrap();
        let action = ActionName::new("a").unwrap();
        for id in 0..MAX_INSTANCES as u64 + 10 {
            logs.create(&action, InstanceId(id)).unwrap();
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            2 * MAX_INSTANCES
        );
    }
}
