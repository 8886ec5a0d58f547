//! [`sesemi_fuzz::appraisal_policy`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::appraisal_policy(bytes));
