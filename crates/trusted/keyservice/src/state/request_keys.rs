//! Users' request keys, by scope and epoch. A key that has ended is forgotten; that it was there is not, so that its epoch
//! never comes back with another key.

use std::collections::BTreeMap;

use sesemi_protocol::{Isolation, SecretKey};

use super::grants::Codes;
use super::models::ModelIx;
use super::principals::PrincipalIx;

/// Which models' requests a key seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyFor {
    /// One model's.
    Model(ModelIx),
    /// All models'.
    AllModels,
}

/// A request key.
#[derive(Debug)]
pub struct RequestKey {
    /// Seals requests; `None` once it has ended and was forgotten.
    pub(crate) key: Option<SecretKey>,
    /// The code that may open them.
    pub(crate) codes: Codes,
    /// What the user asked for.
    pub(crate) isolation: Isolation,
    /// When it ends.
    pub(crate) ends: Option<u64>,
}

impl RequestKey {
    /// The key, unless it has ended.
    #[must_use]
    pub fn live(&self, now: u64) -> Option<&SecretKey> {
        let ended = self.ends.is_some_and(|end| end <= now);
        self.key.as_ref().filter(|_| !ended)
    }
}

/// All request keys.
#[derive(Debug, Default)]
pub struct RequestKeys(BTreeMap<(PrincipalIx, KeyFor, u32), RequestKey>);

impl RequestKeys {
    pub(crate) fn get(&self, user: PrincipalIx, scope: KeyFor, epoch: u32) -> Option<&RequestKey> {
        self.0.get(&(user, scope, epoch))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A user's keys of one scope, the newest epoch first.
    pub(crate) fn of_scope(
        &self,
        user: PrincipalIx,
        scope: KeyFor,
    ) -> impl Iterator<Item = (u32, &RequestKey)> {
        self.0
            .range((user, scope, 0)..=(user, scope, u32::MAX))
            .rev()
            .map(|((_, _, epoch), key)| (*epoch, key))
    }

    /// All keys of a user.
    pub(crate) fn of_user(
        &self,
        user: PrincipalIx,
    ) -> impl Iterator<Item = (KeyFor, u32, &RequestKey)> {
        let first = (user, KeyFor::Model(ModelIx(0)), 0);
        let last = (user, KeyFor::AllModels, u32::MAX);
        self.0
            .range(first..=last)
            .map(|((_, scope, epoch), key)| (*scope, *epoch, key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PrincipalIx, KeyFor, u32, &RequestKey)> {
        self.0
            .iter()
            .map(|((user, scope, epoch), key)| (*user, *scope, *epoch, key))
    }

    pub(crate) fn insert(&mut self, user: PrincipalIx, scope: KeyFor, epoch: u32, key: RequestKey) {
        self.0.insert((user, scope, epoch), key);
    }

    /// Deposits a key, and lets the earlier ones of its scope end no later than `earlier_end`.
    pub(super) fn put(&mut self, user: PrincipalIx, put: Put) {
        let Put {
            scope,
            epoch,
            key,
            codes,
            isolation,
            earlier_end,
            now,
        } = put;
        if let Some(end) = earlier_end {
            for (_, earlier) in self.0.range_mut((user, scope, 0)..(user, scope, epoch)) {
                earlier.end(end, now);
            }
        }
        // The same key again, for other code or otherwise isolated: when it ends stays as it was.
        let ends = self.get(user, scope, epoch).and_then(|known| known.ends);
        let key = RequestKey {
            key: Some(key),
            codes,
            isolation,
            ends,
        };
        self.insert(user, scope, epoch, key);
    }

    pub(super) fn end(&mut self, user: PrincipalIx, scope: KeyFor, epoch: u32, end: u64, now: u64) {
        if let Some(key) = self.0.get_mut(&(user, scope, epoch)) {
            key.end(end, now);
        }
    }

    pub(super) fn forget_ended(&mut self, now: u64) {
        for key in self.0.values_mut() {
            if key.ends.is_some_and(|end| end <= now) {
                key.key = None;
            }
        }
    }
}

/// A deposit.
pub(super) struct Put {
    pub(super) scope: KeyFor,
    pub(super) epoch: u32,
    pub(super) key: SecretKey,
    pub(super) codes: Codes,
    pub(super) isolation: Isolation,
    pub(super) earlier_end: Option<u64>,
    pub(super) now: u64,
}

impl RequestKey {
    /// An end can be moved forward, never back: what was promised to end ends.
    fn end(&mut self, end: u64, now: u64) {
        let end = end.max(now);
        self.ends = Some(self.ends.map_or(end, |known| known.min(end)));
        if end <= now {
            self.key = None;
        }
    }
}
