//! [`sesemi_fuzz::cose_encrypt0`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::cose_encrypt0(bytes));
