//! [`sesemi_fuzz::state_history`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::state_history(bytes));
