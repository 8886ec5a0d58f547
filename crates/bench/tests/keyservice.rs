//! The benchmark of KeyService in small: every figure is measured. What they come to is not judged here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::process::Command;

#[test]
fn every_figure_has_its_samples() {
    let output = Command::new(env!("CARGO_BIN_EXE_sesemi-bench"))
        .args(["keyservice", "--grants", "2000", "--rounds", "2"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let metrics = report["metrics"].as_array().unwrap();
    for name in [
        "keyservice.release_ms_p50",
        "keyservice.release_ms_p99",
        "keyservice.release_growth",
        "keyservice.durable_ratio",
        "keyservice.startup_s",
        "keyservice.startup_after_kill_s",
        "keyservice.bytes_per_grant",
    ] {
        let metric = metrics.iter().find(|metric| metric["name"] == name);
        let samples = metric.expect(name)["samples"].as_array().unwrap();
        assert!(!samples.is_empty(), "{name}");
        let measured = samples.iter().all(|sample| sample.as_f64().unwrap() > 0.0);
        assert!(measured, "{name}: {samples:?}");
    }
}
