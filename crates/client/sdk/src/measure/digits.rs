//! Bytes of a fixed length, written as hexadecimal digits in TOML and JSON.

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

/// So many bytes as hexadecimal digits.
#[derive(Clone, Copy)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Default for Hex<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; N];
        match hex::decode_to_slice(&text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(hex::FromHexError::InvalidHexCharacter { c, index }) => Err(D::Error::custom(
                format!("{c:?} at place {index} is no hexadecimal digit"),
            )),
            Err(_) => Err(D::Error::custom(format!(
                "expected {} hexadecimal digits ({N} bytes), found {}",
                N.saturating_mul(2),
                text.chars().count()
            ))),
        }
    }
}
