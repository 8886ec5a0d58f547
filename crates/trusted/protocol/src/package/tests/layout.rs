//! The layout of a ciphertext: where its segments lie, what they hold, and which hold what agree with each other and with
//! what the writer writes.

use super::*;

const TAG: u64 = 16;

#[test]
fn the_header_of_the_stream_is_as_long_as_its_first_byte_says() {
    let mut out = Vec::new();
    stream::seal(&key(), b"", b"", &SystemEntropy::new(), &mut out).unwrap();
    assert_eq!(usize::from(out[0]), HEADER);
    assert_eq!(out.len(), HEADER + 16);
}

#[test]
fn lengths_that_no_ciphertext_has_are_refused() {
    let segment = SEGMENT as u64;
    let least = HEADER as u64 + TAG;
    for length in [
        0,
        1,
        least - 1,
        segment + 1,
        segment + TAG,
        3 * segment + TAG,
    ] {
        assert_eq!(
            Layout::of_length(length),
            Err(StreamError::CutShort),
            "{length}"
        );
    }
    for length in [least, segment, segment + TAG + 1, 3 * segment + TAG + 1] {
        Layout::of_length(length).unwrap();
    }
    for length in [u64::MAX, segment << 32] {
        assert_eq!(
            Layout::of_length(length),
            Err(StreamError::TooManySegments),
            "{length}"
        );
    }
    Layout::of_length((segment << 32) - segment).unwrap();
}

#[test]
fn segments_that_are_not_there_hold_nothing() {
    let layout = Layout::of_length(2 * SEGMENT as u64).unwrap();
    let end = layout.plaintext();
    for segment in [2, 3, u32::MAX] {
        assert!(layout.sealed(segment).is_empty());
        assert_eq!(layout.opened(segment), end..end);
    }
    assert_eq!(layout.holding(&(end..end + 1)), 2..2);
    assert_eq!(layout.holding(&(0..u64::MAX)), 0..2);
    assert_eq!(layout.holding(&(5..5)), 0..0);
    let header = [40; HEADER];
    let opener = Opener::new(&key(), b"", &header, layout).unwrap();
    let refused = opener.open(2, &mut []);
    assert_eq!(refused, Err(StreamError::NotAuthentic(2)));
}

/// A length near that of so many segments.
fn near_segments() -> impl Strategy<Value = u64> {
    let segments = prop_oneof![0u64..4, 0u64..1 << 32];
    (segments, -70i64..70).prop_map(|(n, off)| (n * SEGMENT as u64).saturating_add_signed(off))
}

proptest! {
    #[test]
    fn segments_share_out_ciphertext_and_plaintext(length in near_segments()) {
        let Ok(layout) = Layout::of_length(length) else {
            return Ok(());
        };
        let last = layout.segments() - 1;
        prop_assert_eq!(layout.sealed(0).start, HEADER as u64);
        prop_assert_eq!(layout.opened(0).start, 0);
        prop_assert_eq!(layout.sealed(last).end, length);
        prop_assert_eq!(layout.opened(last).end, layout.plaintext());
        let some = [0, 1, last / 2, last.saturating_sub(1), last];
        for segment in some.into_iter().filter(|segment| *segment <= last) {
            let (sealed, opened) = (layout.sealed(segment), layout.opened(segment));
            prop_assert_eq!(sealed.end - sealed.start, opened.end - opened.start + TAG);
            if segment < last {
                prop_assert_eq!(layout.sealed(segment + 1).start, sealed.end);
                prop_assert_eq!(layout.opened(segment + 1).start, opened.end);
                prop_assert_eq!(sealed.end, u64::from(segment + 1) * SEGMENT as u64);
            }
        }
    }

    #[test]
    fn the_segments_that_hold_a_range_are_those_whose_plaintext_meets_it(
        length in near_segments(), at in any::<prop::sample::Index>(), of in 0i64..4, off in -3i64..3, long in 1u64..3 << 20,
    ) {
        let Ok(layout) = Layout::of_length(length) else {
            return Ok(());
        };
        prop_assume!(layout.plaintext() > 0);
        // Starts at any place, or near a border between segments.
        let border = layout.opened(at.index(layout.segments() as usize) as u32).start;
        let anywhere = at.index(usize::try_from(layout.plaintext()).unwrap()) as u64;
        let start = if of == 0 { anywhere } else { border.saturating_add_signed(off) };
        let start = start.min(layout.plaintext() - 1);
        let end = start.saturating_add(long).min(layout.plaintext());
        let holding = layout.holding(&(start..end));
        let meets = |segment: u32| {
            let opened = layout.opened(segment);
            opened.start < end && start < opened.end
        };
        prop_assert!(!holding.is_empty() && holding.end <= layout.segments());
        prop_assert!(holding.clone().all(meets));
        prop_assert!(holding.start == 0 || !meets(holding.start - 1));
        prop_assert!(!meets(holding.end));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_layout_is_that_of_what_is_written(plaintext in border()) {
        let bytes = bytes(plaintext, 4);
        let mut out = Vec::new();
        stream::seal(&key(), b"", &bytes, &SystemEntropy::new(), &mut out).unwrap();
        let layout = Layout::of_length(out.len() as u64).unwrap();
        prop_assert_eq!(layout.plaintext(), plaintext as u64);
        let opener = Opener::new(&key(), b"", out.first_chunk().unwrap(), layout).unwrap();
        for segment in 0..layout.segments() {
            let mut sealed = out[place_in(&layout.sealed(segment))].to_vec();
            let (body, tag) = sealed.split_last_chunk().unwrap();
            let (mut apart, mut tag) = (body.to_vec(), *tag);
            opener.open_separate(segment, &mut apart, &tag).unwrap();
            let opened = opener.open(segment, &mut sealed).unwrap();
            prop_assert!(*opened == bytes[place_in(&layout.opened(segment))]);
            prop_assert!(*opened == apart);
            tag[15] ^= 1;
            let refused = Err(StreamError::NotAuthentic(segment));
            prop_assert_eq!(opener.open_separate(segment, &mut apart, &tag), refused);
            apart.push(0);
            prop_assert_eq!(opener.open_separate(segment, &mut apart, &tag), refused);
        }
    }
}
