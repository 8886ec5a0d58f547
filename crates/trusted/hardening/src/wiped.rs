//! Wiping of much memory at once: requests, results, models.

/// Writes zeros over bytes that nobody reads any more, as fast as memory takes them: a byte at a time, which is how the crate
/// `zeroize` makes sure of it, shows in every request of some size.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // The compiler must not conclude that nobody reads what was written.
    core::hint::black_box(bytes);
}

/// Bytes that are wiped when they are dropped.
#[derive(Default)]
pub struct Wiped(pub Vec<u8>);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl core::ops::Deref for Wiped {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl core::ops::DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl core::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Wiped(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wiped_is_zero_and_is_not_printed() {
        let mut wiped = Wiped(vec![7; 100_000]);
        assert_eq!(format!("{wiped:?}"), "Wiped(..)");
        wipe(&mut wiped);
        assert!(wiped.iter().all(|byte| *byte == 0));
    }
}
