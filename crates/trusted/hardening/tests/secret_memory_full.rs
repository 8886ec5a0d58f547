//! More keys than there are places for. Alone in its program, because what is used up stays used up.
#![allow(
    clippy::unwrap_used,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use sesemi_hardening::secret_memory::{Placement, SecretBytes32, usage};

/// Above the 1 MiB of keys that are ever hidden.
const MANY: u32 = 40_000;

fn key(number: u32) -> [u8; 32] {
    let mut bytes = [1; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn keys_beyond_the_arena_are_kept_elsewhere_and_counted_with_the_reason() {
    let keys: Vec<_> = (0..MANY)
        .map(|number| SecretBytes32::from_bytes(key(number)))
        .collect();
    for (number, bytes) in (0..MANY).zip(&keys) {
        assert_eq!(bytes.expose(), &key(number));
    }
    let full = usage();
    println!("{full:?}");
    assert_eq!(full.hidden + full.locked + full.ordinary, MANY as usize);
    assert!(full.hidden + full.locked <= 32 * 1024, "{full:?}");
    let Placement::Ordinary { reason } = keys.last().unwrap().placement() else {
        unreachable!("the last key has no slot");
    };
    assert!(
        reason.contains("keys at once") || reason.contains("RLIMIT_MEMLOCK"),
        "{reason}"
    );

    drop(keys);
    let none = usage();
    assert_eq!((none.hidden, none.locked, none.ordinary), (0, 0, 0));
    // Places that were given back are used again.
    let again = SecretBytes32::from_bytes(key(1)).placement();
    assert!(full.hidden == 0 || again == Placement::Hidden, "{again:?}");
}
