//! A package on its way from the object store into memory: several ranges in flight, each segment decrypted by one of several
//! threads straight to its final place.
//!
//! Only the segments of one form are fetched. A segment is written nowhere before its tag is verified, and nothing is handed
//! out before all of them are: whatever fails on the way, all of it is dropped.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use futures::{StreamExt as _, stream};
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use sesemi_protocol::package::{FormPlace, HEAD, OpenPackage, PackageError, object_path};
use sesemi_protocol::release::Lease;
use sesemi_protocol::{Digest, ModelRef, SecretKey};
use tokio::sync::mpsc;
use zeroize::Zeroize as _;

/// Segments that one request to the store is for: 4 MiB.
const SEGMENTS: u32 = 4;
/// Requests under way at once.
const IN_FLIGHT: usize = 4;
/// Threads that decrypt.
const THREADS: usize = 2;

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The store does not have it, or does not answer.
    #[error("the object store: {0}")]
    Store(#[from] object_store::Error),
    /// What it has is not the package that the lease is for.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The store has a form, but sends something else than was asked for.
    #[error("the object store sent {found} bytes instead of {expected}")]
    Length {
        /// Bytes that came.
        found: usize,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// A thread ended without a result.
    #[error("decryption ended without a result")]
    Ended,
}

/// The package that a lease is for.
pub struct Wanted {
    /// Its model and version.
    pub model: ModelRef,
    /// Its key.
    pub key: SecretKey,
    /// Digest of its manifest.
    pub manifest: Digest,
}

impl Wanted {
    /// What a lease says.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        Self {
            model: lease.model.clone(),
            key: lease.model_key.clone(),
            manifest: lease.manifest,
        }
    }
}

/// A package whose manifest is known.
pub struct Found {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    package: Arc<OpenPackage>,
}

/// Reads the head of a package.
///
/// # Errors
/// [`FetchError`].
pub async fn find(store: Arc<dyn ObjectStore>, wanted: &Wanted) -> Result<Found, FetchError> {
    let path = ObjectPath::from(object_path(&wanted.model));
    let options = GetOptions {
        range: Some(GetRange::Bounded(0..HEAD as u64)),
        ..GetOptions::default()
    };
    let answer = store.get_opts(&path, options).await?;
    // The store states the size, and may lie: then the last segment does not open.
    let length = answer.meta.size;
    let mut head = Vec::with_capacity(HEAD);
    let mut pieces = answer.into_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let room = HEAD.saturating_sub(head.len());
        head.extend_from_slice(piece.get(..room).unwrap_or(&piece));
        if head.len() >= HEAD {
            break;
        }
    }
    let package = OpenPackage::new(&wanted.key, &wanted.model, &wanted.manifest, length, &head)?;
    Ok(Found {
        store,
        path,
        package: Arc::new(package),
    })
}

impl Found {
    /// The package, as far as it is known.
    #[must_use]
    pub fn package(&self) -> &OpenPackage {
        &self.package
    }

    /// Fetches and decrypts a form. Memory for it is taken here.
    ///
    /// # Errors
    /// [`FetchError`]; nothing is left of what came.
    pub async fn form(&self, place: FormPlace) -> Result<Decrypted, FetchError> {
        let segments = self.package.segments(&place.plaintext);
        let groups: Vec<Range<u32>> = groups(segments).collect();
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let opening = {
            let (package, groups) = (self.package.clone(), groups.clone());
            tokio::task::spawn_blocking(move || open(&package, place, &groups, receiver))
        };
        let fetching = async {
            let mut fetched = stream::iter(groups.into_iter().enumerate())
                .map(|(index, group)| self.fetch(index, group))
                .buffer_unordered(IN_FLIGHT);
            while let Some(group) = fetched.next().await {
                // Nobody takes it any more if a segment was not authentic.
                if sender.send(group?).await.is_err() {
                    break;
                }
            }
            // The threads end with it.
            drop(sender);
            Ok::<(), FetchError>(())
        };
        let (fetched, opened) = tokio::join!(fetching, opening);
        fetched?;
        opened.map_err(|_| FetchError::Ended)?
    }

    /// The ciphertext of some segments.
    async fn fetch(&self, index: usize, group: Range<u32>) -> Result<Sealed, FetchError> {
        let start = self.package.sealed(group.start).start;
        let end = self.package.sealed(group.end.saturating_sub(1)).end;
        let bytes = self.store.get_range(&self.path, start..end).await?;
        let expected = end.saturating_sub(start);
        if bytes.len() as u64 != expected {
            let found = bytes.len();
            return Err(FetchError::Length { found, expected });
        }
        // Without a copy, unless the store keeps the bytes for itself.
        let bytes = bytes
            .try_into_mut()
            .unwrap_or_else(|shared| shared.as_ref().into());
        Ok(Sealed {
            index,
            group,
            bytes,
        })
    }
}

/// Ciphertext of some segments.
struct Sealed {
    /// Which of the groups it is.
    index: usize,
    group: Range<u32>,
    bytes: BytesMut,
}

/// A form in memory.
pub struct Decrypted {
    memory: Vec<u8>,
    place: FormPlace,
}

