//! Padmé: lengths rounded up to few buckets, so that a ciphertext's size says little about its content.
//!
//! Source: Nikitin, Barman, Lueks, Underwood, Hubaux, Ford, *Reducing Metadata Leakage from Encrypted Files and
//! Communication with PURBs* (PoPETs 2019, section 4). A length of L bits reveals O(log log L) bits, for at most 12 %
//! more bytes, and less the longer the message is.

/// The smallest bucket, in bytes: below it Padmé's own buckets would be a few bytes apart and tell too much.
pub const MIN_BUCKET: usize = 512;

/// The padded length for content of `length` bytes; `None` where it does not fit a `usize`.
#[must_use]
pub fn padded_length(length: usize) -> Option<usize> {
    if length <= MIN_BUCKET {
        return Some(MIN_BUCKET);
    }
    // length > 512 here, so both logarithms exist and the exponent is at least 9.
    let exponent = length.ilog2();
    let kept_bits = exponent.ilog2().checked_add(1)?;
    let zero_bits = exponent.checked_sub(kept_bits)?;
    let mask = 1usize.checked_shl(zero_bits)?.checked_sub(1)?;
    Some(length.checked_add(mask)? & !mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn padding_never_shrinks_and_costs_at_most_twelve_percent(length in 0usize..1 << 40) {
            let padded = padded_length(length).unwrap();
            prop_assert!(padded >= length);
            prop_assert!(padded == MIN_BUCKET || padded as f64 <= length as f64 * 1.12);
            prop_assert_eq!(padded_length(padded), Some(padded), "a bucket is its own bucket");
        }
    }

    #[test]
    fn lengths_near_the_end_of_the_range_do_not_wrap() {
        assert_eq!(padded_length(usize::MAX), None);
    }

    #[test]
    fn a_megabyte_has_few_buckets() {
        let buckets: std::collections::BTreeSet<_> =
            (0..1 << 20).filter_map(padded_length).collect();
        assert!(buckets.len() < 300, "{}", buckets.len());
    }
}
