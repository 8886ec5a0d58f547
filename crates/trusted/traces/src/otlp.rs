//! Spans as OTLP/JSON: one `TracesData` a line, as OpenTelemetry's specification "OTLP File Exporter" has it, which the
//! Collector's receiver `otlpjsonfile` reads.
//!
//! The encoding is protobuf's JSON mapping with the exceptions of the OTLP specification ("JSON Protobuf Encoding"): ids are
//! hexadecimal, enums are numbers, 64-bit integers are decimal strings, names are in lowerCamelCase.

use serde_json::{Map, Value as Json, json};

use crate::span::{Finished, Key, Outcome, Value};

/// Spans on one line, at most.
pub const MAX_SPANS: usize = 64;
/// Longest text in a span, in bytes: a longer one is cut.
pub const MAX_TEXT: usize = 64;
/// Longest line that [`line()`] makes, in bytes. The Collector's limit is a mebibyte unless it is told otherwise.
pub const MAX_LINE: usize = 512 * 1024;

/// `Status.code` of OTLP.
const STATUS_ERROR: u8 = 2;
/// `SpanFlags` of OTLP: the lower eight bits are the context's; these say that the next is known, and that the parent is
/// another program's.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Who made the spans.
#[derive(Debug, Clone)]
pub struct Resource {
    /// `service.name`.
    pub service: &'static str,
    /// `service.version`.
    pub version: &'static str,
    /// `service.instance.id`: random, new at each start.
    pub instance: u128,
    /// The TEE that it runs in, if it is one of those that must. A simulated one is called so.
    pub tee: Option<&'static str>,
}

/// At most [`MAX_SPANS`] spans as one line, with its end.
#[must_use]
pub fn line(resource: &Resource, spans: &[Finished]) -> String {
    let spans: Vec<Json> = spans.iter().take(MAX_SPANS).map(span).collect();
    let instance = format!("{:032x}", resource.instance);
    let mut about = vec![
        attribute("service.name", text(resource.service)),
        attribute("service.version", text(resource.version)),
        attribute("service.instance.id", text(&instance)),
    ];
    about.extend(resource.tee.map(|tee| attribute("sesemi.tee", text(tee))));
    let data = json!({"resourceSpans": [{
        "resource": {"attributes": about},
        "scopeSpans": [{
            "scope": {"name": "sesemi", "version": cut(resource.version)},
            "spans": spans,
        }],
    }]});
    let mut line = data.to_string();
    line.push('\n');
    line
}

fn span(finished: &Finished) -> Json {
    let mut flags = u32::from(finished.context.flags) | HAS_IS_REMOTE;
    if finished.parent.is_some_and(|parent| parent.remote) {
        flags |= IS_REMOTE;
    }
    let mut attributes: Vec<Json> = finished
        .attributes
        .iter()
        .map(|(key, value)| named(*key, *value))
        .collect();
    let status = match finished.outcome {
        Outcome::Done => json!({}),
        Outcome::Refused(code) => {
            attributes.push(attribute("error.type", text(code)));
            json!({})
        }
        Outcome::Failed(code) => {
            attributes.push(attribute("error.type", text(code)));
            json!({"code": STATUS_ERROR})
        }
    };
    let mut span = Map::new();
    let mut put = |name: &str, value: Json| drop(span.insert(name.to_owned(), value));
    put("traceId", finished.context.trace_id().into());
    put("spanId", finished.context.span_id().into());
    if let Some(parent) = finished.parent {
        put("parentSpanId", format!("{:016x}", parent.span_id).into());
    }
    put("flags", flags.into());
    put("name", cut(finished.name).into());
    put("kind", (finished.kind as u8).into());
    put("startTimeUnixNano", finished.start.to_string().into());
    put("endTimeUnixNano", finished.end.to_string().into());
    put("attributes", attributes.into());
    put("status", status);
    Json::Object(span)
}

fn named(key: Key, value: Value) -> Json {
    let value = match value {
        Value::Word(word) => text(word),
        Value::Count(count) => {
            // OTLP's integers have a sign.
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            json!({"intValue": count.to_string()})
        }
    };
    attribute(key.as_str(), value)
}

fn attribute(key: &str, value: Json) -> Json {
    json!({"key": key, "value": value})
}

fn text(text: &str) -> Json {
    json!({"stringValue": cut(text)})
}

