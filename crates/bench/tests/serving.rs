//! The benchmarks of serving in small, with the deployed program and a tiny model: every figure is measured. What they come to is not
//! judged here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::Command;

use serde_json::Value;

fn measured(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sesemi-bench"))
        .args(arguments)
        .args(["--engine", "rten", "--threads", "2", "--model", "tiny"])
        .arg("--semirt")
        .arg(sesemi_testkit::binaries().join("sesemi-semirt"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks that a figure has so many samples, all of them measured.
fn must_have(report: &Value, name: &str, count: usize) {
    let metrics = report["metrics"].as_array().unwrap();
    let metric = metrics.iter().find(|metric| metric["name"] == name);
    let samples = metric.expect(name)["samples"].as_array().unwrap();
    assert_eq!(samples.len(), count, "{name}");
    let measured = samples.iter().all(|sample| sample.as_f64().unwrap() > 0.0);
    assert!(measured, "{name}: {samples:?}");
}

#[test]
fn hot_requests_are_measured_with_their_steps() {
    let report = measured(&["hot", "--runs", "1"]);
    assert_eq!(
        (&report["tee"], &report["engine"], &report["threads"]),
        (&"simulated".into(), &"rten".into(), &2.into())
    );
    must_have(&report, "hot.tiny_ms.rten", 50);
    let steps = report["metrics"].as_array().unwrap().iter();
    let steps = steps.filter(|it| it["explains"] == "hot.tiny_ms.rten");
    assert!(steps.count() > 5);
}

#[test]
fn cold_starts_are_measured_next_to_a_bound_of_their_own() {
    let report = measured(&["cold", "--runs", "2"]);
    for name in [
        "cold.bound_ratio.tiny.rten",
        "cold.whole_ms.tiny.rten",
        "cold.bound_ms.tiny.rten",
        "cold.until_it_listens_ms.tiny.rten",
        "cold.step_key_ms.tiny.rten",
    ] {
        must_have(&report, name, 2);
    }
}

#[test]
fn four_at_once_are_measured_in_memory_and_throughput() {
    let report = measured(&["memory", "--runs", "1"]);
    must_have(&report, "memory.concurrent_ratio.tiny.rten", 1);
    must_have(&report, "memory.sharing_ratio.tiny.rten", 1);
    let report = measured(&["throughput", "--runs", "1"]);
    must_have(&report, "throughput.ratio.tiny.rten", 1);
}

#[test]
fn a_soak_serves_what_was_asked_for_and_looks_at_memory() {
    let report = measured(&["soak", "--requests", "1000"]);
    must_have(&report, "soak.rss_mib.tiny.rten", 20);
    let metrics = report["metrics"].as_array().unwrap();
    let slope = metrics
        .iter()
        .find(|it| it["name"] == "soak.rss_slope_kib_per_1e5.tiny.rten");
    assert!(slope.unwrap()["samples"][0].is_f64());
}
