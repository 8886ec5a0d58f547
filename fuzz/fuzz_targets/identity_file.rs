//! [`sesemi_fuzz::identity_file`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::identity_file(bytes));
