//! Very large blocks: on huge pages, resized without a copy, and gone once they are given back. One test in a program of its own,
//! because a place that one block gave back is free for any other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg(target_os = "linux")]

use sesemi_hardening::wiping::WipingAllocator;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

const PATTERN: u8 = 0xd7;
const MIB: usize = 1 << 20;
/// From here on a block is mapped by itself.
const SMALLEST: usize = 8 * MIB;
const HUGE_PAGE: usize = 2 * MIB;

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

/// A page at a time, because a byte at a time takes long here.
fn is_all(block: &[u8], byte: u8) -> bool {
    let page = [byte; 4096];
    block
        .chunks(4096)
        .all(|piece| *piece == page[..piece.len()])
}

fn resize(block: &mut Vec<u8>, length: usize) {
    if length > block.len() {
        block.reserve_exact(length - block.len());
        block.resize(length, PATTERN);
    } else {
        block.truncate(length);
        block.shrink_to_fit();
    }
    assert_eq!(block.len(), length);
    assert!(is_all(block, PATTERN), "{length}");
}

#[test]
fn a_very_large_block_is_zero_aligned_resized_in_place_and_gone_once_it_is_given_back() {
    for length in [SMALLEST + 65536, SMALLEST + 1, 32 * MIB, 32 * MIB + 4097] {
        let mut block = vec![0u8; length];
        let (start, last) = (block.as_ptr().addr(), length - 1);
        assert!(start.is_multiple_of(HUGE_PAGE), "{start:x}");
        assert!(is_all(&block, 0));
        block.fill(PATTERN);
        assert!(is_mapped(start) && is_mapped(start + last));

        // The same pages, or fewer: the same place, and what is behind it goes back.
        resize(&mut block, length.next_multiple_of(65536) - 1);
        resize(&mut block, length);
        assert_eq!(block.as_ptr().addr(), start);
        if length > SMALLEST + MIB {
            resize(&mut block, length - MIB);
            assert_eq!(block.as_ptr().addr(), start);
            assert!(is_mapped(start) && !is_mapped(start + last), "{length}");
        }
        // What grows may move, and still starts at a huge page.
        resize(&mut block, 3 * length);
        let moved = block.as_ptr().addr();
        assert!(moved.is_multiple_of(HUGE_PAGE), "{moved:x}");
        resize(&mut block, SMALLEST);
        assert_eq!(block.as_ptr().addr(), moved);
        assert!(!is_mapped(moved + 2 * length));
        drop(block);
        assert!(!is_mapped(moved) && !is_mapped(moved + SMALLEST - 1));
        assert!(moved == start || !is_mapped(start), "{length}");
    }

    // To and from a block of the ordinary kind.
    let mut block = vec![PATTERN; MIB];
    for length in [32 * MIB, 64 * MIB, 32 * MIB, MIB] {
        resize(&mut block, length);
    }
}
