//! Messages that name sealed requests and responses instead of holding them.

use sesemi_protocol::cose::encrypt0;
use sesemi_protocol::limits::{MAX_ENVELOPE, MAX_OBJECT_NAME, MAX_REFERENCE};
use sesemi_protocol::reference::{ObjectName, Reference, Stored};

/// Reads the bytes as a reference, as its answer and as a name. What is accepted has one spelling, is no sealed request, and leads
/// nowhere but below where its store begins.
pub fn reference(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(name) = ObjectName::new(text)
    {
        assert_eq!(name.as_str(), text);
        stays_below(&name);
    }
    if let Ok(reference) = Reference::decode(bytes) {
        assert!(bytes.len() <= MAX_REFERENCE);
        assert!(Reference::is_one(bytes));
        assert!(encrypt0::parse(bytes).is_err());
        assert_ne!(reference.request, reference.response);
        stays_below(&reference.request);
        stays_below(&reference.response);
        assert_eq!(reference.encode().unwrap().as_slice(), bytes);
    }
    if let Ok(stored) = Stored::decode(bytes) {
        assert!(stored.length <= MAX_ENVELOPE as u64);
        stays_below(&stored.response);
        assert_eq!(stored.encode().unwrap().as_slice(), bytes);
        // A host cannot pass one off as the other.
        assert!(Reference::decode(bytes).is_err());
    }
}

fn stays_below(name: &ObjectName) {
    assert!(name.as_str().len() <= MAX_OBJECT_NAME);
    for part in name.as_str().split('/') {
        assert!(!part.is_empty() && !part.starts_with('.'), "{name}");
    }
}

pub(crate) fn reference_seeds() -> Vec<Vec<u8>> {
    let name = |text: &str| ObjectName::new(text).unwrap();
    let reference = Reference {
        request: name("2026/a.request"),
        response: name("2026/a.response"),
    };
    let stored = Stored {
        response: name("a"),
        length: 1 << 20,
    };
    vec![
        reference.encode().unwrap().to_vec(),
        stored.encode().unwrap().to_vec(),
        b"a/b/c/d".to_vec(),
        b"\xa2\x00\x62..\x01\x61b".to_vec(),
    ]
}
