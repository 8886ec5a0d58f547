//! Who is registered. Ids are long, so everybody gets a short number here, by which the other tables name them.

use std::collections::HashMap;

use sesemi_protocol::{PrincipalId, PublicIdentity};

/// A registered principal's number: its place in the order of registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalIx(pub(crate) u32);

/// A registered principal.
#[derive(Debug, Clone)]
pub struct Principal {
    pub(crate) id: PrincipalId,
    pub(crate) identity: PublicIdentity,
    pub(crate) last_sequence: u64,
    pub(crate) last_position: u64,
}

impl Principal {
    /// Its public key.
    #[must_use]
    pub fn identity(&self) -> &PublicIdentity {
        &self.identity
    }

    /// Sequence of the last command that was accepted from it.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Where that command stands in the log.
    #[must_use]
    pub fn last_position(&self) -> u64 {
        self.last_position
    }
}

/// All registered principals.
#[derive(Debug, Default)]
pub struct Principals {
    all: Vec<Principal>,
    by_id: HashMap<PrincipalId, PrincipalIx>,
}

impl Principals {
    /// A principal by its id.
    #[must_use]
    pub fn get(&self, id: &PrincipalId) -> Option<&Principal> {
        self.at(self.find(id)?)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn find(&self, id: &PrincipalId) -> Option<PrincipalIx> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn at(&self, ix: PrincipalIx) -> Option<&Principal> {
        self.all.get(usize::try_from(ix.0).ok()?)
    }

    pub(crate) fn id(&self, ix: PrincipalIx) -> Option<PrincipalId> {
        self.at(ix).map(|principal| principal.id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Principal> {
        self.all.iter()
    }

    /// Whether there is a number left for one more.
    pub(crate) fn has_room(&self) -> bool {
        u32::try_from(self.all.len()).is_ok_and(|count| count < u32::MAX)
    }

    /// A command of this principal was accepted: registers it if it is new.
    pub(crate) fn accepted(
        &mut self,
        id: PrincipalId,
        identity: &PublicIdentity,
        sequence: u64,
        position: u64,
    ) -> PrincipalIx {
        let ix = match self.by_id.get(&id) {
            Some(ix) => *ix,
            None => self.push(Principal {
                id,
                identity: *identity,
                last_sequence: 0,
                last_position: 0,
            }),
        };
        let place = usize::try_from(ix.0).ok();
        if let Some(principal) = place.and_then(|place| self.all.get_mut(place)) {
            principal.last_sequence = sequence;
            principal.last_position = position;
        }
        ix
    }

    pub(crate) fn push(&mut self, principal: Principal) -> PrincipalIx {
        let ix = PrincipalIx(u32::try_from(self.all.len()).unwrap_or(u32::MAX));
        self.by_id.insert(principal.id, ix);
        self.all.push(principal);
        ix
    }
}
