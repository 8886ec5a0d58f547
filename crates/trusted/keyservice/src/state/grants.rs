//! Grants, indexed by whom they are for and by whose model they are about.
//!
//! A service may hold millions: names are short numbers, sets of code identities are kept once.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use sesemi_protocol::CodeIdentityDigest;
use sesemi_protocol::command::GrantedVersions;

use super::models::ModelIx;
use super::people::GroupIx;
use super::principals::PrincipalIx;

/// Whom a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantSubject {
    /// A user.
    User(PrincipalIx),
    /// The members of a group.
    Group(GroupIx),
}

/// A set of code identities, in ascending order; equal sets are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Codes(Arc<[CodeIdentityDigest]>);

impl Codes {
    /// Whether the set holds this code.
    #[must_use]
    pub fn contains(&self, code: &CodeIdentityDigest) -> bool {
        self.0.binary_search(code).is_ok()
    }

    /// The codes, in ascending order.
    #[must_use]
    pub fn as_slice(&self) -> &[CodeIdentityDigest] {
        &self.0
    }
}

/// The sets of code identities in use.
#[derive(Debug, Default)]
pub struct CodeSets(HashMap<Arc<[CodeIdentityDigest]>, ()>);

/// Sets beyond this number are looked through for such that nobody uses any more.
const SWEEP_ABOVE: usize = 1024;

impl CodeSets {
    /// The one set of these codes, which are in ascending order.
    pub(crate) fn intern(&mut self, codes: Vec<CodeIdentityDigest>) -> Codes {
        if let Some((known, ())) = self.0.get_key_value(codes.as_slice()) {
            return Codes(known.clone());
        }
        if self.0.len() >= SWEEP_ABOVE && self.0.len().is_power_of_two() {
            self.0.retain(|set, ()| Arc::strong_count(set) > 1);
        }
        let set: Arc<[CodeIdentityDigest]> = codes.into();
        self.0.insert(set.clone(), ());
        Codes(set)
    }
}

/// A grant.
#[derive(Debug)]
pub struct Grant {
    pub(crate) owner: PrincipalIx,
    pub(crate) model: ModelIx,
    pub(crate) versions: GrantedVersions,
    pub(crate) subject: GrantSubject,
    pub(crate) codes: Codes,
    pub(crate) expires: Option<u64>,
    pub(crate) note: Option<Box<str>>,
    pub(crate) by: PrincipalIx,
}

/// All grants, by their ids.
#[derive(Debug, Default)]
pub struct Grants {
    all: BTreeMap<u64, Grant>,
    by_subject: BTreeSet<(GrantSubject, ModelIx, u64)>,
    /// The same in the order of their ids, for listing.
    in_order: BTreeSet<(GrantSubject, u64)>,
    by_owner: BTreeSet<(PrincipalIx, u64)>,
    pub(crate) codes: CodeSets,
}

impl Grants {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Grant> {
        self.all.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Grant)> {
        self.all.iter().map(|(id, grant)| (*id, grant))
    }

    /// Grants of a model for a subject, in ascending order of their ids.
    pub(crate) fn of(
        &self,
        subject: GrantSubject,
        model: ModelIx,
    ) -> impl Iterator<Item = (u64, &Grant)> {
        self.by_subject
            .range((subject, model, 0)..=(subject, model, u64::MAX))
            .filter_map(|(_, _, id)| self.get(*id).map(|grant| (*id, grant)))
    }

    /// The grants for any of some subjects with ids above `after`, in ascending order, each once.
    ///
    /// Anybody can grant its models to anybody: however many grants there are for a subject, only those that are taken are
    /// looked at.
    pub(crate) fn of_subjects(
        &self,
        subjects: impl Iterator<Item = GrantSubject>,
        after: u64,
    ) -> impl Iterator<Item = (u64, &Grant)> {
        let first = after.saturating_add(1);
        // The next grant of each subject, the lowest id on top.
        let mut next: BinaryHeap<Reverse<(u64, GrantSubject)>> = subjects
            .filter_map(|subject| Some(Reverse((self.next_of(subject, first)?, subject))))
            .collect();
        core::iter::from_fn(move || {
            let Reverse((id, subject)) = next.pop()?;
            if let Some(following) = self.next_of(subject, id.saturating_add(1)) {
                next.push(Reverse((following, subject)));
            }
            Some(id)
        })
        .filter_map(|id| self.get(id).map(|grant| (id, grant)))
    }

    /// The lowest id, from `first` on, of a grant for a subject.
    fn next_of(&self, subject: GrantSubject, first: u64) -> Option<u64> {
        let mut from = self.in_order.range((subject, first)..=(subject, u64::MAX));
        from.next().map(|(_, id)| *id)
    }

    /// An owner's grants with ids above `after`, in ascending order.
    pub(crate) fn of_owner(
        &self,
        owner: PrincipalIx,
        after: u64,
    ) -> impl Iterator<Item = (u64, &Grant)> {
        self.by_owner
            .range((owner, after.saturating_add(1))..=(owner, u64::MAX))
            .filter_map(|(_, id)| self.get(*id).map(|grant| (*id, grant)))
    }

    pub(crate) fn insert(&mut self, id: u64, grant: Grant) {
        self.by_subject.insert((grant.subject, grant.model, id));
        self.in_order.insert((grant.subject, id));
        self.by_owner.insert((grant.owner, id));
        self.all.insert(id, grant);
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(grant) = self.all.remove(&id) {
            self.by_subject.remove(&(grant.subject, grant.model, id));
            self.in_order.remove(&(grant.subject, id));
            self.by_owner.remove(&(grant.owner, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_of_codes_are_kept_once_and_unused_ones_are_dropped() {
        let set = |n: u32| {
            let mut code = [0; 32];
            code[..4].copy_from_slice(&n.to_be_bytes());
            vec![CodeIdentityDigest(code)]
        };
        let mut sets = CodeSets::default();
        let kept = sets.intern(set(0));
        assert!(Arc::ptr_eq(&kept.0, &sets.intern(set(0)).0));
        for n in 1..10_000 {
            let _dropped = sets.intern(set(n));
        }
        assert!(sets.0.len() <= 2 * SWEEP_ABOVE, "{}", sets.0.len());
        assert!(Arc::ptr_eq(&kept.0, &sets.intern(set(0)).0));
    }
}
