//! [`sesemi_fuzz::engine_model`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::engine_model(bytes));
