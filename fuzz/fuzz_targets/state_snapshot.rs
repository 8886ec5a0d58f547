//! [`sesemi_fuzz::state_snapshot`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::state_snapshot(bytes));
