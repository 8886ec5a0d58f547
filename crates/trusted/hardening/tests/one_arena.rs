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
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                // 12 MiB each, in blocks as runs have them.
                let blocks: Vec<Vec<u8>> = (0..6).map(|_| vec![1; 2 * MIB]).collect();
                assert!(blocks.iter().all(|block| block[MIB] == 1));
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    let kept = resident() - before;
    assert!(kept > 8 * MIB, "{kept}");
    give_back_what_is_free();
    let left = resident().saturating_sub(before);
    assert!(left < 2 * MIB, "{left}");
}
