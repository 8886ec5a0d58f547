//! Blocks of memory for models: mapped one by one, on huge pages where the kernel has them, and given back to it when they
//! are freed.
//!
//! An ordinary allocator keeps what was freed for later, in pieces of which few are free as a whole: a model that was evicted
//! would still be counted to this process, and its instance would be charged for it. And filling 180 MB for the first time costs
//! 45,000 page faults on small pages, a few dozen on huge ones.

use core::ffi::c_void;

/// Bytes from which a block is mapped by itself. What an engine takes and gives back in every run is smaller; were it mapped
/// anew in each, the page faults would cost more than the run.
pub(crate) const SMALLEST: usize = 8 * 1024 * 1024;
/// A huge page of x86-64 and of AArch64 with small pages of 4 KiB. Blocks start at a multiple.
const HUGE_PAGE: usize = 2 * 1024 * 1024;
/// Blocks end at a multiple of this: pages have at most so many bytes on all architectures that this runs on.
const PAGE: usize = 64 * 1024;

/// Whether a block of this size and alignment is one of these.
pub(crate) const fn is_large(size: usize, alignment: usize) -> bool {
    size >= SMALLEST && alignment <= HUGE_PAGE
}

/// Maps `size` bytes, all zero; null if there is no memory.
pub(crate) fn map(size: usize) -> *mut u8 {
    let Some(length) = size.checked_next_multiple_of(PAGE) else {
        return core::ptr::null_mut();
    };
    let padded = length.saturating_add(HUGE_PAGE);
    let Some(start) = map_anywhere(padded) else {
        return core::ptr::null_mut();
    };
    // What lies before the first huge page, and after the block, goes back.
    let before = start.align_offset(HUGE_PAGE);
    let after = padded.saturating_sub(before).saturating_sub(length);
    let block = start.wrapping_add(before);
    give_back(start, before);
    give_back(block.wrapping_add(length), after);
    advise_huge(block, length);
    block
}

#[allow(unsafe_code)]
fn map_anywhere(length: usize) -> Option<*mut u8> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: without an address and without MAP_FIXED the kernel takes a range that is free, so no memory that is in use
    // changes.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), length, access, flags, -1, 0) };
    (start != libc::MAP_FAILED).then_some(start.cast())
}

/// Gives back memory that nobody uses any more. Where the kernel cannot take the range out of the address space (in the middle
/// of a mapping, at the limit on their number), it takes the memory: only addresses are lost then.
#[allow(unsafe_code)]
fn give_back(start: *mut u8, length: usize) {
    if length == 0 {
        return;
    }
    // SAFETY: the range is mapped, it came from `map_anywhere`, and nobody uses it.
    if unsafe { libc::munmap(start.cast::<c_void>(), length) } != 0 {
        // SAFETY: as above; it reads as zeros afterwards.
        let _ = unsafe { libc::madvise(start.cast::<c_void>(), length, libc::MADV_DONTNEED) };
    }
}

#[allow(unsafe_code)]
fn advise_huge(block: *mut u8, length: usize) {
    // SAFETY: the range is mapped, and the advice changes how it is backed, not what it holds. A kernel without huge pages
    // refuses, and small ones do as well.
    let _ = unsafe { libc::madvise(block.cast::<c_void>(), length, libc::MADV_HUGEPAGE) };
}

/// Makes a block longer or shorter, where it is if that can be, and elsewhere if not; null if there is no memory, and the block is
/// then as it was.
///
/// # Safety
/// `block` came from [`map`] or from here with size `before`, and is used under the returned address alone, if that is not null.
#[allow(unsafe_code)]
pub(crate) unsafe fn resize(block: *mut u8, before: usize, after: usize) -> *mut u8 {
    let Some(new) = after.checked_next_multiple_of(PAGE) else {
        return core::ptr::null_mut();
    };
    let old = before.checked_next_multiple_of(PAGE).unwrap_or(before);
    if new <= old {
        give_back(block.wrapping_add(new), old.saturating_sub(new));
        return block;
    }
    let start = block.cast::<c_void>();
    // SAFETY: the range is a mapping of ours. Without MREMAP_MAYMOVE it grows where it is, into a free range, or not at all.
    if unsafe { libc::mremap(start, old, new, 0) } != libc::MAP_FAILED {
        advise_huge(block, new);
        return block;
    }
    let moved = map(after);
    if moved.is_null() {
        return moved;
    }
    // Copied, although the kernel could move the pages: where it cannot, older ones have already unmapped the target when they say
    // so, and nobody knows what is there then.
    // SAFETY: both are at least this long, and are different mappings.
    unsafe { core::ptr::copy_nonoverlapping(block, moved, before) };
    give_back(block, old);
    moved
}

/// Gives a block back to the kernel, which wipes it before anybody gets it again.
///
/// # Safety
/// `block` came from [`map`] with this size, and nobody uses it any more.
#[allow(unsafe_code)]
pub(crate) unsafe fn unmap(block: *mut u8, size: usize) {
    give_back(block, size.checked_next_multiple_of(PAGE).unwrap_or(size));
}

/// Gives back to the kernel what the system's allocator keeps of memory that was freed. It looks through all of it, which takes
/// its time.
#[allow(unsafe_code)]
pub fn give_back_what_is_free() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory alone, under the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Bytes at the end of the heap that may be free before some go back to the kernel by themselves: more than runs of common models
/// fill and free again.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 16 * 1024 * 1024;

/// Has all threads share one arena of the system's allocator. Without this there are up to eight for each processor; what was freed
/// stays in its arena, and each fills up to the most that its threads ever held at once: memory that an instance is charged for, and
/// that grows for as long as rare events meet arenas that have not seen them yet. And [`give_back_what_is_free`] reaches all of this
/// one alone. Small blocks come from each thread's own cache all the same. False if the allocator does not know of it.
///
/// To be called before the first thread is started: `mallopt` is not made for several.
#[allow(unsafe_code)]
pub fn share_one_arena() -> bool {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator. With other threads it might be read while it is written, which the caller sees to.
    return unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) } == 1;
    #[cfg(not(target_env = "gnu"))]
    false
}

/// What is freed stays for whoever comes next, until [`give_back_what_is_free`]. Runs and loads fill and free the same megabytes
/// again and again; given back each time, the kernel would wipe them and hand them out page by page. False if the allocator does not
/// know of it.
///
/// To be called before the first thread is started, as [`share_one_arena`].
#[allow(unsafe_code)]
pub fn keep_what_is_freed() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // Blocks of ours that are larger are mapped one by one anyway.
        let mapped = libc::c_int::try_from(SMALLEST).unwrap_or(libc::c_int::MAX);
        let options = [
            (libc::M_MMAP_THRESHOLD, mapped),
            (libc::M_TRIM_THRESHOLD, KEPT),
        ];
        options.into_iter().all(|(option, value)| {
            // SAFETY: as above.
            let set = unsafe { libc::mallopt(option, value) };
            set == 1
        })
    }
    #[cfg(not(target_env = "gnu"))]
    false
}
