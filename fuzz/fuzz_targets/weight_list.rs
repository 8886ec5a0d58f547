//! [`sesemi_fuzz::weight_list`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::weight_list(bytes));
