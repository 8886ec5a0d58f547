//! Shares of the recovery key: the arithmetic against an implementation of its own, the randomness, the two spellings.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use sesemi_keyservice::unlock::{combine, split};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::share::{
    MAX_ENCODED, MAX_SHARES, MAX_TEXT, Scheme, Share, ShareError, TextError,
};
use sesemi_protocol::{Digest, Entropy, EntropyError, SecretKey, ServiceId, SystemEntropy};

const SERVICE: ServiceId = ServiceId([7; 32]);

fn key() -> SecretKey {
    SecretKey::from_bytes(core::array::from_fn(|at| at as u8 * 7 + 3))
}

fn scheme(threshold: u8, count: u8) -> Scheme {
    Scheme::new(threshold, count).unwrap()
}

fn shares(threshold: u8, count: u8) -> Vec<Share> {
    split(
        &key(),
        SERVICE,
        scheme(threshold, count),
        &SystemEntropy::new(),
    )
    .unwrap()
}

/// The secret bytes, which nothing but the two spellings gives away.
fn value(share: &Share) -> [u8; 32] {
    *cbor::encode(share).unwrap().last_chunk().unwrap()
}

/// A share made up by somebody else.
fn forged(service: ServiceId, index: u8, scheme: Scheme, value: [u8; 32]) -> Share {
    let (threshold, count) = (scheme.threshold(), scheme.count());
    let secret = hex::encode(value);
    let line = format!("sesemi-share-v1 {service} {index}/{count} threshold {threshold} {secret}");
    Share::from_text(&with_checksum(&line)).unwrap()
}

fn with_checksum(line: &str) -> String {
    let sum = Digest::of(format!("sesemi/v1/share-checksum{line}").as_bytes());
    format!("{line} {}", sum.short())
}

/// Gives the numbers 0, 1, 2 and so on as its draws, and notes how many.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Entropy for Counting {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        dest.fill(0xee);
        dest[0] = self.0.fetch_add(1, Ordering::Relaxed) as u8;
        Ok(())
    }
}

/// Fails after so many draws.
struct Failing(AtomicUsize);

impl Entropy for Failing {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        let left = self.0.load(Ordering::Relaxed);
        self.0
            .store(left.checked_sub(1).ok_or(EntropyError)?, Ordering::Relaxed);
        SystemEntropy::new().fill(dest)
    }
}

/// Multiplication in GF(2)[x] modulo x^8 + x^4 + x^3 + x^2 + 1, bit by bit.
fn product(a: u8, b: u8) -> u8 {
    let mut sum = 0u16;
    for bit in 0..8 {
        if b >> bit & 1 == 1 {
            sum ^= u16::from(a) << bit;
        }
    }
    for bit in (8..16).rev() {
        if sum >> bit & 1 == 1 {
            sum ^= 0x11d << (bit - 8);
        }
    }
    sum as u8
}

#[test]
fn shares_are_the_points_of_polynomials_with_our_randomness_as_coefficients() {
    let entropy = Counting::default();
    let shares = split(&key(), SERVICE, scheme(4, 16), &entropy).unwrap();
    assert_eq!(entropy.0.load(Ordering::Relaxed), 32 * 3);
    for share in &shares {
        let x = share.index();
        let expected: [u8; 32] = core::array::from_fn(|at| {
            let coefficients = [3 * at, 3 * at + 1, 3 * at + 2].map(|draw| draw as u8);
            let all = coefficients.into_iter().chain([key().expose()[at]]);
            all.fold(0, |sum, coefficient| product(sum, x) ^ coefficient)
        });
        assert_eq!(value(share), expected, "share {x}");
    }
}

#[test]
fn a_coefficient_takes_each_of_256_values_and_zero_is_one_of_them() {
    // RUSTSEC-2024-0398: without zero each share rules out one value of every byte of the key.
    let entropy = Counting::default();
    let mut seen = [0; 256];
    for _ in 0..8 {
        let shares = split(&key(), SERVICE, scheme(2, 2), &entropy).unwrap();
        for (at, byte) in value(&shares[0]).iter().enumerate() {
            // At x = 1 the point of `a * x + key` is `a + key`.
            seen[usize::from(byte ^ key().expose()[at])] += 1;
        }
    }
    assert_eq!(seen, [1; 256]);
}

