//! The memory that a form is decrypted in: ciphertext is put where its plaintext will be, and is decrypted there.
//!
//! A segment's plaintext is as long as its ciphertext proper, so only the tags, 16 bytes of each mebibyte, are kept elsewhere.
//! Each segment is copied once, into memory where it stays, and decrypted while it is still in the processor's cache. That
//! also works before there is a key: where segments lie follows from the package's length alone.
//!
//! Plaintext is written before its tag is verified, as decryption in place does. Nobody sees it: an arena is handed out only once
//! all segments of the form are authentic, and is wiped otherwise.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use sesemi_process::{Wiped, wipe};
use sesemi_protocol::package::stream::{SEGMENT, TAG};
use sesemi_protocol::package::{FormPlace, OpenPackage};
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Reservation;
use super::fetch::{Decrypted, FetchError};
use super::source::Cut;
use crate::sync::lock;

/// Threads that decrypt: two are enough for what memory bandwidth allows.
const THREADS: usize = 2;
/// Memory is touched in steps of a huge page.
const STEP: usize = 2 * 1024 * 1024;

/// Ciphertext of some segments, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) segments: Range<u32>,
    /// Where it starts in the package.
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

/// Memory for a range of the plaintext.
pub(super) struct Arena {
    memory: Vec<u8>,
    /// What of the plaintext it is for.
    plaintext: Range<u64>,
    cut: Cut,
    /// The segments that hold it, from the first one on.
    first: u32,
    states: Vec<State>,
    /// Whether any plaintext was ever written.
    secret: bool,
    reserved: Option<Reservation>,
    /// Its place among the fetches that are ahead of their keys, as long as it is one of them.
    slot: Option<OwnedSemaphorePermit>,
}

fn length_of(plaintext: &Range<u64>) -> Result<usize, FetchError> {
    let length = plaintext.end.saturating_sub(plaintext.start);
    usize::try_from(length).map_err(|_| FetchError::Ended)
}

/// What there is of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    /// Its ciphertext lies where its plaintext will; this is its tag.
    Sealed([u8; TAG]),
    Open,
}

