//! Names that owners choose: of models, of aliases and of groups. One rule for all, one type for each.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};

use super::IdError;
use crate::limits::MAX_NAME;

/// 1 to 64 characters of `a-z0-9._-`. Names become parts of object-store paths and of texts with `/` and `@`: the rule leaves
/// no room for `..`, separators or case folding.
fn is_name(name: &str, begins: impl Fn(u8) -> bool) -> bool {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= MAX_NAME && name.bytes().next().is_some_and(begins) && name.bytes().all(allowed)
}

fn letter_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn letter(byte: u8) -> bool {
    byte.is_ascii_lowercase()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $begins:path, $begin:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            #[doc = concat!("[`IdError::Name`] unless it is 1 to 64 characters of `a-z0-9._-` that begin with ", $begin, ".")]
            pub fn new(name: &str) -> Result<Self, IdError> {
                if is_name(name, $begins) {
                    Ok(Self(name.into()))
                } else {
                    Err(IdError::Name {
                        what: $what,
                        name: name.chars().take(80).collect(),
                        begin: $begin,
                    })
                }
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::new(d.str()?).map_err(|_| {
                    minicbor::decode::Error::message(concat!("not a ", $what))
                })
            }
        }
    };
}

name!(
    /// The name of a model within its owner's namespace.
    ModelName, "model name", letter_or_digit, "a letter or digit"
);
name!(
    /// A name that points to a version of a model and can be moved to another. It begins with a letter, so that it can never
    /// be taken for a version number.
    AliasName, "alias", letter, "a letter"
);
name!(
    /// The name of a group of users within its owner's namespace.
    GroupName, "group name", letter_or_digit, "a letter or digit"
);

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(AliasName::new(bad).is_err(), "{bad}");
            assert!(GroupName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_alias_is_never_a_version_number() {
        assert!(ModelName::new("1").is_ok());
        assert!(AliasName::new("1").is_err());
        assert!(AliasName::new("stable").is_ok());
    }
}
