//! [`sesemi_fuzz::settings_files`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::settings_files(bytes));
