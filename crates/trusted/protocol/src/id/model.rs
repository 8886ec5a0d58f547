//! Models: the owner's namespace, versions that never change, and what a request may ask for.

use core::fmt;
use core::str::FromStr;

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};

use super::{AliasName, IdError, ModelName, PrincipalId};

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

impl FromStr for ModelVersion {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::ModelVersion(text.chars().take(20).collect());
        // One spelling for one version: no sign, no leading zero.
        if text.starts_with(['0', '+']) {
            return Err(wrong());
        }
        Self::new(text.parse().map_err(|_| wrong())?)
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

impl FromStr for ModelId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (owner, name) = text
            .split_once('/')
            .ok_or_else(|| IdError::ModelId(text.chars().take(160).collect()))?;
        Ok(Self {
            owner: owner.parse()?,
            name: name.parse()?,
        })
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
        let (model, version) = split(text)?;
        Ok(Self {
            model: model.parse()?,
            version: version.parse()?,
        })
    }
}

/// Which version of a model is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionSelector {
    /// This one.
    Exact(ModelVersion),
    /// The one that the owner's alias points to when keys are released.
    Alias(AliasName),
}

impl fmt::Display for VersionSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => version.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

impl FromStr for VersionSelector {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match AliasName::new(text) {
            Ok(alias) => Ok(Self::Alias(alias)),
            Err(_) => text.parse().map(Self::Exact),
        }
    }
}

/// A version is an unsigned integer, an alias a text: nothing stands for both.
impl<C> Encode<C> for VersionSelector {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            Self::Exact(version) => version.encode(e, ctx),
            Self::Alias(alias) => alias.encode(e, ctx),
        }
    }
}

impl<'b, C> Decode<'b, C> for VersionSelector {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.datatype()? {
            Type::String => AliasName::decode(d, ctx).map(Self::Alias),
            _ => ModelVersion::decode(d, ctx).map(Self::Exact),
        }
    }
}

/// What a request asks for: a version of a model, by its number or by an alias. Its text form is `OWNER/NAME@VERSION` or
/// `OWNER/NAME@ALIAS`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ModelTarget {
    /// The model.
    #[n(0)]
    pub model: ModelId,
    /// Which version of it.
    #[n(1)]
    pub version: VersionSelector,
}

impl From<ModelRef> for ModelTarget {
    fn from(model: ModelRef) -> Self {
        Self {
            model: model.model,
            version: VersionSelector::Exact(model.version),
        }
    }
}

impl fmt::Display for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.model, self.version)
    }
}

impl fmt::Debug for ModelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelTarget({self})")
    }
}

impl FromStr for ModelTarget {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (model, version) = split(text)?;
        Ok(Self {
            model: model.parse()?,
            version: version.parse()?,
        })
    }
}

/// Parts `OWNER/NAME@VERSION` at its `@`.
fn split(text: &str) -> Result<(&str, &str), IdError> {
    text.split_once('@')
        .ok_or_else(|| IdError::ModelRef(text.chars().take(160).collect()))
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
    fn a_version_has_one_spelling() {
        let owner = "ab".repeat(32);
        for bad in ["0", "01", "+1", "", "-1", "4294967296", "1 "] {
            assert!(
                format!("{owner}/m@{bad}").parse::<ModelRef>().is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_target_is_a_version_or_an_alias_and_both_have_one_encoding() {
        let owner = "ab".repeat(32);
        for (text, selector) in [("7", true), ("stable", false)] {
            let target: ModelTarget = format!("{owner}/m@{text}").parse().unwrap();
            assert_eq!(
                matches!(target.version, VersionSelector::Exact(_)),
                selector
            );
            assert_eq!(target.to_string(), format!("{owner}/m@{text}"));
            let bytes = crate::cbor::encode(&target).unwrap();
            assert_eq!(
                crate::cbor::decode::<ModelTarget>(&bytes, 200).unwrap(),
                target
            );
        }
        for bad in ["0", "07", "Stable", "", "@1"] {
            assert!(format!("{owner}/m@{bad}").parse::<ModelTarget>().is_err());
        }
        // An exact target is spelled like the version itself.
        let exact: ModelRef = format!("{owner}/m@7").parse().unwrap();
        assert_eq!(
            *crate::cbor::encode(&ModelTarget::from(exact.clone())).unwrap(),
            *crate::cbor::encode(&exact).unwrap()
        );
    }
}
