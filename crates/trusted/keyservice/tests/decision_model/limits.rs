//! How much there can be of everything, and that the limit is one for each, not for all.

use sesemi_keyservice::state::State;
use sesemi_keyservice::state::check::{
    MAX_ALIASES, MAX_DELEGATIONS, MAX_GRANTS, MAX_MEMBERSHIPS, MAX_REQUEST_KEYS, MAX_VERSIONS,
};
use sesemi_protocol::RefusalCode;
use sesemi_protocol::command::{Action, Delegation, KeyScope, Subject};

use crate::world::{grant, id, join, peopled, put, put_key, run, set_alias, stranger};

/// That the first `most` of these actions of person 0 are carried out, and no more.
fn no_more_than(state: &mut State, most: usize, action: impl Fn(usize) -> Action) {
    for n in 0..most {
        run(state, 0, action(n), 1).unwrap();
    }
    let refused = run(state, 0, action(most), 1);
    assert_eq!(refused, Err(RefusalCode::TooMany));
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap() + 1
}

#[test]
fn a_model_has_so_many_versions_and_aliases_and_a_retired_one_counts() {
    let mut state = peopled();
    no_more_than(&mut state, MAX_VERSIONS, |n| put("m", number(n)));
    let retire = Action::RetireModel {
        name: crate::world::model("m"),
        version: crate::world::version(7),
    };
    run(&mut state, 0, retire, 1).unwrap();
    let again = put("m", number(MAX_VERSIONS));
    assert_eq!(run(&mut state, 0, again, 1), Err(RefusalCode::TooMany));
    run(&mut state, 0, put("n", 1), 1).unwrap();

    no_more_than(&mut state, MAX_ALIASES, |n| {
        set_alias("m", &format!("a{n}"), 1)
    });
    // Those that are there can still be moved.
    run(&mut state, 0, set_alias("m", "a0", 2), 1).unwrap();
    run(&mut state, 0, set_alias("n", "a0", 1), 1).unwrap();
}

#[test]
fn a_model_has_so_many_grants_for_one_subject_and_a_revoked_one_makes_room() {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    run(&mut state, 0, put("n", 1), 1).unwrap();
    let to = |n| Subject::User(id(n));
    no_more_than(&mut state, MAX_GRANTS, |_| grant(0, "m", to(1)));
    run(&mut state, 0, grant(0, "m", to(2)), 1).unwrap();
    run(&mut state, 0, grant(0, "n", to(1)), 1).unwrap();
    let last = state.point().sequence;
    let first = last - 1 - MAX_GRANTS as u64;
    let revoke = Action::Revoke {
        owner: id(0),
        grants: vec![first],
    };
    run(&mut state, 0, revoke, 1).unwrap();
    run(&mut state, 0, grant(0, "m", to(1)), 1).unwrap();
}

#[test]
fn a_user_is_in_so_many_groups_of_one_owner() {
    let mut state = peopled();
    no_more_than(&mut state, MAX_MEMBERSHIPS, |n| {
        join(0, &format!("g{n}"), id(1))
    });
    run(&mut state, 1, join(1, "g", id(1)), 1).unwrap();
    run(&mut state, 0, join(0, "g0", id(2)), 1).unwrap();
    let leave = Action::RemoveMember {
        owner: id(0),
        group: crate::world::group("g0"),
        user: id(1),
    };
    run(&mut state, 0, leave, 1).unwrap();
    run(&mut state, 0, join(0, "another", id(1)), 1).unwrap();
}

#[test]
fn an_owner_has_so_many_delegates() {
    let mut state = peopled();
    let crowd: Vec<_> = (0..=MAX_DELEGATIONS)
        .map(|n| stranger(&mut state, n).principal_id())
        .collect();
    let delegate = |n: usize| Action::Delegate {
        to: crowd[n],
        delegation: Delegation::Auditor,
        expires: None,
    };
    no_more_than(&mut state, MAX_DELEGATIONS, delegate);
    // A role that was given can be given anew.
    run(&mut state, 0, delegate(0), 1).unwrap();
}

#[test]
fn a_user_has_so_many_request_keys_and_the_same_one_can_still_be_deposited_again() {
    let mut state = peopled();
    let key = |n| put_key(KeyScope::AllModels, number(n));
    no_more_than(&mut state, MAX_REQUEST_KEYS, key);
    run(&mut state, 0, key(0), 1).unwrap();
    run(&mut state, 1, key(0), 1).unwrap();
}
