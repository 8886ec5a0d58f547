//! [`sesemi_fuzz::reference`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::reference(bytes));
