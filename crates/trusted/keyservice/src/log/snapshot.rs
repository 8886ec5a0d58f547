//! Snapshots: the whole state at one point of the log, sealed, so that a start replays only what came after.
//!
//! A file is a plain header, then the content in segments of 1 MiB, each sealed to `["sesemi/v1/snapshot", header, number, last]`. So
//! the header is authentic if any segment opens; segments cannot be cut off, swapped or mixed with another snapshot's (the
//! header holds a random id); and neither writing nor reading needs the state twice in memory. The content is the log's chain
//! at every 32nd entry, then the state. The name of a file says how new it claims to be, and no more.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use minicbor::Encoder;
use sesemi_attest::sealing::{OVERHEAD, SealError, Sealer};
use sesemi_protocol::entropy::random;
use sesemi_protocol::{Digest, Entropy, SecretKey};
use zeroize::Zeroizing;

use super::milestones::{STRIDE, Start};
use super::storage::sync_folder;
use super::{FORMAT, LogError, Point};

/// Content of a full segment, in bytes.
const SEGMENT: usize = 1024 * 1024;
/// Largest content, in bytes.
const MAX_CONTENT: u64 = 16 * 1024 * 1024 * 1024;
/// Magic, format, sequence, chain, id, length of the content.
pub(super) const HEADER: usize = MAGIC.len() + 4 + 8 + 32 + 16 + 8;
const MAGIC: &[u8; 16] = b"SeSeMI snapshot\n";
/// How many snapshots are kept: the newest, and one in case that it is damaged.
const KEEP: usize = 2;
/// What names of snapshots end in.
const EXTENSION: &str = ".snapshot";

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be read or written.
    #[error("{path}: {source}; check the disk and the folder's permissions")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It is no snapshot, one of another version, or not as long as it says: writing it did not come to its end.
    #[error("not a whole snapshot of format {FORMAT}")]
    NotWhole,
    /// It does not unseal.
    #[error("{0}")]
    NotAuthentic(SealError),
    /// What it says of the log before it is not consistent.
    #[error(transparent)]
    Start(LogError),
    /// The state is too large for a snapshot.
    #[error("a state of {0} bytes is above the limit of {MAX_CONTENT} for a snapshot")]
    TooLarge(u64),
    /// It could not be sealed.
    #[error("the snapshot could not be sealed: {0}")]
    Seal(SealError),
}

/// A state that was read back.
pub struct Snapshot {
    /// Where in the log it was taken: what [`super::Log::open`] goes on from.
    pub start: Start,
    /// The state, as it was given.
    pub state: Zeroizing<Vec<u8>>,
}

impl core::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Snapshot").field(&self.start).finish()
    }
}

/// The newest snapshot that is whole and authentic, and what was passed over.
#[derive(Debug)]
pub struct Newest {
    /// `None`: there is none, and the log must be replayed from its first entry.
    pub snapshot: Option<Snapshot>,
    /// Newer files that are no snapshots of this service, and why. Each was logged as a warning.
    pub skipped: Vec<(PathBuf, SnapshotError)>,
}

/// The snapshots in one folder.
#[derive(Debug)]
pub struct Snapshots {
    folder: PathBuf,
    sealer: Sealer,
}

