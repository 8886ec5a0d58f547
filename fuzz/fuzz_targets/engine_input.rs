//! [`sesemi_fuzz::engine_input`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::engine_input(bytes));
