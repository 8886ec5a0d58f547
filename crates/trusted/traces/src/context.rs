//! Where a span hangs: the `traceparent` header of the W3C recommendation "Trace Context".
//!
//! It comes from whoever calls. It is two numbers and two bits, and nothing is decided by it but where a span hangs and whether
//! it is recorded.

use core::fmt;
use core::num::{NonZeroU64, NonZeroU128};

/// The name of the header, in lower case.
pub const HEADER: &str = "traceparent";
/// Length of the header in version 00.
const LENGTH: usize = 55;
/// Somebody before recorded this trace and asks to go on.
const SAMPLED: u8 = 0x01;
/// The right half of the trace id is random (level 2 of the recommendation).
const RANDOM: u8 = 0x02;

/// A trace and the span in it that is the parent of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(crate) trace_id: NonZeroU128,
    pub(crate) span_id: NonZeroU64,
    /// Bits that mean nothing to us are not passed on, as the recommendation asks.
    pub(crate) flags: u8,
}

impl TraceContext {
    pub(crate) fn new(trace_id: NonZeroU128, span_id: NonZeroU64, sampled: bool) -> Self {
        Self {
            trace_id,
            span_id,
            flags: if sampled { SAMPLED | RANDOM } else { RANDOM },
        }
    }

    /// The context in the values of a request's `traceparent` headers. None, two or a malformed one are no context: the request
    /// begins a trace of its own then.
    pub fn from_headers<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        Self::parse(value)
    }

    /// Reads `VERSION-TRACE-PARENT-FLAGS`, all of it lower-case hexadecimal. A version that is not known yet may have more after
    /// another `-`; version ff and ids of zeros are invalid.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let (known, more) = header.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let version = number(parts.next()?, 2)?;
        let trace_id = number(parts.next()?, 32)?;
        let span_id = number(parts.next()?, 16)?;
        let flags = number(parts.next()?, 2)?;
        let ends_well = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more.first(), None | Some(b'-')),
        };
        if !ends_well || parts.next().is_some() {
            return None;
        }
        Some(Self {
            trace_id: NonZeroU128::new(trace_id)?,
            span_id: NonZeroU64::new(u64::try_from(span_id).ok()?)?,
            flags: u8::try_from(flags).ok()? & (SAMPLED | RANDOM),
        })
    }

    /// Whether the caller records this trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace's id as 32 digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The span's id as 16 digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    pub(crate) fn with_span(self, span_id: NonZeroU64) -> Self {
        Self { span_id, ..self }
    }
}

/// The header's value, in version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// A number of exactly so many lower-case hexadecimal digits.
fn number(digits: &[u8], length: usize) -> Option<u128> {
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if digits.len() != length || !digits.iter().all(lower) {
        return None;
    }
    u128::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    fn parse(text: &str) -> Option<TraceContext> {
        TraceContext::parse(text.as_bytes())
    }

    #[test]
    fn a_context_is_read_and_written_as_the_recommendation_says() {
        let header = format!("00-{TRACE}-{PARENT}-01");
        let context = parse(&header).unwrap();
        assert_eq!(context.trace_id(), TRACE);
        assert_eq!(context.span_id(), PARENT);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), header);
        let quiet = parse(&format!("00-{TRACE}-{PARENT}-00")).unwrap();
        assert!(!quiet.is_sampled());
    }

    #[test]
    fn a_later_version_may_say_more_and_is_answered_in_version_00() {
        let known = format!("00-{TRACE}-{PARENT}-01");
        for later in [
            format!("01-{TRACE}-{PARENT}-01"),
            format!("cc-{TRACE}-{PARENT}-01-what-the-future-holds"),
            format!("fe-{TRACE}-{PARENT}-01-"),
        ] {
            assert_eq!(parse(&later).unwrap().to_string(), known, "{later}");
        }
        assert_eq!(parse(&format!("01-{TRACE}-{PARENT}-01.more")), None);
        assert_eq!(parse(&format!("01-{TRACE}-{PARENT}-011")), None);
    }

    #[test]
    fn flags_that_mean_nothing_yet_are_not_passed_on() {
        let all = parse(&format!("00-{TRACE}-{PARENT}-ff")).unwrap();
        assert_eq!(all.to_string(), format!("00-{TRACE}-{PARENT}-03"));
        let unknown = parse(&format!("00-{TRACE}-{PARENT}-f0")).unwrap();
        assert!(!unknown.is_sampled());
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for bad in [
            String::new(),
            "00-x-y-01".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{TRACE}-{PARENT}-01-"),
            format!("00-{TRACE}-{PARENT}-1"),
            format!("00-{TRACE}-{PARENT}"),
            format!(" 00-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{PARENT}-0A"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-+{}-{PARENT}-01", "1".repeat(31)),
            format!("00-{PARENT}-{TRACE}-01"),
            format!("00-{TRACE}-{}-é1", "1".repeat(15)),
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn two_headers_are_no_context() {
        let header = format!("00-{TRACE}-{PARENT}-01");
        let header = header.as_bytes();
        assert!(TraceContext::from_headers([header]).is_some());
        assert_eq!(TraceContext::from_headers([header, header]), None);
        assert_eq!(TraceContext::from_headers([]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm_and_what_is_read_is_written_the_same(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..80),
                "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?".prop_map(String::into_bytes),
            ]
        ) {
            if let Some(context) = TraceContext::parse(&bytes) {
                let written = context.to_string().into_bytes();
                prop_assert_eq!(TraceContext::parse(&written), Some(context));
                prop_assert_eq!(&bytes[3..52], &written[3..52]);
            }
        }
    }
}