/// Where ciphertext is to be had.
pub(super) enum Given<'g> {
    Pieces(&'g [Piece]),
    File(&'g File),
}

impl Arena {
    /// Memory for a range of the plaintext, for which `reserved` was reserved. It is zero, and none of it is touched yet.
    pub(super) fn new(
        plaintext: Range<u64>,
        cut: Cut,
        reserved: Reservation,
    ) -> Result<Self, FetchError> {
        let memory = vec![0; length_of(&plaintext)?];
        Self::within(memory, false, plaintext, cut, reserved)
    }

    /// The same in memory that another model left, and that holds its weights: nothing of them is handed out, because a form is only
    /// once all of it was written. Memory of its own if that is too short.
    pub(super) fn reusing(
        mut left: Wiped,
        plaintext: Range<u64>,
        cut: Cut,
        reserved: Reservation,
    ) -> Result<Self, FetchError> {
        let length = length_of(&plaintext)?;
        if left.capacity() < length {
            drop_elsewhere(left);
            return Self::new(plaintext, cut, reserved);
        }
        wipe(left.get_mut(length..).unwrap_or_default());
        left.resize(length, 0);
        let memory = core::mem::take(&mut left.0);
        Self::within(memory, true, plaintext, cut, reserved)
    }

    fn within(
        memory: Vec<u8>,
        secret: bool,
        plaintext: Range<u64>,
        cut: Cut,
        reserved: Reservation,
    ) -> Result<Self, FetchError> {
        let segments = cut.layout.holding(&plaintext);
        let states = vec![State::Missing; segments.len()];
        Ok(Self {
            memory,
            plaintext,
            cut,
            first: segments.start,
            states,
            secret,
            reserved: Some(reserved),
            slot: None,
        })
    }

    /// Keeps a place until its memory is given back, or lets it go.
    pub(super) fn keep(&mut self, slot: Option<OwnedSemaphorePermit>) {
        self.slot = slot;
    }

    /// What of the plaintext it is for.
    pub(super) fn plaintext(&self) -> &Range<u64> {
        &self.plaintext
    }

    /// Bytes that are reserved for it.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved.as_ref().map_or(0, Reservation::bytes)
    }

    /// Adds to what is reserved for it.
    pub(super) fn reserve(&mut self, more: Reservation) {
        match &mut self.reserved {
            Some(reserved) => reserved.join(more),
            none => *none = Some(more),
        }
    }

    /// Has the kernel back it with memory before it is needed, until `stop`.
    pub(super) fn touch(&mut self, stop: &AtomicBool) {
        for step in self.memory.chunks_mut(STEP) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            // A page in each step is enough on huge pages; on small ones the rest is touched when it is written. The
            // compiler must not see that nothing changes.
            if let Some(byte) = step.first_mut() {
                *byte = core::hint::black_box(*byte);
            }
            core::hint::black_box(step);
        }
    }

    /// Puts ciphertext where it belongs, as far as it has whole places here.
    pub(super) fn fill(&mut self, pieces: &[Piece]) {
        for segment in self.segments() {
            let given = Given::Pieces(pieces);
            let _ = self.fill_one(segment, &given);
        }
    }

    /// Puts the ciphertext of a file where it belongs, one segment after the other, until `stop`.
    pub(super) fn fill_from(&mut self, file: &File, stop: &AtomicBool) -> Result<(), FetchError> {
        for segment in self.segments() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.fill_one(segment, &Given::File(file))?;
        }
        Ok(())
    }

    fn segments(&self) -> Range<u32> {
        let count = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        self.first..self.first.saturating_add(count)
    }

    fn fill_one(&mut self, segment: u32, given: &Given<'_>) -> Result<(), FetchError> {
        let opened = self.cut.layout.opened(segment);
        let inside = self.plaintext.start <= opened.start && opened.end <= self.plaintext.end;
        let index = segment.saturating_sub(self.first) as usize;
        if !inside || self.states.get(index) != Some(&State::Missing) {
            return Ok(());
        }
        let range = offset(opened.start, &self.plaintext)..offset(opened.end, &self.plaintext);
        let place = self.memory.get_mut(range).ok_or(FetchError::Ended)?;
        if let Some(tag) = given.copy(segment, &self.cut, place)?
            && let Some(state) = self.states.get_mut(index)
        {
            *state = State::Sealed(tag);
        }
        Ok(())
    }

    /// Decrypts what there is of a range of the plaintext: what lies here, and what is given. Says when the last ciphertext was
    /// read, if some was.
    pub(super) fn open(
        &mut self,
        package: &OpenPackage,
        wanted: &Range<u64>,
        given: &Given<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<Instant>, FetchError> {
        self.secret = true;
        let segments = self.cut.layout.holding(wanted);
        let mut jobs = Vec::new();
        let mut rest: &mut [u8] = &mut self.memory;
        let mut at = self.plaintext.start;
        for (segment, state) in (self.first..).zip(&self.states) {
            if !segments.contains(&segment) || *state == State::Open {
                continue;
            }
            let sealed = match (state, given) {
                (State::Sealed(tag), _) => Some(*tag),
                (_, Given::Pieces(pieces)) if bytes_of(pieces, segment, &self.cut).is_none() => {
                    continue;
                }
                _ => None,
            };
            let opened = self.cut.layout.opened(segment);
            let start = opened.start.max(self.plaintext.start);
            let end = opened.end.min(self.plaintext.end);
            let (_, from_start) = rest
                .split_at_mut_checked(distance(at, start))
                .ok_or(FetchError::Ended)?;
            let (place, others) = from_start
                .split_at_mut_checked(distance(start, end))
                .ok_or(FetchError::Ended)?;
            rest = others;
            at = end;
            jobs.push(Job {
                segment,
                sealed,
                place,
                skipped: distance(opened.start, start),
                length: distance(opened.start, opened.end),
            });
        }
        let opened: Vec<u32> = jobs.iter().map(|job| job.segment).collect();
        let last_read = Work {
            package,
            cut: self.cut,
            given,
            stop,
            jobs: Mutex::new(jobs.into_iter()),
            last_read: Mutex::new(None),
        }
        .run()?;
        for segment in opened {
            self.mark_open(segment);
        }
        Ok(last_read)
    }

    /// Takes over segment 0, which was opened for the manifest.
    pub(super) fn put_first(&mut self, first: &[u8]) {
        let opened = self.cut.layout.opened(0);
        let start = self.plaintext.start.min(opened.end);
        let end = self.plaintext.end.clamp(start, opened.end);
        if self.first != 0 || start >= end {
            return;
        }
        let from = first.get(distance(opened.start, start)..distance(opened.start, end));
        let to = self.memory.get_mut(..distance(start, end));
        if let (Some(from), Some(to)) = (from, to) {
            to.copy_from_slice(from);
            self.secret = true;
            self.mark_open(0);
        }
    }

    fn mark_open(&mut self, segment: u32) {
        let index = segment.saturating_sub(self.first) as usize;
        if let Some(state) = self.states.get_mut(index) {
            *state = State::Open;
        }
    }

    /// Hands out a form whose segments are all open, and gives back what was taken beyond it.
    pub(super) fn into_form(mut self, place: FormPlace) -> Result<Decrypted, FetchError> {
        let segments = self.cut.layout.holding(&place.plaintext);
        let states = (self.first..).zip(&self.states);
        let mut wanted = states.filter(|(segment, _)| segments.contains(segment));
        let length = distance(place.plaintext.start, place.plaintext.end);
        if self.plaintext.start != place.plaintext.start
            || self.memory.len() < length
            || wanted.any(|(_, state)| *state != State::Open)
        {
            // Fetching failed, and says so itself.
            return Err(FetchError::Ended);
        }
        // Of the last segment, what belongs to the next form.
        let opened = segments.end.checked_sub(1).map(|last| {
            let end = self.cut.layout.opened(last).end;
            distance(place.plaintext.start, end).min(self.memory.len())
        });
        if let Some(tail) = self.memory.get_mut(length..opened.unwrap_or(length)) {
            wipe(tail);
        }
        let mut memory = core::mem::take(&mut self.memory);
        memory.truncate(length);
        memory.shrink_to_fit();
        let mut decrypted = Decrypted::new(memory, place, self.reserved.take());
        decrypted.check()?;
        Ok(decrypted)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        drop_elsewhere(self.take_all());
    }
}

