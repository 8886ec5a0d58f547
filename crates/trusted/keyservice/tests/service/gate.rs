//! A disk that takes as long as a test likes.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use redb::{BackendError, StorageBackend};
use sesemi_keyservice::log::{Access, FileStorage, Storage};
use sesemi_keyservice::service::KeyService;
use sesemi_keyservice::start::{DATABASE, How};
use sesemi_keyservice::unlock::Unlocked;
use sesemi_protocol::{SecretKey, SigningIdentity};

use crate::world::{TestClock, resources, setup};

/// Longer than a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A disk whose syncs wait while it is held, and that does not open again either.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<Held>, Condvar)>);

#[derive(Debug, Default)]
struct Held {
    held: bool,
    /// The next sync fails, and then the disk is held.
    breaks: bool,
    /// How many wait for it.
    waiting: usize,
}

impl Gate {
    pub(crate) fn hold(&self, held: bool) {
        self.0.0.lock().unwrap().held = held;
        self.0.1.notify_all();
    }

    /// Has the next write fail and the disk hang after it.
    pub(crate) fn hang_at_next_write(&self) {
        self.0.0.lock().unwrap().breaks = true;
    }

    /// Until somebody waits for the disk.
    pub(crate) fn until_it_hangs(&self) {
        let held = self.0.0.lock().unwrap();
        let waited = self
            .0
            .1
            .wait_timeout_while(held, PATIENCE, |held| held.waiting == 0);
        assert!(!waited.unwrap().1.timed_out(), "nobody waits for the disk");
    }

    fn pass(&self) {
        let mut held = self.0.0.lock().unwrap();
        held.waiting += 1;
        self.0.1.notify_all();
        let mut held = self.0.1.wait_while(held, |held| held.held).unwrap();
        held.waiting -= 1;
    }

    fn sync(&self) -> io::Result<()> {
        {
            let mut held = self.0.0.lock().unwrap();
            if std::mem::take(&mut held.breaks) {
                held.held = true;
                return Err(io::Error::other("the disk failed"));
            }
        }
        self.pass();
        Ok(())
    }
}

#[derive(Debug)]
struct GatedStorage(FileStorage, Gate);

impl Storage for GatedStorage {
    fn open(&self, access: Access) -> io::Result<Box<dyn StorageBackend>> {
        self.1.pass();
        Ok(Box::new(Gated(self.0.open(access)?, self.1.clone())))
    }
}

#[derive(Debug)]
struct Gated(Box<dyn StorageBackend>, Gate);

impl StorageBackend for Gated {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.sync()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}

pub(crate) fn on_gated_disk(folder: &std::path::Path, gate: &Gate) -> Arc<KeyService> {
    let seed = SecretKey::from_bytes([0x77; 32]);
    let identity = SigningIdentity::from_seed(seed.clone()).unwrap();
    let unlocked = Unlocked {
        service: identity.public().service_id(),
        state_key: SecretKey::from_bytes([0x78; 32]),
    };
    let storage = GatedStorage(FileStorage::new(folder.join(DATABASE)), gate.clone());
    let opened = setup(folder).open_on(
        Arc::new(storage),
        &unlocked,
        &How::Founding(seed),
        resources(&TestClock::new()),
    );
    Arc::new(opened.unwrap())
}
