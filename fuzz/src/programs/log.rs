//! Entries of KeyService's log, once unsealed.

use sesemi_keyservice::log::Entry;
use sesemi_protocol::limits::MAX_SIGNED;
use sesemi_protocol::{cbor, command};

use crate::samples;

/// Reads the bytes as a log entry. What is accepted has one spelling, and its command is read like any other.
pub fn log_entry(bytes: &[u8]) {
    let Ok(entry) = cbor::decode::<Entry>(bytes, MAX_SIGNED + 1024) else {
        return;
    };
    assert_eq!(cbor::encode(&entry).unwrap().as_slice(), bytes);
    if let Ok(command) = command::parse(&entry.signed) {
        let _ = command.verify_registration();
    }
}

pub(crate) fn log_entry_seeds() -> Vec<Vec<u8>> {
    let entry = |signed: Vec<u8>| Entry {
        signed: signed.into(),
        accepted: 1_790_000_000,
    };
    let encode = |signed| cbor::encode(&entry(signed)).unwrap().to_vec();
    let commands = samples::vectors(samples::SIGNED, &["bytes"]);
    commands.into_iter().map(encode).collect()
}