/// What there is of an arena, in the order in which it is to be dropped: first the memory, then what says that it is there.
type Remains = (Memory, Option<Reservation>, Option<OwnedSemaphorePermit>);

/// Memory that is wiped on drop if there was ever any plaintext in it.
struct Memory {
    bytes: Vec<u8>,
    secret: bool,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.secret {
            wipe(&mut self.bytes);
        }
    }
}

impl Arena {
    /// Drops it, and returns when its memory is free.
    pub(super) async fn dismiss(mut self) {
        let remains = self.take_all();
        let _ = tokio::task::spawn_blocking(move || drop(remains)).await;
    }

    fn take_all(&mut self) -> Remains {
        let memory = Memory {
            bytes: core::mem::take(&mut self.memory),
            secret: self.secret,
        };
        (memory, self.reserved.take(), self.slot.take())
    }
}

/// Drops what takes its time to be given back on a thread that may be kept waiting.
pub(super) fn drop_elsewhere<T: Send + 'static>(value: T) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
        Err(_) => drop(value),
    }
}

impl Given<'_> {
    /// Copies the ciphertext proper of a segment to its place; its tag, or none if the segment is not here.
    fn copy(
        &self,
        segment: u32,
        cut: &Cut,
        place: &mut [u8],
    ) -> Result<Option<[u8; TAG]>, FetchError> {
        match self {
            Self::Pieces(pieces) => {
                let Some(sealed) = bytes_of(pieces, segment, cut) else {
                    return Ok(None);
                };
                let (body, tag) = sealed.split_last_chunk().ok_or(FetchError::Ended)?;
                if body.len() != place.len() {
                    return Err(FetchError::Ended);
                }
                place.copy_from_slice(body);
                Ok(Some(*tag))
            }
            Self::File(file) => {
                let mut tag = [0; TAG];
                let sealed = cut.sealed(segment);
                file.read_exact_at(place, sealed.start)?;
                file.read_exact_at(&mut tag, sealed.end.saturating_sub(TAG as u64))?;
                Ok(Some(tag))
            }
        }
    }
}

