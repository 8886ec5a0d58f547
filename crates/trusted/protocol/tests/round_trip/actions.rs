//! Any command that makes sense.

use proptest::option::of;
use proptest::prelude::*;
use sesemi_protocol::command::{
    Action, Command, Delegation, GrantedVersions, KeyScope, Role, Subject,
};

use crate::ids::{
    alias, ascending, code, digest, group, isolation, model, name, note, point, principal, service,
    version,
};

prop_compose! {
    pub(crate) fn command()(service in service(), sequence: u64, seen in point(), action in action()) -> Command {
        Command { service, sequence, seen, action }
    }
}

pub(crate) fn versions() -> impl Strategy<Value = GrantedVersions> {
    prop_oneof![
        Just(GrantedVersions::All),
        version().prop_map(GrantedVersions::Exact),
        alias().prop_map(GrantedVersions::Alias),
    ]
}

pub(crate) fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        principal().prop_map(Subject::User),
        group().prop_map(Subject::Group),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Grantor), Just(Role::Auditor)]
}

pub(crate) fn delegation() -> impl Strategy<Value = Delegation> {
    prop_oneof![
        ascending(code(), 1..=64).prop_map(|codes| Delegation::Grantor { codes }),
        Just(Delegation::Auditor),
    ]
}

pub(crate) fn scope() -> impl Strategy<Value = KeyScope> {
    prop_oneof![Just(KeyScope::AllModels), model().prop_map(KeyScope::Model),]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![models(), grants(), people(), request_keys(), custodians()]
}

fn models() -> impl Strategy<Value = Action> {
    let put = (name(), version(), digest(), digest(), isolation());
    prop_oneof![
        any::<[u8; 32]>().prop_map(|public_key| Action::Register { public_key }),
        put.prop_map(
            |(name, version, key, manifest, isolation)| Action::PutModel {
                name,
                version,
                key,
                manifest,
                isolation
            }
        ),
        (name(), version()).prop_map(|(name, version)| Action::RetireModel { name, version }),
        (name(), alias(), version()).prop_map(|(name, alias, version)| Action::SetAlias {
            name,
            alias,
            version
        }),
        (name(), alias()).prop_map(|(name, alias)| Action::RemoveAlias { name, alias }),
        (name(), of(1..=3600_u32)).prop_map(|(name, seconds)| Action::SetLease { name, seconds }),
    ]
}

prop_compose! {
    fn grant()(
        owner in principal(), name in name(), versions in versions(), subject in subject(),
        codes in ascending(code(), 1..=64), expires: Option<u64>, note in note(),
    ) -> Action {
        Action::Grant { owner, name, versions, subject, codes, expires, note }
    }
}

fn grants() -> impl Strategy<Value = Action> {
    let revoke = (principal(), ascending(any::<u64>(), 1..=256));
    prop_oneof![
        grant(),
        revoke.prop_map(|(owner, grants)| Action::Revoke { owner, grants }),
    ]
}

fn people() -> impl Strategy<Value = Action> {
    let member = || (principal(), group(), principal());
    prop_oneof![
        member().prop_map(|(owner, group, user)| Action::AddMember { owner, group, user }),
        member().prop_map(|(owner, group, user)| Action::RemoveMember { owner, group, user }),
        (principal(), delegation(), any::<Option<u64>>()).prop_map(|(to, delegation, expires)| {
            Action::Delegate {
                to,
                delegation,
                expires,
            }
        }),
        (principal(), role()).prop_map(|(to, role)| Action::EndDelegation { to, role }),
    ]
}

prop_compose! {
    fn request_key()(
        scope in scope(), epoch in 1..=u32::MAX, key in digest(), codes in ascending(code(), 1..=64),
        isolation in isolation(), earlier_end: Option<u64>,
    ) -> Action {
        Action::PutRequestKey { scope, epoch, key, codes, isolation, earlier_end }
    }
}

fn request_keys() -> impl Strategy<Value = Action> {
    let end = (scope(), any::<u32>(), any::<u64>());
    prop_oneof![
        request_key(),
        end.prop_map(|(scope, epoch, at)| Action::EndRequestKey { scope, epoch, at }),
    ]
}

fn custodians() -> impl Strategy<Value = Action> {
    let named = ascending(principal(), 2..=16).prop_flat_map(|custodians| {
        let all = u8::try_from(custodians.len()).unwrap();
        (Just(custodians), 2..=all)
    });
    prop_oneof![
        named.prop_map(|(custodians, threshold)| Action::NameCustodians {
            custodians,
            threshold
        }),
        (code(), digest()).prop_map(|(code, policy)| Action::ApproveUpgrade { code, policy }),
    ]
}