impl Decrypted {
    /// The parts. The first stays where it was decrypted, the others are copied: they are small.
    #[must_use]
    pub fn into_parts(mut self) -> Vec<Vec<u8>> {
        let mut parts = vec![Vec::new()];
        for part in self.place.parts.iter().skip(1) {
            let part = self.memory.get(part.clone()).unwrap_or_default();
            parts.push(part.to_vec());
        }
        let first = self.place.parts.first().map_or(0, |part| part.end);
        let mut memory = core::mem::take(&mut self.memory);
        memory.truncate(first);
        if let Some(place) = parts.first_mut() {
            *place = memory;
        }
        parts
    }
}

impl Drop for Decrypted {
    fn drop(&mut self) {
        self.memory.zeroize();
    }
}

/// Segments in groups that one request is for.
fn groups(segments: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let end = segments.end;
    segments
        .step_by(SEGMENTS as usize)
        .map(move |first| first..first.saturating_add(SEGMENTS).min(end))
}

/// Decrypts groups of segments as they come, in whatever order.
fn open(
    package: &OpenPackage,
    place: FormPlace,
    groups: &[Range<u32>],
    sealed: mpsc::Receiver<Sealed>,
) -> Result<Decrypted, FetchError> {
    let wanted = place.plaintext.clone();
    let length = usize::try_from(wanted.end.saturating_sub(wanted.start));
    let memory = vec![0; length.unwrap_or(0)];
    let mut decrypted = Decrypted { memory, place };
    let work = Work {
        package,
        wanted: wanted.clone(),
        sealed: Mutex::new(sealed),
        places: Mutex::new(places(package, &wanted, groups, &mut decrypted.memory)),
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..THREADS).map(|_| scope.spawn(|| work.run())).collect();
        let mine = work.run();
        helpers.into_iter().fold(mine, |result, helper| {
            result.and(helper.join().unwrap_or(Err(FetchError::Ended)))
        })
    })?;
    let open = lock(&work.places).iter().any(Option::is_some);
    drop(work);
    if open {
        // Fetching failed, and says so itself.
        return Err(FetchError::Ended);
    }
    decrypted.place.check_gaps(&decrypted.memory)?;
    Ok(decrypted)
}

/// Cuts the memory of a form into the places of its groups of segments.
fn places<'m>(
    package: &OpenPackage,
    wanted: &Range<u64>,
    groups: &[Range<u32>],
    mut memory: &'m mut [u8],
) -> Vec<Option<&'m mut [u8]>> {
    let mut places = Vec::with_capacity(groups.len());
    for group in groups {
        let start = package.opened(group.start).start.max(wanted.start);
        let end = package
            .opened(group.end.saturating_sub(1))
            .end
            .min(wanted.end);
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let (place, rest) = memory.split_at_mut(length.min(memory.len()));
        places.push(Some(place));
        memory = rest;
    }
    places
}

/// What the threads share.
struct Work<'m> {
    package: &'m OpenPackage,
    /// The form, in the plaintext.
    wanted: Range<u64>,
    sealed: Mutex<mpsc::Receiver<Sealed>>,
    /// By group; each is taken by the thread that decrypts it.
    places: Mutex<Vec<Option<&'m mut [u8]>>>,
}

impl Work<'_> {
    fn run(&self) -> Result<(), FetchError> {
        loop {
            let next = lock(&self.sealed).blocking_recv();
            let Some(sealed) = next else {
                return Ok(());
            };
            if let Err(error) = self.open(sealed) {
                // The others, and whoever fetches, need not go on.
                lock(&self.sealed).close();
                return Err(error);
            }
        }
    }

    fn open(&self, sealed: Sealed) -> Result<(), FetchError> {
        let Sealed {
            index,
            group,
            mut bytes,
        } = sealed;
        let place = lock(&self.places).get_mut(index).and_then(Option::take);
        let mut place = place.ok_or(FetchError::Ended)?;
        let mut rest: &mut [u8] = &mut bytes;
        for segment in group {
            let Range { start, end } = self.package.sealed(segment);
            let length = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
            let (this, others) = rest.split_at_mut_checked(length).ok_or(FetchError::Ended)?;
            rest = others;
            let plaintext = self.package.open(segment, this)?;
            let wanted = within(&self.package.opened(segment), &self.wanted);
            let wanted = plaintext.get(wanted).unwrap_or_default();
            let (to, others) = place
                .split_at_mut_checked(wanted.len())
                .ok_or(FetchError::Ended)?;
            to.copy_from_slice(wanted);
            plaintext.zeroize();
            place = others;
        }
        Ok(())
    }
}

/// What of a segment's plaintext is wanted, counted from its start.
fn within(segment: &Range<u64>, wanted: &Range<u64>) -> Range<usize> {
    let start = wanted.start.clamp(segment.start, segment.end);
    let end = wanted.end.clamp(start, segment.end);
    let from_start = |position: u64| {
        usize::try_from(position.saturating_sub(segment.start)).unwrap_or(usize::MAX)
    };
    from_start(start)..from_start(end)
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
