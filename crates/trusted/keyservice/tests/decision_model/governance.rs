//! Custodians: who may name them, what they approve, and that none of them can undo what the others did.

use sesemi_protocol::audit::Record;
use sesemi_protocol::command::{Action, KeyScope};
use sesemi_protocol::{CodeIdentityDigest, Digest, PrincipalId, RefusalCode};

use crate::world::{code, id, key, peopled, point, put, put_key, run};

fn custodians(of: &[usize]) -> Action {
    let mut custodians: Vec<PrincipalId> = of.iter().copied().map(id).collect();
    custodians.sort_unstable();
    Action::NameCustodians {
        custodians,
        threshold: 2,
    }
}

fn approve(n: usize) -> Action {
    Action::ApproveUpgrade {
        code: CodeIdentityDigest([u8::try_from(n).unwrap(); 32]),
        policy: Digest([1; 32]),
    }
}

fn build(n: u8) -> (CodeIdentityDigest, Digest) {
    (CodeIdentityDigest([n; 32]), Digest([1; 32]))
}

#[test]
fn a_custodian_cannot_crowd_out_what_others_approved() {
    let mut state = peopled();
    run(&mut state, 0, custodians(&[0, 1, 2]), 1).unwrap();
    run(&mut state, 0, approve(200), 1).unwrap();
    for n in 0..100 {
        run(&mut state, 2, approve(n), 1).unwrap();
        let waiting = state.governance().approvals().count();
        assert!(waiting <= 3, "{waiting} upgrades wait");
    }
    run(&mut state, 1, approve(200), 1).unwrap();
    assert!(state.governance().is_approved(&build(200)));
}

#[test]
fn an_approval_can_be_taken_back_before_it_was_used() {
    let mut state = peopled();
    run(&mut state, 0, custodians(&[0, 1, 2]), 1).unwrap();
    run(&mut state, 0, approve(1), 1).unwrap();
    run(&mut state, 1, approve(1), 1).unwrap();
    assert!(state.governance().is_approved(&build(1)));
    // A hole was found in it.
    run(&mut state, 0, approve(2), 1).unwrap();
    assert!(!state.governance().is_approved(&build(1)));
    assert!(!state.governance().is_approved(&build(2)));
}

#[test]
fn one_custodian_never_counts_twice_and_nobody_else_counts() {
    let mut state = peopled();
    run(&mut state, 0, custodians(&[0, 1]), 1).unwrap();
    for _ in 0..3 {
        run(&mut state, 0, approve(1), 1).unwrap();
    }
    let by_another = run(&mut state, 2, approve(1), 1);
    assert_eq!(by_another, Err(RefusalCode::NotPermitted));
    assert!(!state.governance().is_approved(&build(1)));
}

#[test]
fn custodians_are_named_once_and_before_the_first_key() {
    let late = Err(RefusalCode::AlreadyExists);
    let mut state = peopled();
    run(&mut state, 0, custodians(&[0, 1]), 1).unwrap();
    assert_eq!(run(&mut state, 1, custodians(&[1, 2]), 1), late);

    let mut state = peopled();
    run(&mut state, 2, put("m", 1), 1).unwrap();
    assert_eq!(run(&mut state, 0, custodians(&[0, 1]), 1), late);

    let mut state = peopled();
    run(&mut state, 2, put_key(KeyScope::AllModels, 1), 1).unwrap();
    assert_eq!(run(&mut state, 0, custodians(&[0, 1]), 1), late);
}

#[test]
fn approvals_do_not_outlive_the_change_that_they_were_for() {
    let (code, policy) = (code(1), key(1));
    for record in [
        Record::TookOver { code, policy },
        Record::Recovered {
            code,
            policy,
            shares: vec![1, 2],
        },
    ] {
        let mut state = peopled();
        run(&mut state, 0, custodians(&[0, 1]), 1).unwrap();
        run(&mut state, 0, approve(1), 1).unwrap();
        run(&mut state, 1, approve(1), 1).unwrap();
        state.apply_record(&Record::HandedOver { code, policy }, point(90), 1);
        let refused = run(&mut state, 0, put("m", 1), 1);
        assert_eq!(refused, Err(RefusalCode::HandedOver));
        state.apply_record(&record, point(91), 1);
        assert!(!state.governance().is_approved(&build(1)));
        assert_eq!(state.governance().code(), code);
        assert_eq!(state.governance().policy(), policy);
        run(&mut state, 0, put("m", 1), 1).unwrap();
    }
}
