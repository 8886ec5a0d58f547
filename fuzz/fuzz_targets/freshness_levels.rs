//! [`sesemi_fuzz::freshness_levels`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::freshness_levels(bytes));