fn cut(text: &str) -> &str {
    let end = text.floor_char_boundary(MAX_TEXT);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use core::num::{NonZeroU64, NonZeroU128};

    use super::*;
    use crate::context::TraceContext;
    use crate::span::{Kind, MAX_ATTRIBUTES, Parent};

    const RESOURCE: Resource = Resource {
        service: "sesemi-semirt",
        version: "0.1.0",
        instance: 7,
        tee: Some("simulated-sgx"),
    };

    fn finished() -> Finished {
        let (trace, span) = (NonZeroU128::new(0xab), NonZeroU64::new(0xcd));
        Finished {
            context: TraceContext::new(trace.unwrap(), span.unwrap(), true),
            parent: Some(Parent {
                span_id: NonZeroU64::new(0xef).unwrap(),
                remote: true,
            }),
            name: "POST /v1/infer",
            kind: Kind::Server,
            start: 1_581_452_772_000_000_321,
            end: 1_581_452_773_000_000_789,
            attributes: vec![
                (Key::HttpStatus, Value::Count(200)),
                (Key::Path, Value::Word("hot")),
            ],
            outcome: Outcome::Done,
        }
    }

    #[test]
    fn a_line_is_traces_data_in_the_encoding_of_the_specification() {
        let line = line(&RESOURCE, &[finished()]);
        assert_eq!(line.matches('\n').count(), 1);
        let expected = json!({"resourceSpans": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "sesemi-semirt"}},
                {"key": "service.version", "value": {"stringValue": "0.1.0"}},
                {"key": "service.instance.id", "value": {"stringValue": "00000000000000000000000000000007"}},
                {"key": "sesemi.tee", "value": {"stringValue": "simulated-sgx"}},
            ]},
            "scopeSpans": [{
                "scope": {"name": "sesemi", "version": "0.1.0"},
                "spans": [{
                    "traceId": "000000000000000000000000000000ab",
                    "spanId": "00000000000000cd",
                    "parentSpanId": "00000000000000ef",
                    "flags": 0x303,
                    "name": "POST /v1/infer",
                    "kind": 2,
                    "startTimeUnixNano": "1581452772000000321",
                    "endTimeUnixNano": "1581452773000000789",
                    "attributes": [
                        {"key": "http.response.status_code", "value": {"intValue": "200"}},
                        {"key": "sesemi.path", "value": {"stringValue": "hot"}},
                    ],
                    "status": {},
                }],
            }],
        }]});
        assert_eq!(serde_json::from_str::<Json>(&line).unwrap(), expected);
    }

    #[test]
    fn a_failure_is_an_error_of_the_server_and_a_refusal_is_not() {
        let of = |outcome| {
            span(&Finished {
                outcome,
                attributes: Vec::new(),
                ..finished()
            })
        };
        let error_type = json!([{"key": "error.type", "value": {"stringValue": "not_granted"}}]);
        let refused = of(Outcome::Refused("not_granted"));
        assert_eq!(refused["attributes"], error_type);
        assert_eq!(refused["status"], json!({}));
        let failed = of(Outcome::Failed("not_granted"));
        assert_eq!(failed["attributes"], error_type);
        assert_eq!(failed["status"], json!({"code": 2}));
    }

    #[test]
    fn a_root_has_no_parent() {
        let root = span(&Finished {
            parent: None,
            ..finished()
        });
        assert!(root.get("parentSpanId").is_none());
        assert_eq!(root["flags"], 0x103);
    }

    #[test]
    fn the_longest_line_is_within_its_bound() {
        let long: &'static str = "\u{1}".repeat(1000).leak();
        let spans: Vec<Finished> = (0..=MAX_SPANS)
            .map(|_| Finished {
                name: long,
                start: u64::MAX,
                end: u64::MAX,
                attributes: vec![(Key::HttpStatus, Value::Word(long)); MAX_ATTRIBUTES],
                outcome: Outcome::Failed(long),
                ..finished()
            })
            .collect();
        let resource = Resource {
            service: long,
            version: long,
            tee: Some(long),
            ..RESOURCE
        };
        let line = line(&resource, &spans);
        assert_eq!(line.matches("\"spanId\"").count(), MAX_SPANS);
        // A control character is six in JSON.
        assert!(line.contains("\\u0001"));
        assert!(line.len() <= MAX_LINE, "{}", line.len());
    }
}
