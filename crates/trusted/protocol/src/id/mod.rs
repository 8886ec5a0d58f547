//! Who and what: every id is a type of its own, of fixed or bounded length, so that one can never stand for another and
//! nothing is ever found by joining strings.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};
use ring::digest::{Context, SHA256, digest};

mod model;
mod name;

pub use model::{ModelId, ModelRef, ModelTarget, ModelVersion, VersionSelector};
pub use name::{AliasName, GroupName, ModelName};

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
    /// A name has a character or a length that is not allowed.
    #[error(
        "{what} '{name}' must be 1 to 64 characters of a-z, 0-9, '.', '_' and '-', and begin with {begin}"
    )]
    Name {
        /// The kind of name.
        what: &'static str,
        /// The text that is not one, cut to 80 characters.
        name: String,
        /// What such a name begins with.
        begin: &'static str,
    },
    /// A version is not a number from 1.
    #[error("model version '{0}' must be a whole number from 1")]
    ModelVersion(String),
    /// A model reference is not `OWNER/NAME@VERSION`.
    #[error("model '{0}' must be written OWNER/NAME@VERSION, the owner as 64 hexadecimal digits")]
    ModelRef(String),
    /// A model is not `OWNER/NAME`.
    #[error("model '{0}' must be written OWNER/NAME, the owner as 64 hexadecimal digits")]
    ModelId(String),
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

    /// SHA-256 of pieces, one after the other.
    #[must_use]
    pub fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        pieces.into_iter().for_each(|piece| context.update(piece));
        Self(to_array(context.finish().as_ref()))
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    to_array(digest(&SHA256, bytes).as_ref())
}

fn to_array(digest: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // The digest of SHA-256 has 32 bytes by definition; zip cannot go out of bounds whatever the provider gives.
    for (to, from) in out.iter_mut().zip(digest) {
        *to = *from;
    }
    out
}
