//! [`sesemi_fuzz::package_header`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::package_header(bytes));
