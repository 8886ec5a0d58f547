//! [`sesemi_fuzz::ids`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::ids(bytes));