#[test]
fn without_randomness_there_are_no_shares() {
    for draws in [0, 1, 40, 63] {
        let entropy = Failing(AtomicUsize::new(draws));
        assert_eq!(
            split(&key(), SERVICE, scheme(3, 5), &entropy),
            Err(ShareError::Entropy(EntropyError)),
            "after {draws}"
        );
    }
    let entropy = Failing(AtomicUsize::new(64));
    assert!(split(&key(), SERVICE, scheme(3, 5), &entropy).is_ok());
}

#[test]
fn two_splits_of_one_key_have_no_share_in_common() {
    let (a, b) = (shares(2, 3), shares(2, 3));
    for (a, b) in a.iter().zip(&b) {
        assert_ne!(value(a), value(b));
        assert_ne!(value(a), *key().expose());
    }
}

#[test]
fn every_group_of_as_many_shares_as_are_needed_makes_the_key() {
    let shares = shares(3, 6);
    let mut groups = 0;
    for members in 0u32..64 {
        let group: Vec<Share> = (0..6)
            .filter(|at| members >> at & 1 == 1)
            .map(|at| shares[at].clone())
            .collect();
        let combined = combine(SERVICE, &group);
        if group.len() >= 3 {
            assert_eq!(combined, Ok(key()));
            groups += 1;
        } else if let Some(have) = core::num::NonZeroUsize::new(group.len()) {
            let have = have.get();
            assert_eq!(combined, Err(ShareError::TooFew { have, need: 3 }));
        }
    }
    assert_eq!(groups, 20 + 15 + 6 + 1);
    assert!(matches!(
        combine(SERVICE, &[]),
        Err(ShareError::TooFew { have: 0, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shares_in_any_order_make_any_key(
        secret: [u8; 32],
        (threshold, count) in (2u8..=16).prop_flat_map(|count| (2..=count, Just(count))),
        order in Just((0usize..16).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let secret = SecretKey::from_bytes(secret);
        let shares =
            split(&secret, SERVICE, scheme(threshold, count), &SystemEntropy::new()).unwrap();
        prop_assert_eq!(shares.len(), usize::from(count));
        let group: Vec<Share> = order
            .iter()
            .filter_map(|at| shares.get(*at))
            .take(usize::from(threshold))
            .cloned()
            .collect();
        prop_assert_eq!(combine(SERVICE, &group), Ok(secret));
        let too_few = combine(SERVICE, &group[1..]);
        let refused = matches!(too_few, Err(ShareError::TooFew { .. }));
        prop_assert!(refused);
    }

    #[test]
    fn no_text_and_no_bytes_make_the_readers_panic(text in ".{0,250}", bytes: Vec<u8>) {
        prop_assert!(Share::from_text(&text).is_err());
        let line = format!("sesemi-share-v1 {text}");
        prop_assert!(Share::from_text(&line).is_err());
        prop_assert!(cbor::decode::<Share>(&bytes, MAX_ENCODED).is_err());
    }

    #[test]
    fn whatever_stands_before_a_good_checksum_the_reader_does_not_panic(
        words in proptest::collection::vec("[0-9a-f/+ ]{0,66}", 0..7),
    ) {
        let line = format!("sesemi-share-v1 {}", words.join(" "));
        if let Ok(share) = Share::from_text(&with_checksum(&line)) {
            let text = share.to_text();
            prop_assert_eq!(text.as_str(), with_checksum(&line));
        }
    }
}

#[test]
fn shares_that_do_not_belong_together_are_told_apart() {
    let good = shares(3, 5);
    let with = |share: Share| combine(SERVICE, &[good[0].clone(), good[1].clone(), share]);
    assert_eq!(with(good[1].clone()), Err(ShareError::Duplicate(2)));
    let other = ServiceId([8; 32]);
    let expected = ShareError::OtherService {
        index: 3,
        found: other,
        expected: SERVICE,
    };
    assert_eq!(with(forged(other, 3, scheme(3, 5), [1; 32])), Err(expected));
    let expected = ShareError::OtherScheme {
        index: 3,
        found: scheme(2, 5),
        expected: scheme(3, 5),
    };
    assert_eq!(
        with(forged(SERVICE, 3, scheme(2, 5), [1; 32])),
        Err(expected)
    );
}

#[test]
fn a_wrong_share_or_a_lower_threshold_makes_another_key() {
    let good = shares(3, 5);
    let mut wrong = value(&good[2]);
    wrong[0] ^= 1;
    let wrong = forged(SERVICE, 3, scheme(3, 5), wrong);
    let made = combine(SERVICE, &[good[0].clone(), good[1].clone(), wrong]).unwrap();
    // One byte is off, so one byte of the key is.
    assert_ne!(made.expose()[0], key().expose()[0]);
    assert_eq!(made.expose()[1..], key().expose()[1..]);

    let two = [0, 1].map(|at| forged(SERVICE, at + 1, scheme(2, 5), value(&good[usize::from(at)])));
    assert_ne!(combine(SERVICE, &two), Ok(key()));
}

#[test]
fn schemes_that_cannot_be_are_refused() {
    for (threshold, count) in [
        (0, 0),
        (0, 3),
        (1, 1),
        (1, 3),
        (4, 3),
        (2, 17),
        (17, 17),
        (2, 255),
    ] {
        assert_eq!(
            Scheme::new(threshold, count),
            Err(ShareError::Scheme { threshold, count })
        );
    }
    for (threshold, count) in [(2, 2), (2, MAX_SHARES), (MAX_SHARES, MAX_SHARES)] {
        assert!(Scheme::new(threshold, count).is_ok());
    }
}

#[test]
fn a_share_cannot_be_printed() {
    let share = forged(SERVICE, 3, scheme(3, 5), [0xab; 32]);
    for printed in [format!("{share:?}"), format!("{share:#?}")] {
        assert!(printed.contains("index: 3"), "{printed}");
        let lower = printed.to_lowercase();
        assert!(
            !lower.contains("abab") && !printed.contains("171"),
            "{printed}"
        );
    }
    // Nor does an error say what was read.
    let line = share.to_text().replace(" 3/5 ", " 3/6 ");
    let error = Share::from_text(&line).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("abab"));
}

#[test]
fn the_text_and_the_cbor_of_a_share_never_change() {
    // Custodians keep these lines for years.
    let share = forged(ServiceId([0x11; 32]), 12, scheme(3, 16), [0xab; 32]);
    let text = format!(
        "sesemi-share-v1 {} 12/16 threshold 3 {} 6b70a5bd",
        "11".repeat(32),
        "ab".repeat(32)
    );
    assert_eq!(share.to_text().as_str(), text);
    let (service, secret) = ("11".repeat(32), "ab".repeat(32));
    assert_eq!(
        hex::encode(&*cbor::encode(&share).unwrap()),
        format!("a5005820{service}010c02100303045820{secret}")
    );
    assert_eq!(
        share.commitment().unwrap().to_string(),
        "20ad78ce0137990bc7121cdb6a3d3c98c503d282aa24e74214f56579c977942a"
    );
}

#[test]
fn a_share_reads_back_as_written() {
    let all = (2..=MAX_SHARES).flat_map(|count| shares(2, count));
    for share in all {
        let text = share.to_text();
        assert!(text.len() + 2 <= MAX_TEXT);
        for ending in ["", "\n", "\r\n"] {
            let read = Share::from_text(&format!("{}{ending}", *text));
            assert_eq!(read.as_ref(), Ok(&share));
        }
        let bytes = cbor::encode(&share).unwrap();
        assert!(bytes.len() <= MAX_ENCODED);
        assert_eq!(cbor::decode(&bytes, MAX_ENCODED), Ok(share));
    }
}

#[test]
fn a_typing_error_anywhere_in_a_share_is_noticed() {
    let text = shares(2, 3)[0].to_text();
    let refused = |typed: &str| {
        let error = Share::from_text(typed);
        assert!(error.is_err(), "{typed}");
        error.unwrap_err()
    };
    for (at, good) in text.char_indices() {
        for wrong in "0123456789abcdefABCDEF /x"
            .chars()
            .filter(|wrong| *wrong != good)
        {
            let mut typed = text.to_string();
            typed.replace_range(at..=at, &wrong.to_string());
            let error = refused(&typed);
            if at > "sesemi-share-v1".len() && wrong != ' ' {
                assert_eq!(error, TextError::Checksum.into(), "{typed}");
            }
            let mut typed = text.to_string();
            typed.insert(at, wrong);
            refused(&typed);
        }
        let mut typed = text.to_string();
        typed.remove(at);
        refused(&typed);
        if let Some(next) = text.chars().nth(at + 1).filter(|next| *next != good) {
            let mut typed = text.to_string();
            typed.replace_range(at..at + 2, &format!("{next}{good}"));
            refused(&typed);
        }
    }
    for (typed, expected) in [
        (String::new(), TextError::NotAShare),
        ("sesemi-share-v1".into(), TextError::NotAShare),
        ("sesemi-share-v1 ".into(), TextError::Checksum),
        (text.replace("-v1", "-v2"), TextError::NotAShare),
        (text.replace("-v1", "-v12"), TextError::NotAShare),
        (format!(" {}", *text), TextError::NotAShare),
        (format!("{} ", *text), TextError::Checksum),
        (format!("{}\n\n", *text), TextError::Checksum),
        (format!("{}\n{}", *text, *text), TextError::TooLong),
        ("x".repeat(MAX_TEXT + 1), TextError::TooLong),
    ] {
        assert_eq!(refused(&typed), expected.into(), "{typed}");
    }
}

#[test]
fn a_share_with_a_good_checksum_and_another_spelling_is_refused() {
    let service = SERVICE.to_string();
    let secret = "ab".repeat(32);
    let line = |place: &str, threshold: &str| {
        with_checksum(&format!(
            "sesemi-share-v1 {service} {place} threshold {threshold} {secret}"
        ))
    };
    assert!(Share::from_text(&line("1/3", "2")).is_ok());
    let spelling = || ShareError::from(TextError::Spelling);
    for (text, expected) in [
        (line("+1/3", "2"), spelling()),
        (line("01/3", "2"), spelling()),
        (line("1/3/3", "2"), spelling()),
        (line("1", "2"), spelling()),
        (line("1/3", "2 "), spelling()),
        (line("1/300", "2"), spelling()),
        (line("-1/3", "2"), spelling()),
        (line("0/3", "2"), ShareError::Index { index: 0, count: 3 }),
        (line("4/3", "2"), ShareError::Index { index: 4, count: 3 }),
        (
            line("1/3", "1"),
            ShareError::Scheme {
                threshold: 1,
                count: 3,
            },
        ),
        (
            line("1/17", "2"),
            ShareError::Scheme {
                threshold: 2,
                count: 17,
            },
        ),
    ] {
        assert_eq!(Share::from_text(&text), Err(expected), "{text}");
    }
    let upper = format!(
        "sesemi-share-v1 {service} 1/3 threshold 2 {}",
        "AB".repeat(32)
    );
    let word = format!("sesemi-share-v1 {service} 1/3 needed 2 {secret}");
    let short = format!(
        "sesemi-share-v1 {service} 1/3 threshold 2 {}",
        "ab".repeat(31)
    );
    for line in [upper, word, short] {
        assert_eq!(Share::from_text(&with_checksum(&line)), Err(spelling()));
    }
}

#[test]
fn cbor_that_is_not_exactly_a_share_is_refused() {
    let share = forged(SERVICE, 2, scheme(2, 3), [0xab; 32]);
    let good = cbor::encode(&share).unwrap();
    // The map's keys and small numbers stand at fixed places after the service id.
    let [index, count, threshold] = [37, 39, 41];
    assert_eq!([good[index], good[count], good[threshold]], [2, 3, 2]);
    for (at, wrong) in [
        (index, 0),
        (index, 4),
        (count, 1),
        (count, 17),
        (threshold, 1),
        (threshold, 4),
    ] {
        let mut bytes = good.to_vec();
        bytes[at] = wrong;
        let refused = cbor::decode::<Share>(&bytes, MAX_ENCODED);
        assert!(
            matches!(refused, Err(CborError::Malformed(_))),
            "{at} {wrong}"
        );
    }
    for length in 0..good.len() {
        assert!(cbor::decode::<Share>(&good[..length], MAX_ENCODED).is_err());
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(cbor::decode::<Share>(&longer, MAX_ENCODED).is_err());
    let unknown = [&[0xa6], &good[1..], &[5, 0]].concat();
    assert_eq!(
        cbor::decode::<Share>(&unknown, MAX_ENCODED),
        Err(CborError::NotDeterministic)
    );
}
