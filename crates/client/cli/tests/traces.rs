//! One request through the deployed programs, and what their traces say of it: one tree, below the caller's span.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value as Json;
use sesemi::{Grant, IsolationChange};
use sesemi_cli::stack::Stack;
use support::{input, join, push, rows, scope, semirt, start};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// A caller that does not record.
const QUIET: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A span, and which program wrote it.
struct Span {
    service: String,
    json: Json,
}

impl Span {
    fn text(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or_default()
    }

    fn attribute(&self, key: &str) -> Option<&str> {
        let all = self.json["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["key"] == key)?;
        found["value"].as_object()?.values().next()?.as_str()
    }

    fn nanos(&self, name: &str) -> u64 {
        self.text(name).parse().unwrap()
    }
}

fn spans(folder: &Path) -> Vec<Span> {
    let mut spans = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let data: Json = serde_json::from_str(line).unwrap();
            let resource = &data["resourceSpans"][0];
            let about = resource["resource"]["attributes"].as_array().unwrap();
            let value = |key: &str| {
                let found = about.iter().find(|attribute| attribute["key"] == key);
                found.map(|it| it["value"]["stringValue"].as_str().unwrap().to_owned())
            };
            let service = value("service.name").unwrap();
            // Whatever was simulated is called so.
            let in_tee = service != "sesemi-fnpacker";
            assert_eq!(
                value("sesemi.tee").as_deref(),
                in_tee.then_some("simulated")
            );
            for json in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                let (service, json) = (service.clone(), json.clone());
                spans.push(Span { service, json });
            }
        }
    }
    spans
}