impl Snapshots {
    /// The snapshots in `folder`, which is made if need be, under the state key.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], or [`SnapshotError::Seal`] if the provider fails.
    pub fn new(folder: impl Into<PathBuf>, key: &SecretKey) -> Result<Self, SnapshotError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        let sealer = Sealer::new(key, "keyservice/snapshot").map_err(SnapshotError::Seal)?;
        Ok(Self { folder, sealer })
    }

    /// Keeps `state`, taken when the log was at `start`, and removes all but the newest two. Once this returns, the snapshot is on disk;
    /// if it fails, those before are as they were.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn write(
        &self,
        start: &Start,
        state: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<PathBuf, SnapshotError> {
        let name = format!("{:020}{EXTENSION}", start.point().sequence);
        let path = self.folder.join(&name);
        let temporary = self.folder.join(format!("{name}.new"));
        let result = self
            .write_file(&temporary, start, state, entropy)
            .and_then(|()| fs::rename(&temporary, &path).map_err(io_error(&path)))
            .and_then(|()| sync_folder(Some(&self.folder)).map_err(io_error(&self.folder)));
        if let Err(error) = result {
            // Best effort: what is left of it is overwritten by the next one.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        for old in files(&self.folder)?.iter().skip(KEEP) {
            fs::remove_file(old).map_err(io_error(old))?;
        }
        Ok(path)
    }

    fn write_file(
        &self,
        path: &Path,
        start: &Start,
        state: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<(), SnapshotError> {
        let chains: Vec<u8> = start
            .milestones()
            .iter()
            .flat_map(|chain| *chain.as_bytes())
            .collect();
        let length = (chains.len() as u64).saturating_add(state.len() as u64);
        if length > MAX_CONTENT {
            return Err(SnapshotError::TooLarge(length));
        }
        let id: [u8; 16] = random(entropy).map_err(|_| SnapshotError::Seal(SealError::Provider))?;
        let point = start.point();
        let header = Header { point, id, length }.bytes();
        let mut file = File::create(path).map_err(io_error(path))?;
        file.write_all(&header).map_err(io_error(path))?;
        let mut content = chains.as_slice().chain(state);
        for number in 0..segments(length) {
            let last = number.saturating_add(1) == segments(length);
            let mut segment = Zeroizing::new(Vec::with_capacity(SEGMENT));
            (&mut content)
                .take(SEGMENT as u64)
                .read_to_end(&mut segment)
                .map_err(io_error(path))?;
            let sealed = self
                .sealer
                .seal(&place(&header, number, last), &segment, entropy)
                .map_err(SnapshotError::Seal)?;
            file.write_all(&sealed).map_err(io_error(path))?;
        }
        file.sync_all().map_err(io_error(path))
    }

    /// Reads the newest snapshot that is whole and authentic. A file that is not is passed over, with a warning.
    ///
    /// Whether the log goes as far as the snapshot is for [`super::Log::open`] to say: one that does not was rolled back.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the folder cannot be read.
    pub fn newest(&self) -> Result<Newest, SnapshotError> {
        let mut skipped = Vec::new();
        for path in files(&self.folder)? {
            match self.read(&path) {
                Ok(snapshot) => {
                    return Ok(Newest {
                        snapshot: Some(snapshot),
                        skipped,
                    });
                }
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "a snapshot was passed over");
                    skipped.push((path, error));
                }
            }
        }
        Ok(Newest {
            snapshot: None,
            skipped,
        })
    }

    fn read(&self, path: &Path) -> Result<Snapshot, SnapshotError> {
        let mut file = File::open(path).map_err(io_error(path))?;
        let found = file.metadata().map_err(io_error(path))?.len();
        let mut bytes = [0; HEADER];
        file.read_exact(&mut bytes)
            .map_err(|_| SnapshotError::NotWhole)?;
        let header = Header::parse(&bytes).ok_or(SnapshotError::NotWhole)?;
        let count = segments(header.length);
        let sealing = count.saturating_mul(OVERHEAD as u64);
        let expected = (HEADER as u64)
            .saturating_add(header.length)
            .saturating_add(sealing);
        if found != expected {
            return Err(SnapshotError::NotWhole);
        }
        let chains = header
            .point
            .sequence
            .checked_div(STRIDE)
            .and_then(|count| count.checked_mul(32))
            .filter(|chains| *chains <= header.length)
            .ok_or(SnapshotError::NotWhole)?;
        let state = header.length.saturating_sub(chains);
        let mut content = Content {
            chains: with_room(chains)?,
            missing: usize::try_from(chains).map_err(|_| SnapshotError::NotWhole)?,
            state: Zeroizing::new(with_room(state)?),
        };
        let mut left = header.length;
        for number in 0..count {
            let length = left.min(SEGMENT as u64);
            left = left.saturating_sub(length);
            let mut sealed = Vec::with_capacity(SEGMENT.saturating_add(OVERHEAD));
            (&mut file)
                .take(length.saturating_add(OVERHEAD as u64))
                .read_to_end(&mut sealed)
                .map_err(io_error(path))?;
            let segment = self
                .sealer
                .unseal(&place(&bytes, number, left == 0), &sealed)
                .map_err(SnapshotError::NotAuthentic)?;
            content.push(&segment);
        }
        let milestones = content
            .chains
            .chunks_exact(32)
            .filter_map(|chain| chain.try_into().ok().map(Digest))
            .collect();
        Ok(Snapshot {
            start: Start::new(header.point, milestones).map_err(SnapshotError::Start)?,
            state: content.state,
        })
    }
}

