//! The W3C trace context of a request, so that its log lines can be found from the client's trace. Only `traceparent` is
//! read; what does not look exactly like one is ignored, as the standard asks, and never logged.

use hyper::HeaderMap;

/// The two ids of a `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent<'a> {
    pub(crate) trace_id: &'a str,
    pub(crate) parent_id: &'a str,
}

impl<'a> TraceParent<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return None;
        };
        Self::parse(value.to_str().ok()?)
    }

    /// `VERSION-TRACE-PARENT-FLAGS`; versions after 00 may have more at the end.
    fn parse(text: &'a str) -> Option<Self> {
        let hex = |part: &str, len| {
            part.len() == len && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        };
        let zero = |part: &str| part.bytes().all(|c| c == b'0');
        let mut parts = text.split('-');
        let (version, trace_id, parent_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shape = hex(version, 2) && hex(trace_id, 32) && hex(parent_id, 16) && hex(flags, 2);
        let length = version != "00" || parts.next().is_none();
        let valid = shape && length && version != "ff" && !zero(trace_id) && !zero(parent_id);
        valid.then_some(Self {
            trace_id,
            parent_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_trace_parent_has_two_ids_and_nothing_else_is_one() {
        let ids = Some(TraceParent {
            trace_id: TRACE,
            parent_id: PARENT,
        });
        assert_eq!(TraceParent::parse(&format!("00-{TRACE}-{PARENT}-01")), ids);
        let later = format!("01-{TRACE}-{PARENT}-01-more");
        assert_eq!(TraceParent::parse(&later), ids);
        for bad in [
            String::new(),
            "00-x-y-01".to_owned(),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{PARENT}"),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }
}
