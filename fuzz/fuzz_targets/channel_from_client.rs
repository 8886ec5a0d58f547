//! [`sesemi_fuzz::channel_from_client`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sesemi_fuzz::channel_from_client(bytes));
