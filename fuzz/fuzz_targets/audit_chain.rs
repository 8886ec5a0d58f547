//! [`sesemi_fuzz::audit_chain`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::audit_chain(bytes));
