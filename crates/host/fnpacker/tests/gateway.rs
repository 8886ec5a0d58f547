//! The gateway with real sockets and real instances: what it passes on, where it sends it, and what it refuses.

// Most of this is helpers and closures that clippy does not take for tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[path = "../../platform/tests/instance/mod.rs"]
mod instance;
mod rig;

use std::time::Duration;

use bytes::Bytes;
use instance::Gate;
use rig::Rig;
use sesemi_fnpacker::packing::policy::Policy;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn bytes_pass_in_both_directions_as_they_are() {
    let rig = Rig::new(|_| {}).await;
    let body: Bytes = (0..=255_u8)
        .cycle()
        .take(1 << 20)
        .collect::<Vec<_>>()
        .into();
    let cold = rig.infer("m", body.clone()).await;
    assert_eq!((cold.status, cold.body), (200, body));
    assert_eq!(cold.headers["content-type"], "application/test");
    assert_eq!(cold.headers["sesemi-activation"].len(), 32);
    assert!(
        cold.headers.contains_key("sesemi-wait-ms") && cold.headers.contains_key("sesemi-init-ms")
    );
    let warm = rig.infer("m", "echo").await;
    assert!(!warm.headers.contains_key("sesemi-init-ms"));
    assert_ne!(
        warm.headers["sesemi-activation"],
        cold.headers["sesemi-activation"]
    );
    let refused = rig.infer("m", "status 418").await;
    assert_eq!((refused.status, refused.text()), (418, "a status"));
}

#[tokio::test]
async fn models_share_an_instance_for_as_long_as_there_is_room() {
    let rig = Rig::new(|_| {}).await;
    let first = rig.infer("a", "pid").await.body;
    for model in ["b", "c", "a", "b"] {
        assert_eq!(rig.infer(model, "pid").await.body, first, "{model}");
    }
}

