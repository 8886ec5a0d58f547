//! Requests by reference: the sealed request lies in an object store, and a small message names it and where the sealed response
//! is to be put.
//!
//! What lies there are the bytes that would have been sent, so a reference need not be trusted: whoever changes it can have another
//! sealed request answered, or none. It is told from a sealed request by its first byte, because hosts between do not keep
//! media types.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};
use zeroize::Zeroizing;

use crate::cbor::{self, CborError};
use crate::id::{IdError, ModelName};
use crate::limits::{MAX_ENVELOPE, MAX_OBJECT_NAME, MAX_REFERENCE};

/// Media type of both messages, for people who look; nothing depends on it.
pub const MEDIA_TYPE: &str = "application/vnd.sesemi.reference+cbor";
/// What a CBOR map of two begins with. A sealed request begins with the tag of `COSE_Encrypt0`, 0xd0.
const MAP_OF_TWO: u8 = 0xa2;
/// Most parts of a name.
const MAX_PARTS: usize = 4;

/// The name of an object that is exchanged: 1 to 4 parts, joined by `/`, each 1 to 64 characters of `a-z0-9._-` that begin with a
/// letter or digit, and at most 128 bytes in all. It can lead nowhere but below where the store begins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

impl ObjectName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`IdError::Name`].
    pub fn new(name: &str) -> Result<Self, IdError> {
        // The rule for a part is that for models' names, so it is theirs.
        let good = name.len() <= MAX_OBJECT_NAME
            && name.split('/').count() <= MAX_PARTS
            && name.split('/').all(|part| ModelName::new(part).is_ok());
        if good {
            return Ok(Self(name.into()));
        }
        Err(IdError::Name {
            what: "object name",
            name: name.chars().take(80).collect(),
            begin: "a letter or digit in each of its 1 to 4 parts",
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectName({})", self.0)
    }
}

impl FromStr for ObjectName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl<C> Encode<C> for ObjectName {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ObjectName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let name = Self::new(d.str()?);
        name.map_err(|_| minicbor::decode::Error::message("not an object name"))
    }
}

/// Why a message about objects is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is not of its form.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// Request and response would be one object.
    #[error(
        "the request and its response cannot be the same object; name another for the response"
    )]
    SameObject,
    /// The length is none that a sealed message can have.
    #[error("a sealed response cannot have {0} bytes")]
    Length(u64),
}

/// Where a sealed request lies, and where its response goes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reference {
    /// The sealed request.
    #[n(0)]
    pub request: ObjectName,
    /// The sealed response; nothing may be there.
    #[n(1)]
    pub response: ObjectName,
}

impl Reference {
    /// Whether a message is a reference rather than a sealed request. Not whether it is a good one.
    #[must_use]
    pub fn is_one(message: &[u8]) -> bool {
        message.first() == Some(&MAP_OF_TWO)
    }

    /// Reads a reference.
    ///
    /// # Errors
    /// [`ReferenceError::Cbor`], [`ReferenceError::SameObject`].
    pub fn decode(message: &[u8]) -> Result<Self, ReferenceError> {
        let reference: Self = cbor::decode(message, MAX_REFERENCE)?;
        if reference.request == reference.response {
            return Err(ReferenceError::SameObject);
        }
        Ok(reference)
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`CborError::Encode`], which does not happen.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, CborError> {
        cbor::encode(self)
    }
}

/// The answer to a reference: the sealed response is there.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Stored {
    /// The sealed response, as the reference named it.
    #[n(0)]
    pub response: ObjectName,
    /// Its length, in bytes.
    #[n(1)]
    pub length: u64,
}

impl Stored {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`ReferenceError::Cbor`]; [`ReferenceError::Length`] above [`MAX_ENVELOPE`].
    pub fn decode(message: &[u8]) -> Result<Self, ReferenceError> {
        let stored: Self = cbor::decode(message, MAX_REFERENCE)?;
        if stored.length > MAX_ENVELOPE as u64 {
            return Err(ReferenceError::Length(stored.length));
        }
        Ok(stored)
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`CborError::Encode`], which does not happen.
    pub fn encode(&self) -> Result<Zeroizing<Vec<u8>>, CborError> {
        cbor::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text).unwrap()
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long_part = "a".repeat(65);
        let long = ["a".repeat(64), "b".repeat(64)].join("/");
        let bad = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/../b",
            ".a",
            "a/.b",
            "A",
            "a b",
            "a\\b",
            "a#1",
            "a%2fb",
            "a\0",
            "é",
            "a/b/c/d/e",
            &long_part,
            &long,
        ];
        for bad in bad {
            assert!(ObjectName::new(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a",
            "0",
            "a/b/c/d",
            "2026-11-23/a..b.request",
            &"a".repeat(64),
        ] {
            assert_eq!(name(good).as_str(), good);
        }
    }

    #[test]
    fn a_reference_has_one_spelling_and_is_never_a_sealed_request() {
        let reference = Reference {
            request: name("a"),
            response: name("b"),
        };
        let bytes = reference.encode().unwrap();
        assert_eq!(bytes.as_slice(), [0xa2, 0x00, 0x61, b'a', 0x01, 0x61, b'b']);
        assert!(Reference::is_one(&bytes));
        assert_eq!(Reference::decode(&bytes).unwrap(), reference);
        for bad in [
            &[][..],
            &[0xa2],
            &[0xa1, 0x00, 0x61, b'a'],
            &[0xa2, 0x01, 0x61, b'b', 0x00, 0x61, b'a'],
            &[0xa2, 0x00, 0x61, b'a', 0x01, 0x61, b'b', 0x00],
            &[0xa2, 0x00, 0x61, b'.', 0x01, 0x61, b'b'],
            &[0xa2, 0x00, 0x41, b'a', 0x01, 0x61, b'b'],
            &[0xa3, 0x00, 0x61, b'a', 0x01, 0x61, b'b', 0x02, 0x00],
        ] {
            assert!(Reference::decode(bad).is_err(), "{bad:x?}");
        }
        let same = [0xa2, 0x00, 0x61, b'a', 0x01, 0x61, b'a'];
        assert_eq!(Reference::decode(&same), Err(ReferenceError::SameObject));
        assert!(!Reference::is_one(&[0xd0, 0x83]));
        assert!(!Reference::is_one(&[]));
    }

    #[test]
    fn an_answer_cannot_announce_more_than_a_message_may_have() {
        let stored = |length| Stored {
            response: name("b"),
            length,
        };
        let most = stored(MAX_ENVELOPE as u64);
        assert_eq!(Stored::decode(&most.encode().unwrap()).unwrap(), most);
        let above = stored(MAX_ENVELOPE as u64 + 1).encode().unwrap();
        let length = MAX_ENVELOPE as u64 + 1;
        assert_eq!(Stored::decode(&above), Err(ReferenceError::Length(length)));
    }
}
