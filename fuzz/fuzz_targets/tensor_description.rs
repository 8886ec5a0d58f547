//! [`sesemi_fuzz::tensor_description`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::tensor_description(bytes));
