//! [`sesemi_fuzz::log_entry`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::log_entry(bytes));
