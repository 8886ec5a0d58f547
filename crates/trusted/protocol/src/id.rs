//! Who and what: every id is a type of its own, of fixed or bounded length, so that one can never stand for another and
//! nothing is ever found by joining strings.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};
use ring::digest::{SHA256, digest};

use crate::limits::MAX_MODEL_NAME;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the right number of hexadecimal digits.
    #[error("{what} must be {digits} hexadecimal digits, 0-9 and a-f")]
    Hex {
        /// The kind of id.
        what: &'static str,
        /// How many digits it has.
        digits: usize,
    },
    /// A model name has a character or a length that is not allowed.
    #[error(
        "model name '{0}' must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit"
    )]
    ModelName(String),
    /// A version is not a number from 1.
    #[error("model version '{0}' must be a whole number from 1")]
    ModelVersion(String),
    /// A model reference is not `OWNER/NAME@VERSION`.
    #[error("model '{0}' must be written OWNER/NAME@VERSION, the owner as 64 hexadecimal digits")]
    ModelRef(String),
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The raw bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people; never to be compared.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(self.0.get(..4).unwrap_or_default())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = || IdError::Hex {
                    what: $what,
                    digits: $length * 2,
                };
                // One id, one spelling: capitals are refused.
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(wrong());
                }
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| wrong())?;
                Ok(Self(bytes))
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                <[u8; $length]>::try_from(d.bytes()?).map(Self).map_err(|_| {
                    minicbor::decode::Error::message(concat!($what, " has another length"))
                })
            }
        }
    };
}

byte_id!(
    /// A model owner or user: the SHA-256 of its Ed25519 public key.
    PrincipalId, 32, "a principal id"
);
byte_id!(
    /// One KeyService, for its whole life: the SHA-256 of its Ed25519 identity key, which is sealed to its enclave.
    ServiceId, 32, "a service id"
);
byte_id!(
    /// What owners and users approve: the SHA-256 of the canonical CBOR of a code identity (the paper's enclave identity).
    CodeIdentityDigest, 32, "a code identity"
);
byte_id!(
    /// A SHA-256 digest.
    Digest, 32, "a digest"
);
byte_id!(
    /// Names one request; random, chosen by the user's client.
    RequestId, 16, "a request id"
);

impl Digest {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // The digest of SHA-256 has 32 bytes by definition; zip cannot go out of bounds whatever the provider gives.
    for (to, from) in out.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

/// The name of a model within its owner's namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelName(String);

impl ModelName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`IdError::ModelName`] unless it is 1 to 64 characters of `a-z0-9._-` that begin with a letter or digit. Names
    /// become parts of object-store paths: the rule leaves no room for `..`, separators or case folding.
    pub fn new(name: &str) -> Result<Self, IdError> {
        let first = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest = name.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        });
        if first && rest && name.len() <= MAX_MODEL_NAME {
            Ok(Self(name.to_owned()))
        } else {
            let shown = name.chars().take(80).collect();
            Err(IdError::ModelName(shown))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelName({})", self.0)
    }
}

impl FromStr for ModelName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl<C> Encode<C> for ModelName {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ModelName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.str()?).map_err(|_| minicbor::decode::Error::message("not a model name"))
    }
}

/// The version of a model, from 1. A version never changes once it is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelVersion(core::num::NonZeroU32);

impl ModelVersion {
    /// Takes a version number.
    ///
    /// # Errors
    /// [`IdError::ModelVersion`] for 0.
    pub fn new(version: u32) -> Result<Self, IdError> {
        core::num::NonZeroU32::new(version)
            .map(Self)
            .ok_or_else(|| IdError::ModelVersion(version.to_string()))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for ModelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C> Encode<C> for ModelVersion {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u32(self.get())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ModelVersion {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.u32()?).map_err(|_| minicbor::decode::Error::message("versions begin at 1"))
    }
}

/// A model: its owner and its name. Two owners may use one name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ModelId {
    /// Who owns it.
    #[n(0)]
    pub owner: PrincipalId,
    /// Its name in the owner's namespace.
    #[n(1)]
    pub name: ModelName,
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl fmt::Debug for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelId({self})")
    }
}

/// One version of a model. Its text form is `OWNER/NAME@VERSION`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ModelRef {
    /// The model.
    #[n(0)]
    pub model: ModelId,
    /// Which version of it.
    #[n(1)]
    pub version: ModelVersion,
}

impl ModelRef {
    /// Puts the parts together.
    #[must_use]
    pub fn new(owner: PrincipalId, name: ModelName, version: ModelVersion) -> Self {
        Self {
            model: ModelId { owner, name },
            version,
        }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.model, self.version)
    }
}

impl fmt::Debug for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelRef({self})")
    }
}

impl FromStr for ModelRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::ModelRef(text.chars().take(160).collect());
        let (owner, rest) = text.split_once('/').ok_or_else(error)?;
        let (name, version) = rest.split_once('@').ok_or_else(error)?;
        // One spelling for one version: no sign, no leading zero.
        if version.starts_with(['0', '+']) {
            return Err(IdError::ModelVersion(version.chars().take(20).collect()));
        }
        let version = version
            .parse()
            .map_err(|_| IdError::ModelVersion(version.chars().take(20).collect()))?;
        Ok(Self::new(
            owner.parse()?,
            name.parse()?,
            ModelVersion::new(version)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_reference_reads_back_as_written() {
        let text = format!("{}/breast-cancer@3", "ab".repeat(32));
        let model: ModelRef = text.parse().unwrap();
        assert_eq!(model.to_string(), text);
        assert_eq!(model.version.get(), 3);
    }

    #[test]
    fn names_that_could_be_paths_or_joined_strings_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "A",
            "a b",
            "-a",
            "a@1",
            "ä",
            &"a".repeat(65),
        ] {
            assert!(ModelName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_has_one_spelling() {
        let owner = "ab".repeat(32);
        for bad in ["0", "01", "+1", "", "-1", "4294967296", "1 "] {
            assert!(
                format!("{owner}/m@{bad}").parse::<ModelRef>().is_err(),
                "{bad}"
            );
        }
    }
}