/// The content as far as it was read; both parts have all the room they need.
struct Content {
    chains: Vec<u8>,
    /// Bytes that `chains` still lacks.
    missing: usize,
    state: Zeroizing<Vec<u8>>,
}

impl Content {
    fn push(&mut self, segment: &[u8]) {
        let (chains, state) = segment.split_at(self.missing.min(segment.len()));
        self.missing = self.missing.saturating_sub(chains.len());
        self.chains.extend_from_slice(chains);
        self.state.extend_from_slice(state);
    }
}

/// Room for a length that the file's own length vouches for.
fn with_room(length: u64) -> Result<Vec<u8>, SnapshotError> {
    let length = usize::try_from(length).map_err(|_| SnapshotError::NotWhole)?;
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(length)
        .map_err(|_| SnapshotError::TooLarge(length as u64))?;
    Ok(buffer)
}

/// What is plain at the beginning of a snapshot: authentic only once a segment opened.
pub(super) struct Header {
    pub(super) point: Point,
    id: [u8; 16],
    length: u64,
}

impl Header {
    fn bytes(&self) -> Vec<u8> {
        [
            MAGIC.as_slice(),
            &FORMAT.to_be_bytes(),
            &self.point.sequence.to_be_bytes(),
            self.point.chain.as_bytes(),
            &self.id,
            &self.length.to_be_bytes(),
        ]
        .concat()
    }

    pub(super) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let rest = rest.strip_prefix(&FORMAT.to_be_bytes())?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (chain, rest) = rest.split_first_chunk::<32>()?;
        let (id, length) = rest.split_first_chunk::<16>()?;
        let length = u64::from_be_bytes(length.try_into().ok()?);
        (length <= MAX_CONTENT).then_some(Self {
            point: Point {
                sequence: u64::from_be_bytes(*sequence),
                chain: Digest(*chain),
            },
            id: *id,
            length,
        })
    }
}

/// Segments of a content; an empty one has one, so that there is always something to authenticate.
fn segments(length: u64) -> u64 {
    length.div_ceil(SEGMENT as u64).max(1)
}

fn place(header: &[u8], number: u64, last: bool) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    // Writing to a Vec cannot fail.
    let _ = e
        .array(4)
        .and_then(|e| e.str("sesemi/v1/snapshot"))
        .and_then(|e| e.bytes(header))
        .and_then(|e| e.u64(number))
        .and_then(|e| e.bool(last));
    e.into_writer()
}

/// Whether `name` is the name of a snapshot: 20 digits and the extension.
pub(super) fn is_name(name: &str) -> bool {
    name.strip_suffix(EXTENSION)
        .is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The files with names of snapshots, the newest first.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).map_err(io_error(folder))? {
        let path = item.map_err(io_error(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(is_name) {
            found.push(path);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io {
        path: path.clone(),
        source,
    }
}
