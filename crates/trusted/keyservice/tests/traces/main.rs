//! What a flood leaves in the file for traces. In a program of its own, because a process has one such file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[allow(dead_code, reason = "the floods use all of it")]
#[path = "../floods/running.rs"]
mod running;

use std::path::Path;

use sesemi_keyservice::server::Bounds;
use sesemi_protocol::RefusalCode;
use sesemi_protocol::wire::ReplyBody;
use sesemi_traces::Export;

use running::{LIMIT, call, has_status, question, registration, serve, somebody, status};

fn is_over(reply: Option<&ReplyBody>) -> bool {
    matches!(reply, Some(ReplyBody::Refused(it)) if it.code == RefusalCode::Busy)
}

/// Method and peer of each call in the file, oldest first.
fn calls(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    // A line that is being written has no end yet.
    let whole = text.split_inclusive('\n').filter(|it| it.ends_with('\n'));
    let mut calls = Vec::new();
    for line in whole {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let spans = &line["resourceSpans"][0]["scopeSpans"][0]["spans"];
        for span in spans.as_array().unwrap() {
            let value = |key: &str| {
                let attributes = span["attributes"].as_array().unwrap();
                let found = attributes.iter().find(|it| it["key"] == key)?;
                Some(found["value"]["stringValue"].as_str()?.to_owned())
            };
            if let (Some(method), Some(peer)) = (value("rpc.method"), value("sesemi.peer")) {
                calls.push((method, peer));
            }
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_refused_as_too_many_leave_no_span_whoever_sends_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("traces.jsonl");
    let export = Export::new(Some(file.clone()), None, None).unwrap();
    let _traces = export.open("test").unwrap().start("0", None).unwrap();
    let running = serve(folder.path(), Bounds::default(), 100, 5).await;

    // Of nobody in particular five pass: a registration and four more.
    let known = somebody(1);
    let mut channel = running.principal().await;
    let reply = call(&mut channel, registration(&running, &known)).await;
    assert!(matches!(reply, Some(ReplyBody::Receipt(_))));
    let mut over = 0;
    for _ in 0..20 {
        over += usize::from(is_over(call(&mut channel, status()).await.as_ref()));
    }
    assert_eq!(over, 16);
    // A principal has a limit of its own, and when its address has used up what it may too, the channel ends.
    let (mut answered, mut over) = (0, 0);
    while let Some(reply) = call(&mut channel, question(&running, &known)).await {
        match reply {
            ReplyBody::Answer(_) => answered += 1,
            other => over += usize::from(is_over(Some(&other))),
        }
        if over == 20 {
            break;
        }
    }
    assert!(answered > 0 && over > 0);

    // Spans are written in the order in which they end, so with this one all are there.
    let last = ("status".to_owned(), "enclave".to_owned());
    assert!(has_status(&mut running.enclave().await).await);
    let written = tokio::time::timeout(LIMIT, async {
        loop {
            let calls = calls(&file);
            if calls.contains(&last) {
                return calls;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    let written = written.await.unwrap();
    let count = |method: &str| {
        let asked = (method.to_owned(), "principal".to_owned());
        written.iter().filter(|call| **call == asked).count()
    };
    assert_eq!(count("command"), 1);
    assert_eq!(count("status"), 4);
    assert_eq!(count("question"), answered);
    assert_eq!(sesemi_traces::dropped(), 0);
}
