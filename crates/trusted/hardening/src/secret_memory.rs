//! Memory for keys.
//!
//! A key lives in a slot of 32 bytes. Slots are cut from memory that the kernel removes from its own address space
//! (`memfd_secret`), so that `ptrace`, `process_vm_readv`, `/proc/PID/mem`, core dumps, swap and hibernation find nothing, root
//! or not. Where the kernel does not offer that, slots are in locked memory; where that is used up too, a key is on the heap.
//! [`placement`] and [`usage`] say which it is.
//!
//! What it cannot do: code in this process that reads where it should not reads a key as well, and what a library makes of a
//! key (round keys, TLS buffers) is where the library puts it.

use core::fmt;
use core::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::{Zeroize as _, ZeroizeOnDrop};

#[cfg(target_os = "linux")]
use crate::sys::{self, Slot};

#[cfg(not(target_os = "linux"))]
type Slot = &'static mut [u8; 32];

/// Slots that are ever made: 1 MiB of keys. Locked memory is scarce (8 MiB a process is common), and others need some.
const MAX_SLOTS: usize = 32 * 1024;

/// 32 secret bytes, wiped on drop. Its `Debug` form shows nothing.
pub struct SecretBytes32 {
    bytes: Bytes,
}

enum Bytes {
    Slot(Kind, ManuallyDrop<Slot>),
    Heap(Box<[u8; 32]>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hidden,
    Locked,
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// In memory that only this process can reach, and no kernel interface reads.
    Hidden,
    /// In memory that is never written to disk. Root, and who may debug this process, can read it.
    Locked {
        /// Why it is not hidden.
        reason: String,
    },
    /// On the heap, like everything else.
    Ordinary {
        /// Why it is not even locked.
        reason: String,
    },
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => f.write_str("hidden from the kernel's interfaces"),
            Self::Locked { reason } => write!(f, "locked, but not hidden: {reason}"),
            Self::Ordinary { reason } => write!(f, "ordinary memory: {reason}"),
        }
    }
}

/// How many keys are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys in hidden memory.
    pub hidden: usize,
    /// Keys in locked memory.
    pub locked: usize,
    /// Keys on the heap.
    pub ordinary: usize,
}

/// Where the next key would be.
#[must_use]
pub fn placement() -> Placement {
    SecretBytes32::zeroed().placement()
}

/// How many keys are where, now.
#[must_use]
pub fn usage() -> Usage {
    arena().usage
}

impl SecretBytes32 {
    /// Takes bytes and wipes the copy that it was given. A copy that the caller kept is the caller's to wipe.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let secret = Self::from_slice(&bytes);
        bytes.zeroize();
        secret
    }

    /// Copies bytes, without another copy on the way.
    #[must_use]
    pub fn from_slice(bytes: &[u8; 32]) -> Self {
        let mut secret = Self::zeroed();
        secret.expose_mut().copy_from_slice(bytes);
        secret
    }

    /// Lets `fill` write the bytes where they stay, so that they are nowhere else.
    ///
    /// # Errors
    /// Whatever `fill` fails with.
    pub fn filled<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed();
        fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// The bytes. Named so that every use shows in review.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        match &self.bytes {
            Bytes::Slot(_, slot) => slot,
            Bytes::Heap(bytes) => bytes,
        }
    }

    /// Where these bytes are.
    #[must_use]
    pub fn placement(&self) -> Placement {
        match &self.bytes {
            Bytes::Slot(Kind::Hidden, _) => Placement::Hidden,
            Bytes::Slot(Kind::Locked, _) => Placement::Locked {
                reason: arena().hidden.reason(),
            },
            Bytes::Heap(_) => Placement::Ordinary {
                reason: arena().locked.reason(),
            },
        }
    }

    fn zeroed() -> Self {
        Self {
            bytes: arena().take(),
        }
    }

    fn expose_mut(&mut self) -> &mut [u8; 32] {
        match &mut self.bytes {
            Bytes::Slot(_, slot) => slot,
            Bytes::Heap(bytes) => bytes,
        }
    }
}

impl Clone for SecretBytes32 {
    fn clone(&self) -> Self {
        Self::from_slice(self.expose())
    }
}

