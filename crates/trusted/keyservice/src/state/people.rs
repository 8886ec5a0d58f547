//! Groups of users, and delegates, each in one owner's namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sesemi_protocol::GroupName;
use sesemi_protocol::command::{Delegation, Role};

use super::grants::Codes;
use super::principals::PrincipalIx;

/// A group's number: its place in the order in which groups came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(pub(crate) u32);

/// A group. It stays when its last member leaves: grants name it.
#[derive(Debug)]
pub struct Group {
    pub(crate) owner: PrincipalIx,
    pub(crate) name: GroupName,
    pub(crate) members: BTreeSet<PrincipalIx>,
}

/// What a delegation gives.
#[derive(Debug)]
pub enum Right {
    /// To grant models in these codes.
    Grantor(Codes),
    /// To look.
    Auditor,
}

impl Right {
    fn role(&self) -> Role {
        match self {
            Self::Grantor(_) => Role::Grantor,
            Self::Auditor => Role::Auditor,
        }
    }

    /// The codes in which it lets models be granted.
    pub(crate) fn codes(&self) -> Option<&Codes> {
        match self {
            Self::Grantor(codes) => Some(codes),
            Self::Auditor => None,
        }
    }

    fn shown(&self) -> Delegation {
        match self {
            Self::Grantor(codes) => Delegation::Grantor {
                codes: codes.as_slice().to_vec(),
            },
            Self::Auditor => Delegation::Auditor,
        }
    }
}

/// Groups and delegations of all owners.
#[derive(Debug, Default)]
pub struct People {
    groups: Vec<Group>,
    by_name: HashMap<PrincipalIx, BTreeMap<GroupName, GroupIx>>,
    /// (user, owner of the group, group)
    memberships: BTreeSet<(PrincipalIx, PrincipalIx, GroupIx)>,
    /// (owner, delegate, role of the right), the right and when it ends.
    delegations: BTreeMap<(PrincipalIx, PrincipalIx, Role), (Right, Option<u64>)>,
}

impl People {
    pub(crate) fn find_group(&self, owner: PrincipalIx, name: &GroupName) -> Option<GroupIx> {
        self.by_name.get(&owner)?.get(name).copied()
    }