#[tokio::test]
async fn the_policy_is_the_operators_choice() {
    let rig = Rig::new(|config| config.pool.policy = Policy::OneToOne).await;
    let a = rig.infer("a", "pid").await.body;
    let b = rig.infer("b", "pid").await.body;
    assert_ne!(a, b);
    for _ in 0..3 {
        assert_eq!(rig.infer("a", "pid").await.body, a);
        assert_eq!(rig.infer("b", "pid").await.body, b);
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_code() {
    let rig = Rig::new(|_| {}).await;
    let refusal =
        async |headers: &[(&str, &str)]| rig.spawn(headers, "echo").await.unwrap().refusal();
    let bad_model = (400, "bad_model".to_owned());
    let too_long = "x".repeat(257);
    for model in ["", "a b", "é", too_long.as_str()] {
        assert_eq!(
            refusal(&[("sesemi-model", model)]).await,
            bad_model,
            "{model}"
        );
    }
    assert_eq!(refusal(&[]).await, bad_model);
    assert_eq!(
        refusal(&[("sesemi-model", "a"), ("sesemi-model", "b")]).await,
        bad_model
    );
    for timeout in [
        "",
        "0",
        "-1",
        "+1",
        "1.5",
        "soon",
        "99999999999999999999999",
    ] {
        let refused = refusal(&[("sesemi-model", "m"), ("sesemi-timeout-ms", timeout)]).await;
        assert_eq!(refused, (400, "bad_timeout".to_owned()), "{timeout}");
    }
    assert_eq!(
        rig.get("/nothing").await.refusal(),
        (404, "not_found".to_owned())
    );
    let wrong = rig.get("/v1/infer").await;
    assert_eq!(wrong.refusal(), (405, "method_not_allowed".to_owned()));
    assert_eq!(wrong.headers["allow"], "POST");
}

#[tokio::test]
async fn a_timeout_is_passed_on_and_clamped() {
    let rig = Rig::new(|config| {
        config.http.max_timeout = Duration::from_secs(30);
        config.http.default_timeout = Duration::from_secs(20);
    });
    let rig = rig.await;
    for (asked, most) in [
        (Some("10000"), 10_000),
        (Some("86400000"), 30_000),
        (None, 20_000),
    ] {
        let mut headers = vec![("sesemi-model", "m")];
        headers.extend(asked.map(|asked| ("sesemi-timeout-ms", asked)));
        let left: u64 = rig
            .spawn(&headers, "deadline")
            .await
            .unwrap()
            .text()
            .parse()
            .unwrap();
        assert!(left <= most && left > most / 4, "{left} of {most}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let rig = Rig::new(|config| config.http.max_body_bytes = 1000).await;
    let mut stream = rig.connect().await;
    let head =
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\nsesemi-model: m\r\ncontent-length: 1001\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let answer = rig::read_to_end(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused() {
    let rig = Rig::new(|config| config.http.max_body_bytes = 1000).await;
    let mut stream = rig.connect().await;
    let head = b"POST /v1/infer HTTP/1.1\r\nhost: x\r\nsesemi-model: m\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    stream
        .write_all(format!("3e9\r\n{}", "x".repeat(1001)).as_bytes())
        .await
        .unwrap();
    let answer = rig::read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(rig.infer("m", "x".repeat(1000)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_at_once_share_few_slots() {
    let rig = Rig::new(|config| config.pool.slots = 2).await;
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let model = ["a", "b", "c"][n % 3];
            rig.spawn(&[("sesemi-model", model)], format!("echo {n}"))
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let reply = call.await.unwrap();
        assert_eq!(
            (reply.status, reply.text()),
            (200, format!("echo {n}").as_str())
        );
    }
    assert_eq!(rig.in_flight().await, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_a_deadline_ends_the_wait() {
    let rig = Rig::new(|config| {
        (
            config.pool.endpoints,
            config.pool.slots,
            config.pool.queue_capacity,
        ) = (1, 1, 1)
    });
    let rig = rig.await;
    let gate = Gate::new().await;
    let running = rig.spawn(&[("sesemi-model", "m")], gate.body("x"));
    let held = gate.arrival().await;
    let impatient = rig.spawn(
        &[("sesemi-model", "m"), ("sesemi-timeout-ms", "50")],
        "echo",
    );
    assert_eq!(
        impatient.await.unwrap().refusal(),
        (504, "deadline_exceeded".to_owned())
    );
    let waiting = rig.spawn(&[("sesemi-model", "m")], "echo");
    rig.until_queued(1).await;
    let refused = rig.infer("m", "echo").await;
    assert_eq!(refused.refusal(), (429, "queue_full".to_owned()));
    assert!(
        refused.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >= 1
    );
    held.release().await;
    assert_eq!(
        (running.await.unwrap().status, waiting.await.unwrap().status),
        (200, 200)
    );
}

#[tokio::test]
async fn a_failed_instance_is_a_502_and_the_next_request_is_served() {
    let rig = Rig::new(|config| config.pool.endpoints = 1).await;
    assert_eq!(
        rig.infer("m", "exit").await.refusal(),
        (502, "instance_failed".to_owned())
    );
    assert_eq!(rig.infer("m", "echo").await.status, 200);
}

#[tokio::test]
async fn an_instance_that_does_not_start_is_a_502() {
    let rig = Rig::new(|config| config.pool.image.env = instance::environment("crash")).await;
    assert_eq!(
        rig.infer("m", "echo").await.refusal(),
        (502, "start_failed".to_owned())
    );
    assert_eq!(rig.in_flight().await, 0);
}

#[tokio::test]
async fn status_and_metrics_tell_load_and_no_names() {
    let rig = Rig::new(|_| {}).await;
    rig.infer("very-secret-model", "echo").await;
    rig.infer("very-secret-model", "status 500").await;
    rig.infer("", "echo").await;
    let status = rig.status().await;
    assert_eq!(status["endpoints"][0]["name"], "pool-0");
    assert_eq!(
        (
            &status["endpoints"][0]["models"],
            &status["endpoints"][1]["models"]
        ),
        (&1.into(), &0.into())
    );
    assert_eq!(status["endpoints"][0]["instances"][0]["phase"], "ready");
    assert_eq!(
        (&status["queue"]["length"], &status["draining"]),
        (&0.into(), &false.into())
    );
    let metrics = rig.get("/metrics").await;
    for line in [
        "sesemi_fnpacker_requests_total{outcome=\"answered\"} 2",
        "sesemi_fnpacker_requests_total{outcome=\"bad_model\"} 1",
        "sesemi_fnpacker_cold_starts_total 1",
        "sesemi_fnpacker_request_duration_seconds_count 2",
        "sesemi_fnpacker_queue_length 0",
        "sesemi_fnpacker_in_flight 0",
    ] {
        assert!(
            metrics.text().contains(line),
            "{line} is not in:\n{}",
            metrics.text()
        );
    }
    assert!(!metrics.text().contains("secret") && !status.to_string().contains("secret"));
    assert_eq!(rig.get("/health/live").await.status, 200);
    assert_eq!(rig.get("/health/ready").await.status, 200);
}
