//! A disk in memory that can be full, fail, be read-only, and crash.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::log::{Access, Storage};

const PAGE: u64 = 4096;

/// What happened, in order.
#[derive(Debug, Clone)]
pub(super) enum Event {
    Write(u64, Vec<u8>),
    Length(u64),
    /// All before is on disk.
    Synced,
    /// A failed one: of the writes since the last, those marked came to the disk, and the kernel forgets the others.
    NotSynced(Vec<bool>),
    /// The log acknowledged everything up to here.
    Acknowledged,
}

/// What a disk holds, or a copy of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
}

impl Image {
    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Write(offset, data) => self.write(*offset, data),
            Event::Length(length) => self.bytes.resize(*length as usize, 0),
            _ => {}
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + data.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(data);
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// What reads see: the kernel's cache.
    cache: Image,
    /// What the disk has.
    pub(super) durable: Image,
    /// Since the last sync.
    pending: Vec<Event>,
    pub(super) history: Vec<Event>,
    /// Pages with content, and how many there may be.
    used: BTreeSet<u64>,
    pub(super) room: Option<usize>,
    /// How many syncs fail from now on.
    pub(super) failing_syncs: u32,
    /// Whether the cache loses what a failed sync did not write.
    pub(super) evicts: bool,
    pub(super) read_only: bool,
    pub(super) unreadable: bool,
    /// For what a failed sync leaves behind.
    random: u64,
}

/// A disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn with(image: Image) -> Self {
        let state = State {
            durable: image.clone(),
            cache: image,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn used(&self) -> usize {
        self.state().used.len()
    }

    /// A disk as it is after a power cut now.
    pub(super) fn after_a_crash(&self) -> Self {
        Self::with(self.state().durable.clone())
    }
}

impl Storage for Disk {
    fn open(&self, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        let state = self.state();
        if state.read_only && access == Access::Write {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        drop(state);
        Ok(Box::new(self.clone()))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().cache.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if state.unreadable {
            return Err(io::Error::from_raw_os_error(5));
        }
        let found = state
            .cache
            .bytes
            .get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let event = Event::Length(length);
        state.cache.apply(&event);
        state.pending.push(event.clone());
        state.history.push(event);
        state.used.retain(|page| page * PAGE < length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        let pending = std::mem::take(&mut state.pending);
        if state.failing_syncs == 0 {
            pending.iter().for_each(|event| state.durable.apply(event));
            state.history.push(Event::Synced);
            return Ok(());
        }
        state.failing_syncs -= 1;
        let mut came_through = Vec::new();
        for event in &pending {
            state.random = next(state.random);
            // A new length is the file system's own affair, kept in its journal.
            let through = state.random & 1 == 0 || matches!(event, Event::Length(_));
            if through {
                state.durable.apply(event);
            }
            came_through.push(through);
        }
        state.history.push(Event::NotSynced(came_through));
        if state.evicts {
            state.cache = state.durable.clone();
        }
        Err(io::Error::from_raw_os_error(5))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        for page in offset / PAGE..(offset + data.len() as u64).div_ceil(PAGE) {
            let full = state.room.is_some_and(|room| state.used.len() >= room);
            if full && !state.used.contains(&page) {
                return Err(io::Error::from_raw_os_error(28));
            }
            state.used.insert(page);
        }
        let event = Event::Write(offset, data.to_vec());
        state.cache.apply(&event);
        state.pending.push(event.clone());
        state.history.push(event);
        Ok(())
    }
}

/// The next of a series of numbers that look random: the same ones in every run.
pub(super) fn next(random: u64) -> u64 {
    random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
        .rotate_left(29)
}
