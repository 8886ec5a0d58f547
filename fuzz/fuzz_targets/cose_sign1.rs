//! [`sesemi_fuzz::cose_sign1`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::cose_sign1(bytes));
