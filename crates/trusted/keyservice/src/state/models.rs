//! Models: versions with their keys, aliases, and how long their keys are leased.

use std::collections::{BTreeMap, HashMap};

use sesemi_protocol::{
    AliasName, Digest, Isolation, ModelName, ModelVersion, SecretKey, VersionSelector,
};

use super::principals::PrincipalIx;

/// A model's number: its place in the order in which models came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelIx(pub(crate) u32);

/// A version that may be used.
#[derive(Debug)]
pub struct Version {
    /// Opens its package.
    pub key: SecretKey,
    /// Digest of the manifest in its package.
    pub manifest: Digest,
    /// What its owner asked for.
    pub isolation: Isolation,
}

/// A model.
#[derive(Debug)]
pub struct Model {
    pub(crate) owner: PrincipalIx,
    pub(crate) name: ModelName,
    /// `None`: retired. Its number is never used again.
    pub(crate) versions: BTreeMap<ModelVersion, Option<Version>>,
    pub(crate) aliases: BTreeMap<AliasName, ModelVersion>,
    pub(crate) lease_seconds: Option<u32>,
}

impl Model {
    /// A version that was not retired.
    #[must_use]
    pub fn version(&self, version: ModelVersion) -> Option<&Version> {
        self.versions.get(&version)?.as_ref()
    }

    /// What a selector means now, if it is there and not retired.
    #[must_use]
    pub fn select(&self, selector: &VersionSelector) -> Option<(ModelVersion, &Version)> {
        let number = match selector {
            VersionSelector::Exact(version) => *version,
            VersionSelector::Alias(alias) => *self.aliases.get(alias)?,
        };
        self.version(number).map(|version| (number, version))
    }
}

/// All models.
#[derive(Debug, Default)]
pub struct Models {
    all: Vec<Model>,
    by_name: HashMap<PrincipalIx, BTreeMap<ModelName, ModelIx>>,
}

impl Models {
    pub(crate) fn find(&self, owner: PrincipalIx, name: &ModelName) -> Option<ModelIx> {
        self.by_name.get(&owner)?.get(name).copied()
    }

    pub(crate) fn at(&self, ix: ModelIx) -> Option<&Model> {
        self.all.get(usize::try_from(ix.0).ok()?)
    }

    pub(crate) fn get(&self, owner: PrincipalIx, name: &ModelName) -> Option<&Model> {
        self.at(self.find(owner, name)?)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Model> {
        self.all.iter()
    }

    /// An owner's models in the order of their names, those after `after`.
    pub(crate) fn of_owner<'s>(
        &'s self,
        owner: PrincipalIx,
        after: Option<&'s ModelName>,
    ) -> impl Iterator<Item = &'s Model> {
        let names = self.by_name.get(&owner).into_iter().flatten();
        names
            .filter(move |(name, _)| after.is_none_or(|after| *name > after))
            .filter_map(|(_, ix)| self.at(*ix))
    }

    pub(crate) fn count_of_owner(&self, owner: PrincipalIx) -> usize {
        self.by_name.get(&owner).map_or(0, BTreeMap::len)
    }

    /// Whether there is a number left for one more.
    pub(crate) fn has_room(&self) -> bool {
        u32::try_from(self.all.len()).is_ok_and(|count| count < u32::MAX)
    }

    pub(crate) fn push(&mut self, model: Model) -> ModelIx {
        let ix = ModelIx(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.by_name
            .entry(model.owner)
            .or_default()
            .insert(model.name.clone(), ix);
        self.all.push(model);
        ix
    }

    fn get_mut(&mut self, owner: PrincipalIx, name: &ModelName) -> Option<&mut Model> {
        let ix = self.find(owner, name)?;
        self.all.get_mut(usize::try_from(ix.0).ok()?)
    }

    pub(super) fn put(
        &mut self,
        owner: PrincipalIx,
        name: ModelName,
        number: ModelVersion,
        version: Version,
    ) {
        if self.find(owner, &name).is_none() {
            self.push(Model {
                owner,
                name: name.clone(),
                versions: BTreeMap::new(),
                aliases: BTreeMap::new(),
                lease_seconds: None,
            });
        }
        if let Some(model) = self.get_mut(owner, &name) {
            model.versions.insert(number, Some(version));
        }
    }

    pub(super) fn retire(&mut self, owner: PrincipalIx, name: &ModelName, version: ModelVersion) {
        if let Some(model) = self.get_mut(owner, name) {
            model.versions.insert(version, None);
            model.aliases.retain(|_, target| *target != version);
        }
    }

    pub(super) fn set_alias(
        &mut self,
        owner: PrincipalIx,
        name: &ModelName,
        alias: AliasName,
        version: ModelVersion,
    ) {
        if let Some(model) = self.get_mut(owner, name) {
            model.aliases.insert(alias, version);
        }
    }

    pub(super) fn remove_alias(&mut self, owner: PrincipalIx, name: &ModelName, alias: &AliasName) {
        if let Some(model) = self.get_mut(owner, name) {
            model.aliases.remove(alias);
        }
    }

    pub(super) fn set_lease(&mut self, owner: PrincipalIx, name: &ModelName, seconds: Option<u32>) {
        if let Some(model) = self.get_mut(owner, name) {
            model.lease_seconds = seconds;
        }
    }
}
