//! What is given back is wiped, looked at from outside the allocator.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sesemi_hardening::wiping::{LONGEST, WipingAllocator};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Nothing that this program holds but what is looked for.
const PATTERN: u8 = 0xd7;

/// How often the pattern is at an address, now that nothing of ours is there: four bytes of it in a row, because the allocator
/// keeps its own numbers in free memory, and a byte of these may be anything.
fn left_at(address: usize, length: usize) -> usize {
    let mut bytes = vec![0; length];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, address as u64).unwrap();
    let rows = bytes.windows(4);
    rows.filter(|row| row.iter().all(|byte| *byte == PATTERN))
        .count()
}

#[test]
fn a_block_that_is_given_back_holds_nothing_of_what_it_held() {
    for length in [16, 32, 100, 1000, 5000, 20_000, LONGEST] {
        let block = vec![PATTERN; length];
        // So that the memory behind it is not given back to the system.
        let _behind = Box::new([1u8; 64]);
        let address = block.as_ptr().addr();
        assert_eq!(left_at(address, length), length - 3);
        drop(block);
        assert_eq!(left_at(address, length), 0, "{length}");
    }
}

#[test]
fn a_block_that_grows_or_shrinks_takes_all_along_and_leaves_nothing_behind() {
    for (before, after) in [(32, 64), (1000, 50_000), (5000, 200_000), (4000, 40)] {
        let mut block = vec![PATTERN; before];
        let _behind = Box::new([1u8; 64]);
        let old = block.as_ptr().addr();
        if after > before {
            block.reserve_exact(after - before);
        } else {
            block.truncate(after);
            block.shrink_to_fit();
        }
        assert_ne!(block.as_ptr().addr(), old);
        assert!(block.iter().all(|byte| *byte == PATTERN));
        assert_eq!(block.len(), before.min(after));
        assert_eq!(left_at(old, before), 0, "{before} to {after}");
    }
}
