//! The attesters of real TEEs, on machines that misbehave: a kernel that is busy, races, hangs, lies or breaks, a library OS
//! with the wrong manifest, a simulator that is none. Hardware is not needed; what is not tested here is that hardware
//! behaves as its makers' documents say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod configfs;
mod detection;
mod gramine;
mod kernel;
mod real;
mod sealing;
mod simulated;

use std::time::{Duration, Instant};

use sesemi_attest::AttesterError;

/// Long enough that it never passes in a test that passes.
const AMPLE: Duration = Duration::from_secs(600);
/// Short enough to wait for, where something hangs.
const SOON: Duration = Duration::from_millis(300);

/// After this a test that waits for something has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries until something comes of it: this machine may be slow now.
fn patiently<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain");
        std::thread::yield_now();
    }
}

/// What was found, or `None` if the machine was too slow for the deadline.
fn in_time<T>(result: Result<T, AttesterError>) -> Option<T> {
    match result {
        Err(AttesterError::TimedOut(_)) => None,
        other => Some(other.unwrap_or_else(|error| panic!("{error}"))),
    }
}

/// Report data that differs in every byte.
fn report_data(seed: u8) -> [u8; 64] {
    core::array::from_fn(|at| seed.wrapping_add(u8::try_from(at).unwrap()))
}

/// A quote of SGX as far as an attester looks at it.
fn sgx_quote(report_data: &[u8; 64], security_version: u16) -> Vec<u8> {
    let mut quote = vec![0; 1000];
    quote[..8].copy_from_slice(&[3, 0, 2, 0, 0, 0, 0, 0]);
    quote[306..308].copy_from_slice(&security_version.to_le_bytes());
    quote[368..432].copy_from_slice(report_data);
    quote
}

/// A quote of TDX as far as an attester looks at it.
fn tdx_quote(version: u8, report_data: &[u8; 64]) -> Vec<u8> {
    let mut quote = vec![0; 5000];
    quote[..8].copy_from_slice(&[version, 0, 2, 0, 0x81, 0, 0, 0]);
    let at = if version == 5 { 574 } else { 568 };
    quote[at..at + 64].copy_from_slice(report_data);
    quote
}

/// A report of SEV-SNP as far as an attester looks at it.
fn snp_report(report_data: &[u8; 64]) -> Vec<u8> {
    let mut report = vec![0; 1184];
    report[0] = 2;
    report[0x50..0x90].copy_from_slice(report_data);
    report
}

/// A host's table with one certificate.
fn certificate_table(guid: &str, certificate: &[u8]) -> Vec<u8> {
    let guid = hex::decode(guid.replace('-', "")).unwrap();
    let length = u32::try_from(certificate.len()).unwrap();
    let entry = [&guid[..], &48_u32.to_le_bytes(), &length.to_le_bytes()].concat();
    [&entry[..], &[0; 24], certificate].concat()
}

const VCEK: &str = "63da758d-e664-4564-adc5-f4b93be8accd";
const VLEK: &str = "a8074bc2-a25a-483e-aae6-39c045a0b8a1";