fn bytes_of<'p>(pieces: &'p [Piece], segment: u32, cut: &Cut) -> Option<&'p [u8]> {
    let mut holding = pieces
        .iter()
        .filter(|piece| piece.segments.contains(&segment));
    let piece = holding.next()?;
    let Range { start, end } = cut.sealed(segment);
    piece
        .bytes
        .get(distance(piece.start, start)..distance(piece.start, end))
}

/// A segment to be decrypted.
struct Job<'m> {
    segment: u32,
    /// The tag, if the ciphertext lies in its place already.
    sealed: Option<[u8; TAG]>,
    place: &'m mut [u8],
    /// What of the segment's plaintext comes before the place, and how long it is.
    skipped: usize,
    length: usize,
}

/// What the threads share.
struct Work<'w, 'm> {
    package: &'w OpenPackage,
    cut: Cut,
    given: &'w Given<'w>,
    stop: &'w AtomicBool,
    jobs: Mutex<std::vec::IntoIter<Job<'m>>>,
    last_read: Mutex<Option<Instant>>,
}

impl Work<'_, '_> {
    fn run(self) -> Result<Option<Instant>, FetchError> {
        let count = lock(&self.jobs).len();
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..THREADS.min(count))
                .filter_map(|_| {
                    // Without a second thread the first does it all.
                    let builder = std::thread::Builder::new().name("decrypt".into());
                    builder.spawn_scoped(scope, || self.work()).ok()
                })
                .collect();
            let mine = self.work();
            helpers.into_iter().fold(mine, |result, helper| {
                result.and(helper.join().unwrap_or(Err(FetchError::Ended)))
            })
        })?;
        Ok(*lock(&self.last_read))
    }

    fn work(&self) -> Result<(), FetchError> {
        let mut scratch = Wiped::default();
        loop {
            let next = lock(&self.jobs).next();
            let Some(job) = next else {
                return Ok(());
            };
            if self.stop.load(Ordering::Relaxed) {
                return Err(FetchError::Ended);
            }
            if let Err(error) = self.open(job, &mut scratch) {
                // The others need not go on.
                lock(&self.jobs).by_ref().for_each(drop);
                return Err(error);
            }
        }
    }

    fn open(&self, job: Job<'_>, scratch: &mut Vec<u8>) -> Result<(), FetchError> {
        let whole = job.place.len() == job.length;
        let Job { place, .. } = job;
        let body: &mut [u8] = if whole {
            &mut *place
        } else {
            scratch.resize(SEGMENT, 0);
            scratch.get_mut(..job.length).ok_or(FetchError::Ended)?
        };
        let tag = match job.sealed {
            Some(tag) if whole => tag,
            _ => {
                let tag = self.given.copy(job.segment, &self.cut, body)?;
                if matches!(self.given, Given::File(_)) {
                    *lock(&self.last_read) = Some(Instant::now());
                }
                tag.ok_or(FetchError::Ended)?
            }
        };
        self.package.open_separate(job.segment, body, &tag)?;
        if !whole {
            let end = job.skipped.saturating_add(place.len());
            let wanted = scratch.get(job.skipped..end).ok_or(FetchError::Ended)?;
            place.copy_from_slice(wanted);
        }
        Ok(())
    }
}

fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

fn offset(position: u64, range: &Range<u64>) -> usize {
    distance(range.start, position)
}
