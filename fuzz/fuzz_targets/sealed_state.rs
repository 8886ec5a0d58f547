//! [`sesemi_fuzz::sealed_state`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::sealed_state(bytes));
