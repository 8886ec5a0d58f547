//! Memory that any thread freed stays with the process, and goes back to the kernel when it is told to. A program of its own without
//! a test harness, which would start threads before the allocator is told.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use sesemi_hardening::wiping::{
    WipingAllocator, give_back_what_is_free, keep_what_is_freed, share_one_arena,
};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

const MIB: usize = 1 << 20;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

fn main() {
    what_threads_free_stays_until_it_is_given_back_and_then_it_goes();
    println!("what_threads_free_stays_until_it_is_given_back_and_then_it_goes: ok");
}

fn what_threads_free_stays_until_it_is_given_back_and_then_it_goes() {
    assert!(share_one_arena() && keep_what_is_freed());
    let before = resident();
    // One after the other, so that all find the same memory; together with what they free, less than goes back by itself.
    for _ in 0..4 {
        let thread = std::thread::spawn(|| {
            let blocks: Vec<Vec<u8>> = (0..8).map(|_| vec![1; MIB]).collect();
            assert!(blocks.iter().all(|block| block[MIB / 2] == 1));
        });
        thread.join().unwrap();
    }
    let kept = resident().saturating_sub(before);
    assert!((6 * MIB..16 * MIB).contains(&kept), "{kept}");
    give_back_what_is_free();
    let left = resident().saturating_sub(before);
    assert!(left < 2 * MIB, "{left}");
}
