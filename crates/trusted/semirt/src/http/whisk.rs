//! OpenWhisk's `/run`: a request in base64 in JSON, and the answer so too (its "action interface", in the project's page on
//! actions in containers).

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// OpenWhisk's end-of-activation marker, on both output streams.
const END_OF_ACTIVATION: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";
/// Characters of base64 that are decoded at once, a multiple of four.
const BLOCK: usize = 4096;

/// `/run`'s body, as far as it concerns us.
#[derive(Deserialize)]
struct Run<'b> {
    #[serde(borrow)]
    value: Value<'b>,
    #[serde(default)]
    deadline: Option<Deadline>,
}

#[derive(Deserialize)]
struct Value<'b> {
    #[serde(borrow)]
    request: Cow<'b, str>,
}

/// Milliseconds since 1970: the documentation says a number, the platform sends a string.
struct Deadline(u64);

impl<'de> Deserialize<'de> for Deadline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeadlineVisitor)
    }
}

/// By hand: what serde derives for either of two types first keeps whatever is there, which may be an array of millions.
struct DeadlineVisitor;

impl Visitor<'_> for DeadlineVisitor {
    type Value = Deadline;

    fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("milliseconds, as a number or a text")
    }

    fn visit_u64<E: de::Error>(self, millis: u64) -> Result<Deadline, E> {
        Ok(Deadline(millis))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Deadline, E> {
        text.parse().map(Deadline).map_err(E::custom)
    }
}

/// The message in a body, decoded in the memory of the body, and how much time the platform leaves for it, if it says so.
/// `None` if the body is not of its form.
pub(super) fn message(mut body: Vec<u8>) -> Option<(Vec<u8>, Option<Duration>)> {
    let run: Run<'_> = serde_json::from_slice(&body).ok()?;
    let left = match run.deadline {
        None => None,
        Some(deadline) => Some(time_left(deadline)?),
    };
    let place = match run.value.request {
        // Somebody escaped the slashes.
        Cow::Owned(text) => return Some((BASE64.decode(text).ok()?, left)),
        Cow::Borrowed(text) => {
            let start = text.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
            start..start.checked_add(text.len())?
        }
    };
    let length = decode_in_place(&mut body, place)?;
    body.truncate(length);
    Some((body, left))
}

/// Decodes the base64 at `place` to the front of the same memory; how long that is. What is written never reaches what is still
/// to be read, because it is shorter and begins earlier.
fn decode_in_place(memory: &mut [u8], place: core::ops::Range<usize>) -> Option<usize> {
    let mut block = [0; BLOCK];
    let (mut from, mut to) = (place.start, 0_usize);
    while from < place.end {
        let length = place.end.checked_sub(from)?.min(BLOCK);
        let block = block.get_mut(..length)?;
        block.copy_from_slice(memory.get(from..from.checked_add(length)?)?);
        from = from.checked_add(length)?;
        // Padding has its place at the end alone.
        if from < place.end && block.last() == Some(&b'=') {
            return None;
        }
        let written = BASE64
            .decode_slice(&*block, memory.get_mut(to..from)?)
            .ok()?;
        to = to.checked_add(written)?;
    }
    Some(to)
}

/// The body of an answer, in one buffer of its size.
pub(super) fn answer(sealed: &[u8]) -> String {
    const FRONT: &str = "{\"response\":\"";
    const END: &str = "\"}";
    let length = base64::encoded_len(sealed.len(), true).unwrap_or(0);
    let room = length.saturating_add(FRONT.len()).saturating_add(END.len());
    let mut body = String::with_capacity(room);
    body.push_str(FRONT);
    BASE64.encode_string(sealed, &mut body);
    body.push_str(END);
    body
}

/// The host's clock is not trusted; this deadline only saves work that nobody waits for.
fn time_left(deadline: Deadline) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(Duration::from_millis(deadline.0).saturating_sub(now))
}

/// Tells the platform that this activation's logs are complete.
pub(super) fn end_activation() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{END_OF_ACTIVATION}").and_then(|()| out.flush());
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{END_OF_ACTIVATION}").and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(request: &str) -> Vec<u8> {
        format!(r#"{{"activation_id":"x","value":{{"request":"{request}"}}}}"#).into_bytes()
    }

    #[test]
    fn messages_of_all_lengths_are_decoded_where_they_lie() {
        for length in (0..70).chain(3060..3080).chain([6144, 100_000]) {
            let message: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
            let encoded = BASE64.encode(&message);
            let body = body(&encoded);
            let place = body.as_ptr();
            let (decoded, left) = super::message(body).unwrap();
            assert_eq!(decoded, message);
            assert_eq!(left, None);
            assert_eq!(decoded.as_ptr(), place, "it was copied");
            let escaped = self::body(&encoded.replace('/', "\\/"));
            assert_eq!(super::message(escaped).unwrap().0, message);
        }
    }

    #[test]
    fn what_is_not_base64_is_refused_wherever_it_lies() {
        let padding_inside = format!("{}AA=={}", "A".repeat(BLOCK - 4), "A".repeat(8));
        let wrong_at_the_end = format!("{}A", "A".repeat(BLOCK));
        let wrong_bits = "AB==";
        for bad in [
            "A",
            "AAA",
            "AA=A",
            "AAAA=",
            "====",
            "AA AA",
            "-_-_",
            wrong_bits,
            &padding_inside,
            &wrong_at_the_end,
        ] {
            assert!(message(body(bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn json_of_another_form_is_refused() {
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"value":{}}"#,
            r#"{"value":"AAAA"}"#,
            r#"{"value":{"request":5}}"#,
            r#"{"value":{"request":"AAAA"}"#,
            r#"{"value":{"request":"AAAA"}} x"#,
            r#"{"value":{"request":"AAAA"},"deadline":"soon"}"#,
            r#"{"value":{"request":"AAAA"},"deadline":-1}"#,
        ] {
            assert!(message(bad.into()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_deadline_is_a_number_or_a_text_and_the_past_leaves_no_time() {
        let left = |deadline: &str| {
            let body = format!(r#"{{"value":{{"request":"AAAA"}},"deadline":{deadline}}}"#);
            message(body.into()).unwrap().1.unwrap()
        };
        assert_eq!(left("5"), Duration::ZERO);
        assert_eq!(left("\"5\""), Duration::ZERO);
        assert!(left("99999999999999") > Duration::from_secs(1));
    }

    #[test]
    fn an_answer_is_json_in_a_buffer_of_its_size() {
        for length in [0, 1, 2, 3, 1000] {
            let sealed = vec![0xa5; length];
            let body = answer(&sealed);
            let read: serde_json::Value = serde_json::from_str(&body).unwrap();
            let text = read["response"].as_str().unwrap();
            assert_eq!(BASE64.decode(text).unwrap(), sealed);
            assert_eq!(body.capacity(), body.len());
        }
    }
}
