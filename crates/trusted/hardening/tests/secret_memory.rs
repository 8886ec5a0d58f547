//! Keys in hidden memory: where they are, that nobody reads them there, and that nothing of one key reaches the next.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg(target_os = "linux")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sesemi_hardening::secret_memory::{Placement, SecretBytes32, placement, usage};

/// The slots are one for the whole process, and these tests count them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this kernel hides memory; if not, the test says so and has nothing to show.
fn hidden() -> bool {
    let placement = placement();
    if placement != Placement::Hidden {
        println!("skipped: {placement}");
    }
    placement == Placement::Hidden
}

fn address(bytes: &[u8; 32]) -> u64 {
    bytes.as_ptr().addr() as u64
}

/// What the kernel's own way into this process's memory finds.
fn through_the_kernel(bytes: &[u8; 32]) -> std::io::Result<[u8; 32]> {
    let mut found = [0; 32];
    File::open("/proc/self/mem")?.read_exact_at(&mut found, address(bytes))?;
    Ok(found)
}

#[test]
fn a_key_cannot_be_read_through_the_kernel_and_other_memory_can() {
    let _alone = alone();
    let ordinary = Box::new([0xab; 32]);
    assert_eq!(through_the_kernel(&ordinary).unwrap(), [0xab; 32]);
    if !hidden() {
        return;
    }
    let key = SecretBytes32::from_bytes([0xab; 32]);
    assert_eq!(key.placement(), Placement::Hidden);
    assert_eq!(key.expose(), &[0xab; 32]);
    through_the_kernel(key.expose()).unwrap_err();
}

#[test]
#[allow(unsafe_code)]
fn another_process_cannot_copy_a_key_out() {
    let _alone = alone();
    let read = |from: &[u8; 32]| {
        let mut into = [0u8; 32];
        let local = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: 32,
        };
        let remote = libc::iovec {
            iov_base: from.as_ptr().cast_mut().cast(),
            iov_len: 32,
        };
        let pid = std::process::id().cast_signed();
        // SAFETY: both ranges are alive for the call, and the kernel writes to `into` alone.
        let read =
            unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        (read, into)
    };
    assert_eq!(read(&[0xcd; 32]), (32, [0xcd; 32]));
    if !hidden() {
        return;
    }
    let key = SecretBytes32::from_bytes([0xcd; 32]);
    assert_eq!(read(key.expose()), (-1, [0; 32]));
}

#[test]
fn a_key_can_be_handed_to_system_calls() {
    let _alone = alone();
    let key = SecretBytes32::from_bytes([7; 32]);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(key.expose(), 0).unwrap();
    let copy = SecretBytes32::filled(|bytes| file.read_exact_at(bytes, 0)).unwrap();
    assert_eq!(copy.expose(), &[7; 32]);
}

#[test]
fn the_next_key_in_a_place_finds_zeros() {
    let _alone = alone();
    let key = SecretBytes32::from_bytes([0x55; 32]);
    let place = address(key.expose());
    drop(key);
    let next = SecretBytes32::filled(|bytes| {
        assert_eq!((address(bytes), *bytes), (place, [0; 32]));
        Ok::<_, ()>(())
    });
    assert_eq!(next.unwrap().expose(), &[0; 32]);
}

#[test]
fn a_key_whose_filling_failed_leaves_nothing() {
    let _alone = alone();
    let before = usage();
    let mut place = 0;
    let failed = SecretBytes32::filled(|bytes| {
        place = address(bytes);
        bytes.fill(0x77);
        Err("no randomness")
    });
    assert_eq!(failed.unwrap_err(), "no randomness");
    assert_eq!(usage(), before);
    let next = SecretBytes32::filled(|bytes| {
        assert_eq!((address(bytes), *bytes), (place, [0; 32]));
        Ok::<_, ()>(())
    });
    next.unwrap();
}

#[test]
fn a_clone_has_a_place_of_its_own() {
    let _alone = alone();
    let key = SecretBytes32::from_bytes([3; 32]);
    let copy = key.clone();
    assert_ne!(address(key.expose()), address(copy.expose()));
    drop(key);
    assert_eq!(copy.expose(), &[3; 32]);
}

#[test]
fn nothing_shows_a_key() {
    let _alone = alone();
    let key = SecretBytes32::from_bytes([0xee; 32]);
    assert_eq!(format!("{key:?}"), "SecretBytes32(..)");
}

#[test]
fn many_threads_never_share_a_place() {
    let _alone = alone();
    let before = usage();
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            scope.spawn(move || {
                let mut held = Vec::new();
                for round in 0..2000u32 {
                    held.push((round, SecretBytes32::from_bytes([thread ^ round as u8; 32])));
                    if round % 3 == 0 {
                        held.swap_remove(round as usize % held.len());
                    }
                }
                for (round, key) in held {
                    assert_eq!(key.expose(), &[thread ^ round as u8; 32]);
                    assert_eq!(key.clone().expose(), key.expose());
                }
            });
        }
    });
    assert_eq!(usage(), before);
}