/// Sends a sealed request again, as a client with traces of its own would.
fn send(stack: &Stack, model: &str, body: &[u8], traceparent: &str) -> String {
    let host = stack.facts.gateway.trim_start_matches("http://");
    let mut tcp = TcpStream::connect(host).unwrap();
    write!(
        tcp,
        "POST /v1/infer HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nsesemi-model: {model}\r\n\
         traceparent: {traceparent}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    tcp.write_all(body).unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The body of the one request that the platform has passed on.
fn tapped(stack: &Stack) -> Vec<u8> {
    let paths = std::fs::read_dir(stack.tap())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let request = paths
        .filter(|path| path.extension().is_some_and(|it| it == "request"))
        .min();
    let message = std::fs::read(request.unwrap()).unwrap();
    let head = message.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    message[head + 4..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_tree_from_the_caller_to_the_steps_in_the_enclave() {
    let (folder, stack) = start().await;
    let mut owner = join(&stack.facts).await;
    let mut user = join(&stack.facts).await;
    let model = push(&stack.facts, &mut owner).await;
    let code = semirt(&stack.facts);
    owner
        .grant(Grant::of(&model, user.id(), code))
        .await
        .unwrap();
    user.deposit_key(&scope(&model), [code], IsolationChange::default())
        .await
        .unwrap();
    let row = [input(&rows()[0])];
    // The gateway knows a model by this name, and sends it where it is loaded.
    let name = model.to_string();
    user.infer(&stack.facts.gateway, model, &row).await.unwrap();

    let sealed = tapped(&stack);
    let answer = send(&stack, &name, &sealed, &format!("00-{TRACE}-{CALLER}-01"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = send(&stack, &name, &sealed, &format!("00-{QUIET}-{CALLER}-00"));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let answer = send(
        &stack,
        &name,
        b"garbage",
        &format!("00-{TRACE}-{CALLER}-01"),
    );
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    stack.stop().await.unwrap();

    let spans = spans(&folder.path().join("state/traces"));
    assert!(spans.iter().all(|span| span.text("traceId") != QUIET));
    the_callers_trace_is_two_trees(&spans);
    the_cold_request_is_a_tree_of_its_own(&spans);
    keyservice_has_roots_of_its_own(&spans);
}

fn the_callers_trace_is_two_trees(spans: &[Span]) {
    let traced: Vec<&Span> = spans
        .iter()
        .filter(|it| it.text("traceId") == TRACE)
        .collect();
    let by_id: HashMap<&str, &Span> = traced.iter().map(|it| (it.text("spanId"), *it)).collect();
    assert_eq!(by_id.len(), traced.len());
    let below = |parent: &str| -> Vec<&Span> {
        let found = traced.iter().copied();
        found
            .filter(|it| it.text("parentSpanId") == parent)
            .collect()
    };
    // Every span hangs below another or below the caller, and lies within the one above.
    for span in &traced {
        let parent = span.text("parentSpanId");
        let Some(above) = by_id.get(parent) else {
            assert_eq!(parent, CALLER, "{}", span.json);
            continue;
        };
        // The programs' clocks are one here, but it may be set meanwhile: only within one program is time in order.
        if span.service == above.service {
            assert!(span.nanos("startTimeUnixNano") >= above.nanos("startTimeUnixNano"));
            assert!(span.nanos("endTimeUnixNano") <= above.nanos("endTimeUnixNano"));
        }
    }
    let mut requests = below(CALLER);
    requests.sort_by_key(|span| span.nanos("startTimeUnixNano"));
    assert_eq!(requests.len(), 2);
    let names = |spans: &[&Span]| -> Vec<String> {
        let mut sorted = spans.to_vec();
        sorted.sort_by_key(|span| {
            (
                span.nanos("startTimeUnixNano"),
                span.nanos("endTimeUnixNano"),
            )
        });
        sorted
            .iter()
            .map(|span| format!("{} {}", span.service, span.text("name")))
            .collect()
    };
    for (request, status, refused) in [
        (requests[0], "200", None),
        (requests[1], "400", Some("malformed")),
    ] {
        assert_eq!(request.service, "sesemi-fnpacker");
        assert_eq!(request.attribute("http.response.status_code"), Some(status));
        let parts = below(request.text("spanId"));
        let expected = ["receive", "queue", "invoke"].map(|it| format!("sesemi-fnpacker {it}"));
        assert_eq!(names(&parts), expected);
        let invoke = parts.iter().find(|it| it.text("name") == "invoke").unwrap();
        let inside = below(invoke.text("spanId"));
        assert_eq!(names(&inside), ["sesemi-semirt POST /v1/infer"]);
        assert_eq!(inside[0].attribute("error.type"), refused);
        let steps = below(inside[0].text("spanId"));
        let expected: &[&str] = match refused {
            None => &["enter", "key", "open", "queue", "run", "seal"],
            Some(_) => &[],
        };
        let expected: Vec<_> = expected
            .iter()
            .map(|it| format!("sesemi-semirt {it}"))
            .collect();
        assert_eq!(names(&steps), expected);
        if refused.is_none() {
            assert_eq!(inside[0].attribute("sesemi.path"), Some("hot"));
        }
    }
}

/// The client of the SDK has no traces, so the gateway begins one.
fn the_cold_request_is_a_tree_of_its_own(spans: &[Span]) {
    let mut cold = spans
        .iter()
        .filter(|it| it.attribute("sesemi.path") == Some("cold"));
    let (Some(cold), None) = (cold.next(), cold.next()) else {
        panic!("not one cold request");
    };
    let of_trace = |it: &&Span| it.text("traceId") == cold.text("traceId");
    let roots: Vec<&Span> = spans
        .iter()
        .filter(of_trace)
        .filter(|it| it.text("parentSpanId").is_empty())
        .collect();
    assert_eq!(roots.len(), 1);
    assert_eq!(roots[0].service, "sesemi-fnpacker");
    let invoke = spans
        .iter()
        .filter(of_trace)
        .find(|it| it.text("name") == "invoke");
    assert!(
        invoke
            .unwrap()
            .attribute("sesemi.platform.init_ms")
            .is_some()
    );
}

fn keyservice_has_roots_of_its_own(spans: &[Span]) {
    for (service, name) in [
        ("sesemi-keyservice", "command"),
        ("sesemi-keyservice", "release"),
        ("sesemi-keyservice", "log.commit"),
        ("sesemi-keyservice", "tee.evidence"),
        ("sesemi-semirt", "tee.evidence"),
        ("sesemi-semirt", "release"),
    ] {
        let found: Vec<&Span> = spans
            .iter()
            .filter(|it| it.service == service && it.text("name") == name)
            .collect();
        assert!(!found.is_empty(), "{service} {name}");
        for span in found {
            assert_eq!(span.text("parentSpanId"), "", "{service} {name}");
            assert_ne!(span.text("traceId"), TRACE);
        }
    }
}
