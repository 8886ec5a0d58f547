//! [`sesemi_fuzz::model_input`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::model_input(bytes));