    pub(crate) fn group(&self, ix: GroupIx) -> Option<&Group> {
        self.groups.get(usize::try_from(ix.0).ok()?)
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    pub(crate) fn groups_of_owner(&self, owner: PrincipalIx) -> impl Iterator<Item = &Group> {
        let names = self.by_name.get(&owner).into_iter().flatten();
        names.filter_map(|(_, ix)| self.group(*ix))
    }

    pub(crate) fn count_of_owner(&self, owner: PrincipalIx) -> usize {
        self.by_name.get(&owner).map_or(0, BTreeMap::len)
    }

    /// The groups of an owner that a user is in.
    pub(crate) fn groups_with(
        &self,
        user: PrincipalIx,
        owner: PrincipalIx,
    ) -> impl Iterator<Item = GroupIx> {
        self.memberships
            .range((user, owner, GroupIx(0))..=(user, owner, GroupIx(u32::MAX)))
            .map(|(_, _, group)| *group)
    }

    /// All groups that a user is in.
    pub(crate) fn memberships(&self, user: PrincipalIx) -> impl Iterator<Item = GroupIx> {
        let first = (user, PrincipalIx(0), GroupIx(0));
        let last = (user, PrincipalIx(u32::MAX), GroupIx(u32::MAX));
        self.memberships
            .range(first..=last)
            .map(|(_, _, group)| *group)
    }

    pub(crate) fn is_member(
        &self,
        owner: PrincipalIx,
        name: &GroupName,
        user: PrincipalIx,
    ) -> bool {
        let group = self.find_group(owner, name).and_then(|ix| self.group(ix));
        group.is_some_and(|group| group.members.contains(&user))
    }

    /// Whether `delegate` has a role in an owner's namespace now.
    pub(crate) fn has_role(
        &self,
        owner: PrincipalIx,
        delegate: PrincipalIx,
        role: Role,
        now: u64,
    ) -> bool {
        self.right(owner, delegate, role, now).is_some()
    }

    /// The codes in which `delegate` may grant an owner's models now; `None` if it may not at all.
    pub(crate) fn may_grant_in(
        &self,
        owner: PrincipalIx,
        delegate: PrincipalIx,
        now: u64,
    ) -> Option<&Codes> {
        self.right(owner, delegate, Role::Grantor, now)?.codes()
    }

    fn right(
        &self,
        owner: PrincipalIx,
        delegate: PrincipalIx,
        role: Role,
        now: u64,
    ) -> Option<&Right> {
        let (right, expires) = self.delegations.get(&(owner, delegate, role))?;
        expires.is_none_or(|end| now < end).then_some(right)
    }

    pub(crate) fn is_delegated(
        &self,
        owner: PrincipalIx,
        delegate: PrincipalIx,
        role: Role,
    ) -> bool {
        self.delegations.contains_key(&(owner, delegate, role))
    }

    pub(crate) fn delegations_of(
        &self,
        owner: PrincipalIx,
    ) -> impl Iterator<Item = (PrincipalIx, Delegation, Option<u64>)> {
        let first = (owner, PrincipalIx(0), Role::Grantor);
        let last = (owner, PrincipalIx(u32::MAX), Role::Auditor);
        self.delegations
            .range(first..=last)
            .map(|((_, delegate, _), (right, expires))| (*delegate, right.shown(), *expires))
    }

    pub(crate) fn delegations(
        &self,
    ) -> impl ExactSizeIterator<Item = (PrincipalIx, PrincipalIx, &Right, Option<u64>)> {
        self.delegations
            .iter()
            .map(|((owner, delegate, _), (right, expires))| (*owner, *delegate, right, *expires))
    }

    /// Whether there is a number left for one more group.
    pub(crate) fn has_room(&self) -> bool {
        u32::try_from(self.groups.len()).is_ok_and(|count| count < u32::MAX)
    }

    pub(crate) fn push_group(&mut self, owner: PrincipalIx, name: GroupName) -> GroupIx {
        let ix = GroupIx(u32::try_from(self.groups.len()).unwrap_or(u32::MAX));
        self.by_name
            .entry(owner)
            .or_default()
            .insert(name.clone(), ix);
        self.groups.push(Group {
            owner,
            name,
            members: BTreeSet::new(),
        });
        ix
    }

    pub(crate) fn add_member(&mut self, owner: PrincipalIx, name: GroupName, user: PrincipalIx) {
        let ix = match self.find_group(owner, &name) {
            Some(ix) => ix,
            None => self.push_group(owner, name),
        };
        if let Some(group) = self.group_mut(ix) {
            group.members.insert(user);
            self.memberships.insert((user, owner, ix));
        }
    }

    pub(super) fn remove_member(
        &mut self,
        owner: PrincipalIx,
        name: &GroupName,
        user: PrincipalIx,
    ) {
        if let Some(ix) = self.find_group(owner, name)
            && let Some(group) = self.group_mut(ix)
        {
            group.members.remove(&user);
            self.memberships.remove(&(user, owner, ix));
        }
    }

    pub(crate) fn delegate(
        &mut self,
        owner: PrincipalIx,
        to: PrincipalIx,
        right: Right,
        expires: Option<u64>,
    ) {
        self.delegations
            .insert((owner, to, right.role()), (right, expires));
    }

    pub(super) fn end_delegation(&mut self, owner: PrincipalIx, to: PrincipalIx, role: Role) {
        self.delegations.remove(&(owner, to, role));
    }

    fn group_mut(&mut self, ix: GroupIx) -> Option<&mut Group> {
        self.groups.get_mut(usize::try_from(ix.0).ok()?)
    }
}