impl Drop for SecretBytes32 {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.expose_mut().zeroize();
        match &mut self.bytes {
            Bytes::Slot(kind, slot) => {
                // SAFETY: `self` is being dropped, so the slot is not used through it again.
                let slot = unsafe { ManuallyDrop::take(slot) };
                arena().give_back(*kind, slot);
            }
            Bytes::Heap(_) => arena().heap_given_back(),
        }
    }
}

impl ZeroizeOnDrop for SecretBytes32 {}

impl fmt::Debug for SecretBytes32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes32(..)")
    }
}

/// All slots that are not in use, and what became of the attempts to make more.
struct Arena {
    hidden: Pool,
    locked: Pool,
    usage: Usage,
    made: usize,
}

/// Free slots of one kind. All are zero.
struct Pool {
    free: Vec<Slot>,
    /// Why no more are made. Asking again for every key would cost more than the key.
    refused: Option<String>,
}

static ARENA: Mutex<Arena> = Mutex::new(Arena {
    hidden: Pool::new(),
    locked: Pool::new(),
    usage: Usage {
        hidden: 0,
        locked: 0,
        ordinary: 0,
    },
    made: 0,
});

fn arena() -> MutexGuard<'static, Arena> {
    // Nothing below panics between two states that do not fit together.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    fn take(&mut self) -> Bytes {
        if let Some(slot) = self.hidden.take(&mut self.made, hidden_slots) {
            self.usage.hidden = self.usage.hidden.saturating_add(1);
            return Bytes::Slot(Kind::Hidden, ManuallyDrop::new(slot));
        }
        if let Some(slot) = self.locked.take(&mut self.made, locked_slots) {
            self.usage.locked = self.usage.locked.saturating_add(1);
            return Bytes::Slot(Kind::Locked, ManuallyDrop::new(slot));
        }
        self.usage.ordinary = self.usage.ordinary.saturating_add(1);
        Bytes::Heap(Box::new([0; 32]))
    }

    fn give_back(&mut self, kind: Kind, slot: Slot) {
        let (pool, count) = match kind {
            Kind::Hidden => (&mut self.hidden, &mut self.usage.hidden),
            Kind::Locked => (&mut self.locked, &mut self.usage.locked),
        };
        pool.free.push(slot);
        *count = count.saturating_sub(1);
    }

    fn heap_given_back(&mut self) {
        self.usage.ordinary = self.usage.ordinary.saturating_sub(1);
    }
}

impl Pool {
    const fn new() -> Self {
        Self {
            free: Vec::new(),
            refused: None,
        }
    }

    fn take(&mut self, made: &mut usize, make: fn() -> Result<Vec<Slot>, String>) -> Option<Slot> {
        if self.free.is_empty() && self.refused.is_none() {
            if *made >= MAX_SLOTS {
                self.refused = Some(format!("more than {MAX_SLOTS} keys at once"));
            } else {
                match make() {
                    Ok(slots) => {
                        *made = made.saturating_add(slots.len());
                        self.free = slots;
                    }
                    Err(reason) => self.refused = Some(reason),
                }
            }
        }
        self.free.pop()
    }

    fn reason(&self) -> String {
        self.refused.clone().unwrap_or_default()
    }
}

#[cfg(target_os = "linux")]
fn hidden_slots() -> Result<Vec<Slot>, String> {
    sys::hidden_slots().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel has no memfd_secret (Linux 5.14; before 6.5 only with secretmem.enable=1)"
                .into()
        }
        Some(libc::EAGAIN) => "the limit on locked memory is reached; raise RLIMIT_MEMLOCK".into(),
        _ => format!("memfd_secret failed: {error}"),
    })
}

#[cfg(target_os = "linux")]
fn locked_slots() -> Result<Vec<Slot>, String> {
    sys::locked_slots()
        .map_err(|error| format!("memory cannot be locked ({error}); raise RLIMIT_MEMLOCK"))
}

#[cfg(not(target_os = "linux"))]
fn hidden_slots() -> Result<Vec<Slot>, String> {
    Err("hidden memory is used on Linux only".into())
}

#[cfg(not(target_os = "linux"))]
fn locked_slots() -> Result<Vec<Slot>, String> {
    Err("locked memory is used on Linux only".into())
}
