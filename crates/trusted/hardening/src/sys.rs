//! The calls that no library wraps in a safe way. Each function is safe to call, and says why what it does is sound.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use libc::{c_int, c_void, size_t};

/// A place for one key. It belongs to whoever has the reference, and is never unmapped.
pub(crate) type Slot = &'static mut [u8; 32];

/// Slots of one mapping.
pub(crate) const SLOTS: usize = 512;
/// Bytes of one mapping; the kernel rounds them up to its pages.
const LENGTH: size_t = size_of::<[[u8; 32]; SLOTS]>();

/// Slots in memory that is mapped into this process and nowhere else, not even into the kernel (`memfd_secret(2)`, Linux
/// 5.14). It is never swapped and in no core dump, and a forked child does not have it.
///
/// # Errors
/// `ENOSYS` if the kernel has no such memory or was told to offer none, `EAGAIN` at the limit on locked memory.
pub(crate) fn hidden_slots() -> io::Result<Vec<Slot>> {
    let memory = memfd_secret()?;
    memory.set_len(LENGTH as u64)?;
    // The mapping keeps the memory. The descriptor ends with this function, so that nobody maps it again.
    let mapping = Mapping::new(libc::MAP_SHARED, memory.as_raw_fd())?;
    mapping.advise(libc::MADV_DONTFORK)?;
    Ok(mapping.into_slots())
}

/// Slots in ordinary memory that is never swapped and in no core dump, and reads as zeros in a forked child.
///
/// # Errors
/// `EAGAIN`, `ENOMEM` or `EPERM` at the limit on locked memory.
pub(crate) fn locked_slots() -> io::Result<Vec<Slot>> {
    let mapping = Mapping::new(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    mapping.advise(libc::MADV_DONTDUMP)?;
    mapping.advise(libc::MADV_WIPEONFORK)?;
    mapping.lock()?;
    Ok(mapping.into_slots())
}

#[allow(unsafe_code)]
fn memfd_secret() -> io::Result<File> {
    // SAFETY: the call takes one word of flags and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match RawFd::try_from(result) {
        // SAFETY: the kernel made this descriptor just now, so nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `LENGTH` bytes, readable and writable, that nothing refers to yet. Unmapped on drop, unless they became slots.
struct Mapping(*mut c_void);

impl Mapping {
    #[allow(unsafe_code)]
    fn new(flags: c_int, fd: RawFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: without an address and without MAP_FIXED the kernel takes a range that is free, so no memory that is in
        // use changes. `fd` is open or, for anonymous memory, not looked at.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), LENGTH, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(start))
    }

    #[allow(unsafe_code)]
    fn advise(&self, advice: c_int) -> io::Result<()> {
        // SAFETY: the range is ours, and what is advised here changes what a fork and a core dump take along, nothing else.
        checked(unsafe { libc::madvise(self.0, LENGTH, advice) })
    }

    #[allow(unsafe_code)]
    fn lock(&self) -> io::Result<()> {
        // SAFETY: the range is ours, and locking does not change what it holds.
        checked(unsafe { libc::mlock(self.0, LENGTH) })
    }

    #[allow(unsafe_code)]
    fn into_slots(self) -> Vec<Slot> {
        let start = self.0.cast::<[u8; 32]>();
        // It is never unmapped from here on.
        core::mem::forget(self);
        // SAFETY: the range is mapped for ever, of this length, aligned for bytes, zeroed by the kernel, and this is the only
        // reference to it: `self`, which had the address, is gone.
        let slots = unsafe { core::slice::from_raw_parts_mut(start, SLOTS) };
        slots.iter_mut().collect()
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nothing refers to it. It fails for ranges that are not mapped, and this one is.
        let _ = unsafe { libc::munmap(self.0, LENGTH) };
    }
}

fn checked(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Which version of Landlock the kernel offers.
///
/// # Errors
/// `ENOSYS` if it was built without, `EOPNOTSUPP` if it was started without.
#[cfg(feature = "sandbox")]
#[allow(unsafe_code)]
pub(crate) fn landlock_version() -> io::Result<u32> {
    const VERSION: u32 = 1;
    let (no_rules, size) = (core::ptr::null::<c_void>(), 0 as size_t);
    // SAFETY: with this flag the call only returns a number; it takes a null pointer of size zero.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, size, VERSION) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}
