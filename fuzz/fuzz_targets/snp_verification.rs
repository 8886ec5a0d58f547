//! [`sesemi_fuzz::snp_verification`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::snp_verification(bytes));
