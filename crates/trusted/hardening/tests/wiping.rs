//! What is given back is wiped, looked at from outside the allocator.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;

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

/// A size that is mapped by itself.
const LARGE: usize = 32 * 1024 * 1024;

/// Whether anything is mapped at an address.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().any(|line| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    })
}

/// One test with such blocks at a time: a place that one gave back is free for another.
static LARGE_BLOCKS: Mutex<()> = Mutex::new(());

#[test]
fn a_very_large_block_is_zero_aligned_and_gone_once_it_is_given_back() {
    let _alone = LARGE_BLOCKS.lock();
    for length in [8 << 20, (8 << 20) + 1, LARGE, LARGE + 4097] {
        let mut block = vec![0u8; length];
        let (start, last) = (block.as_ptr().addr(), length - 1);
        assert!(start.is_multiple_of(64), "{start:x}");
        assert!(block.iter().all(|byte| *byte == 0));
        block.fill(PATTERN);
        assert!(is_mapped(start) && is_mapped(start + last));
        drop(block);
        assert!(!is_mapped(start) && !is_mapped(start + last), "{length}");
    }
}

#[test]
fn a_block_that_becomes_very_large_or_ceases_to_be_takes_all_along() {
    let _alone = LARGE_BLOCKS.lock();
    let mut block = vec![PATTERN; 1 << 20];
    for length in [LARGE, 2 * LARGE, LARGE, 1 << 20] {
        let kept = block.len().min(length);
        if length > block.len() {
            block.reserve_exact(length - block.len());
            block.resize(length, PATTERN);
        } else {
            block.truncate(length);
            block.shrink_to_fit();
        }
        assert!(kept > 0 && block.len() == length);
        assert!(block.iter().all(|byte| *byte == PATTERN));
    }
}
