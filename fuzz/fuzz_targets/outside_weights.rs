//! [`sesemi_fuzz::outside_weights`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::outside_weights(bytes));
