//! Packages as they came from a remote store, still encrypted, in a folder of this host: the next instance need not fetch them
//! again.
//!
//! The folder belongs to the host and is believed no more than the store is: segments authenticate themselves. A file is a sparse
//! copy of a package with the bytes that one engine needed. It appears by renaming, once the form that was used was authentic; several
//! instances may share the folder, and one may remove what another reads, which goes on with what it opened. Whatever is wrong with
//! a file or the folder is no error: the package is fetched from the store.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sesemi_protocol::package::object_path;
use sesemi_protocol::{Digest, ModelRef};
use tokio::task::spawn_blocking;

use super::arena::Piece;
use super::source::{Head, Source};

/// How files of this cache end.
const SEALED: &str = "sealed";
/// How files end that are being written.
const PART: &str = "part";
/// A file that was being written so long ago was left behind by an instance that ended.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder for ciphertext.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    most: u64,
    next: AtomicU64,
}

impl Cache {
    /// A cache in a folder that is there and may be written, of up to `most` bytes. What is used least recently makes room.
    #[must_use]
    pub fn new(folder: PathBuf, most: u64) -> Arc<Self> {
        Arc::new(Self {
            folder,
            most,
            next: AtomicU64::new(0),
        })
    }

    /// The file for what an engine needs of a package.
    fn path(&self, model: &ModelRef, engine: &str) -> PathBuf {
        let digest = Digest::of_pieces([object_path(model).as_bytes(), b"\0", engine.as_bytes()]);
        self.folder.join(format!("{digest}.{SEALED}"))
    }

    /// A package that is here.
    pub(super) async fn find(
        self: &Arc<Self>,
        model: &ModelRef,
        engine: &str,
    ) -> Option<(Source, Head)> {
        let path = self.path(model, engine);
        let opening = spawn_blocking(move || {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            // All packages begin like that. Writing it is how the file tells that it was used: the calls that set times are not
            // among those that this process may make.
            file.write_all_at(b"S", 0)?;
            Ok::<_, io::Error>(file)
        });
        Source::of_file(opening.await.ok()?.ok()?).await.ok()
    }

    /// A place for a package that is about to be fetched; none if it cannot be kept.
    pub(super) async fn keep(
        self: &Arc<Self>,
        model: &ModelRef,
        engine: &str,
        head: &Head,
    ) -> Option<Arc<Keeper>> {
        if head.length > self.most {
            return None;
        }
        let path = self.path(model, engine);
        // Another instance may have the same process number, and a clock that stands still.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()?
            .as_nanos();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let part = path.with_extension(format!("{}-{now}-{number}.{PART}", std::process::id()));
        let (cache, bytes, length) = (self.clone(), head.bytes.clone(), head.length);
        let opening = spawn_blocking(move || {
            let file = File::create_new(&part)?;
            // From here on it is removed whatever happens.
            let keeper = Keeper {
                cache,
                file,
                part,
                path,
                failed: AtomicBool::new(false),
            };
            keeper.file.set_len(length)?;
            keeper.file.write_all_at(&bytes, 0)?;
            Ok::<_, io::Error>(Arc::new(keeper))
        });
        opening.await.ok()?.ok()
    }

    /// Removes what was used least recently, and what was left behind, until the rest is not more than it may be.
    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // It may be gone by now.
            let Ok(metadata) = path.metadata() else {
                continue;
            };
            let used = metadata.modified()?;
            if has_extension(&path, PART) {
                if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                    let _ = std::fs::remove_file(path);
                }
            } else if has_extension(&path, SEALED) {
                files.push((used, size(&metadata), path));
            }
        }
        files.sort();
        let mut total = files
            .iter()
            .fold(0u64, |sum, (_, size, _)| sum.saturating_add(*size));
        for (_, size, path) in files {
            if total <= self.most {
                break;
            }
            let _ = std::fs::remove_file(path);
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// Bytes that a file takes: blocks of 512, where the file system says; a file with holes takes less than it is long.
fn size(metadata: &std::fs::Metadata) -> u64 {
    match metadata.blocks() {
        0 => metadata.len(),
        blocks => blocks.saturating_mul(512),
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Keeper {
    cache: Arc<Cache>,
    file: File,
    part: PathBuf,
    path: PathBuf,
    failed: AtomicBool,
}

impl Keeper {
    /// Writes ciphertext where it belongs. What cannot be written is not kept. Blocks.
    pub(super) fn write(&self, pieces: &[Piece]) {
        for piece in pieces {
            if self.file.write_all_at(&piece.bytes, piece.start).is_err() {
                self.failed.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Puts the file where others find it: what is in it was authentic. Blocks.
    pub(super) fn finish(&self) {
        if !self.failed.load(Ordering::Relaxed) && std::fs::rename(&self.part, &self.path).is_ok() {
            let _ = self.cache.make_room();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Once it has its name it is no longer here.
        let _ = std::fs::remove_file(&self.part);
    }
}
