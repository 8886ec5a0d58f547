//! What is left on the stack, looked at from outside.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;

use sesemi_hardening::stack::wiped_after;

const PATTERN: u8 = 0xd7;
/// As long as what hashing keeps, several times over, so that looking does not overwrite all of it.
const LENGTH: usize = 4096;

/// Leaves the pattern on the stack, and says where.
#[inline(never)]
fn leave() -> usize {
    let mut block = [PATTERN; LENGTH];
    black_box(&mut block);
    block.as_ptr().addr()
}

fn left_at(memory: &File, address: usize, bytes: &mut [u8]) -> usize {
    memory.read_exact_at(bytes, address as u64).unwrap();
    let rows = bytes.windows(4);
    rows.filter(|row| row.iter().all(|byte| *byte == PATTERN))
        .count()
}

#[test]
fn nothing_of_a_computation_is_left_on_the_stack() {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut bytes = vec![0; LENGTH];
    let address = leave();
    let left = left_at(&memory, address, &mut bytes);
    assert!(
        left > LENGTH / 2,
        "otherwise this test shows nothing: {left}"
    );
    let address = wiped_after(leave);
    assert_eq!(left_at(&memory, address, &mut bytes), 0);
}
