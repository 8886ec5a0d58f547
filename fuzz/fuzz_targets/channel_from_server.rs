//! [`sesemi_fuzz::channel_from_server`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::channel_from_server(bytes));
