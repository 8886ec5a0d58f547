//! The key by which requests for the same model are recognised. It is used for placement only: what it says is not
//! believed, and a wrong one costs time, never secrecy.

use std::fmt;
use std::sync::Arc;

/// An opaque model key: 1 to 256 visible ASCII characters. Cheap to clone. `Debug` does not show it: which models there
/// are is nobody's business but their owners'.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey(Arc<[u8]>);

/// Bytes that are no [`ModelKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a model key has 1 to 256 visible ASCII characters")]
pub struct InvalidModelKey;

impl ModelKey {
    /// Longest key, in characters.
    pub const MAX_LEN: usize = 256;

    /// Checks `key` and takes a copy.
    pub fn new(key: &[u8]) -> Result<Self, InvalidModelKey> {
        if key.is_empty() || key.len() > Self::MAX_LEN || !key.iter().all(u8::is_ascii_graphic) {
            return Err(InvalidModelKey);
        }
        Ok(Self(key.into()))
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_256_visible_characters() {
        for good in [&b"m"[..], b"owner/model@3", &[b'~'; 256]] {
            assert!(ModelKey::new(good).is_ok());
        }
        for bad in [
            &b""[..],
            b"a b",
            b"a\t",
            b"a\n",
            "é".as_bytes(),
            &[b'x'; 257],
        ] {
            assert_eq!(ModelKey::new(bad), Err(InvalidModelKey), "{bad:?}");
        }
    }
}
