//! Blocks of all sizes are wiped while that is asked for. Alone in its process, because it is asked for all of it.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use sesemi_hardening::wiping::{WipingAllocator, everything};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

/// Nothing that this program holds but what is looked for.
const PATTERN: u8 = 0xd7;
/// Longer than what is wiped at all times, and shorter than what the system's allocator maps by itself.
const LENGTH: usize = 100_000;

/// How many bytes of the pattern are left of a block once it is given back.
fn left(resized: bool) -> usize {
    // Made before: otherwise it would be what takes the block's place.
    let mut bytes = vec![0; LENGTH];
    let mut block = vec![PATTERN; LENGTH];
    // So that the memory behind it is not given back to the system.
    let _behind = Box::new([1u8; 64]);
    let address = block.as_ptr().addr();
    if resized {
        block.reserve_exact(20 * LENGTH);
    }
    drop(block);
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, address as u64).unwrap();
    // The allocator keeps its own numbers in free memory.
    bytes
        .iter()
        .skip(64)
        .filter(|byte| **byte == PATTERN)
        .count()
}

#[test]
fn blocks_of_all_sizes_are_wiped_while_that_is_asked_for() {
    assert!(left(false) > LENGTH / 2, "otherwise this test sees nothing");
    everything(true);
    assert_eq!(left(false), 0);
    assert_eq!(left(true), 0);
    everything(false);
    assert!(left(false) > LENGTH / 2);
}
