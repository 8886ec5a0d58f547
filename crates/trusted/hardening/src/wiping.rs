//! An allocator that wipes what is given back.
//!
//! Keys have types that wipe themselves, but on their way in and out they pass through buffers of libraries that do not: those
//! of TLS, of decoders, of formatting. Without this, a copy of a key stays in free memory until chance overwrites it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::large_blocks;

pub use crate::large_blocks::{give_back_what_is_free, keep_what_is_freed, share_one_arena};

/// Longest block that is wiped, in bytes. Messages with keys, and all that is made on their way, are shorter; above it are
/// models and tensors, for which a second pass over memory would show in every run. Requests, answers and forms of models are
/// wiped by their own types as long as they are ours. What an engine frees between this and 8 MiB, parts of an evicted model,
/// say, stays in free memory of this process until it is used again; what is longer goes back to the kernel, which
/// wipes it. SeMIRT gives free memory back a moment after loads, and when there are no requests.
pub const LONGEST: usize = 64 * 1024;

/// Whether blocks of all sizes are wiped.
static EVERYTHING: AtomicBool = AtomicBool::new(false);

/// From now on blocks of all sizes are wiped when they are given back, or again only those up to [`LONGEST`]. For times in which what
/// somebody leaves in memory must not be there when the next one comes, and a second pass over it may take its time.
pub fn everything(wiped: bool) {
    EVERYTHING.store(wiped, Ordering::SeqCst);
}

fn is_wiped(length: usize) -> bool {
    length <= LONGEST || EVERYTHING.load(Ordering::Relaxed)
}

/// The system's allocator, which wipes blocks of up to [`LONGEST`] bytes when they are given back, and maps very large ones by
/// themselves. For `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct WipingAllocator;

#[allow(unsafe_code)]
// SAFETY: every block comes from `System` or `large_blocks`, which one its layout tells, and goes back there with the layout
// that it was made with; what is added only writes to blocks that nobody uses any more.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return large_blocks::map(layout.size());
        }
        // SAFETY: the caller keeps the same promises to us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout) {
            return large_blocks::map(layout.size());
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(layout) {
            // SAFETY: the layout says that the block came from there, and the caller gives it up.
            return unsafe { large_blocks::unmap(block, layout.size()) };
        }
        if is_wiped(layout.size()) {
            // SAFETY: the caller gives the block up, and it is writable for the length of its layout.
            unsafe { block.write_bytes(0, layout.size()) };
            // The compiler must not conclude that nobody reads what was written.
            core::hint::black_box(block);
        }
        // SAFETY: the block was made by `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is in range.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if is_large(layout) && is_large(new) {
            // SAFETY: the layout says that the block came from there; the caller uses the new block instead of it.
            return unsafe { large_blocks::resize(block, layout.size(), size) };
        }
        if !is_wiped(layout.size()) && !is_large(layout) && !is_large(new) {
            // SAFETY: the block was made by `System` with this layout.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the layout is one, and not of size zero, as the caller promises.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least this long, and they are different blocks.
            unsafe { core::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            // SAFETY: the caller gives the old block up.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

fn is_large(layout: Layout) -> bool {
    large_blocks::is_large(layout.size(), layout.align())
}
