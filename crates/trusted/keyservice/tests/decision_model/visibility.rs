//! Who may see what and who may do what, by its role and while that lasts.

use sesemi_keyservice::answers::{Asker, answer, may_audit};
use sesemi_keyservice::state::State;
use sesemi_protocol::command::{Action, Delegation, Role, Subject};
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::{CodeIdentityDigest, PrincipalId, PublicIdentity, RefusalCode};

use crate::world::{
    LEASE, code, delegation, exact, grant, group, id, join, model, peopled, put, run, set_alias,
    stranger, submit, target, version,
};

pub(crate) fn ask(
    state: &State,
    who: PrincipalId,
    now: u64,
    question: &Question,
) -> Result<QueryAnswer, RefusalCode> {
    let asker = Asker {
        id: who,
        now,
        lease_seconds: LEASE,
    };
    answer(state, asker, question).map(Option::unwrap)
}

const ENDS: u64 = 100;

/// Person 0 owns a model; a grantor, an auditor, and the same whose roles end; and a user who is only granted.
struct Office {
    state: State,
    roles: Vec<(PublicIdentity, Option<Role>, bool)>,
}

fn office() -> Office {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    run(&mut state, 0, grant(0, "m", Subject::User(id(1))), 1).unwrap();
    let mut roles = Vec::new();
    for role in [Some(Role::Grantor), Some(Role::Auditor), None] {
        for for_ever in [true, false] {
            let who = stranger(&mut state, roles.len());
            if let Some(role) = role {
                let delegate = Action::Delegate {
                    to: who.principal_id(),
                    delegation: delegation(role),
                    expires: (!for_ever).then_some(ENDS),
                };
                run(&mut state, 0, delegate, 1).unwrap();
            }
            roles.push((who, role, for_ever));
        }
    }
    Office { state, roles }
}

fn about_the_owner() -> Vec<Question> {
    let owner = id(0);
    vec![
        Question::Grants {
            owner,
            name: None,
            after: 0,
        },
        Question::Models { owner, after: None },
        Question::People { owner, after: 0 },
        Question::Explain {
            user: id(1),
            model: target(0, "m", exact(1)),
            code: code(0),
            key: None,
        },
    ]
}

#[test]
fn an_owner_its_grantors_and_its_auditors_see_its_affairs_while_their_roles_last_and_nobody_else() {
    let office = office();
    let refused = Err(RefusalCode::NotPermitted);
    for question in about_the_owner() {
        for now in [ENDS - 1, ENDS, ENDS + 1] {
            assert!(ask(&office.state, id(0), now, &question).is_ok());
            for (who, role, for_ever) in &office.roles {
                let answer = ask(&office.state, who.principal_id(), now, &question);
                if role.is_some() && (*for_ever || now < ENDS) {
                    assert!(answer.is_ok(), "{question:?}");
                } else {
                    assert_eq!(answer, refused, "{question:?}");
                }
            }
        }
        // Who is granted something is a stranger otherwise, and so is another owner.
        let own = matches!(question, Question::Explain { .. });
        assert_eq!(ask(&office.state, id(1), 1, &question).is_ok(), own);
        assert_eq!(ask(&office.state, id(2), 1, &question), refused);
        // Who is not registered learns nothing at all.
        let unknown = ask(&office.state, id(3), 1, &question);
        assert_eq!(unknown, Err(RefusalCode::UnknownPrincipal));
    }
}

#[test]
fn the_log_is_for_its_principal_and_its_auditors() {
    let office = office();
    let may = |who, now| {
        let asker = Asker {
            id: who,
            now,
            lease_seconds: LEASE,
        };
        may_audit(&office.state, asker, &id(0))
    };
    for now in [ENDS - 1, ENDS] {
        assert_eq!(may(id(0), now), Ok(()));
        for (who, role, for_ever) in &office.roles {
            let audits = *role == Some(Role::Auditor) && (*for_ever || now < ENDS);
            assert_eq!(may(who.principal_id(), now).is_ok(), audits);
        }
        for other in [1, 2, 3] {
            assert_eq!(may(id(other), now), Err(RefusalCode::NotPermitted));
        }
    }
}

#[test]
fn a_role_with_one_owner_says_nothing_about_another() {
    let mut office = office();
    run(&mut office.state, 2, put("m", 1), 1).unwrap();
    let other = Question::Grants {
        owner: id(2),
        name: None,
        after: 0,
    };
    for (who, _, _) in &office.roles {
        let answer = ask(&office.state, who.principal_id(), 1, &other);
        assert_eq!(answer, Err(RefusalCode::NotPermitted));
        // Nor may it do anything there.
        let granted = submit(
            &mut office.state,
            who,
            grant(2, "m", Subject::User(id(1))),
            1,
        );
        assert_eq!(granted, Err(RefusalCode::NotPermitted));
    }
}

#[test]
fn a_delegate_grants_and_nothing_else_and_passes_nothing_on() {
    let mut office = office();
    let (grantor, auditor) = (office.roles[0].0, office.roles[2].0);
    let to = Subject::User(id(1));
    let granted = submit(&mut office.state, &auditor, grant(0, "m", to.clone()), 1);
    assert_eq!(granted, Err(RefusalCode::NotPermitted));
    submit(&mut office.state, &grantor, grant(0, "m", to.clone()), 1).unwrap();
    // What a delegate delegates is its own namespace.
    let delegate = Action::Delegate {
        to: auditor.principal_id(),
        delegation: delegation(Role::Grantor),
        expires: None,
    };
    submit(&mut office.state, &grantor, delegate, 1).unwrap();
    let granted = submit(&mut office.state, &auditor, grant(0, "m", to), 1);
    assert_eq!(granted, Err(RefusalCode::NotPermitted));
    // The model, its aliases and its lease are the owner's: the grantor has none of that name.
    for action in [
        set_alias("m", "stable", 1),
        Action::RetireModel {
            name: model("m"),
            version: version(1),
        },
        Action::SetLease {
            name: model("m"),
            seconds: Some(3600),
        },
    ] {
        let refused = submit(&mut office.state, &grantor, action, 1);
        assert_eq!(refused, Err(RefusalCode::UnknownModel));
    }
}

/// A grant of the owner's model to a user, in these codes.
fn grant_in(codes: &[CodeIdentityDigest]) -> Action {
    let mut action = grant(0, "m", Subject::User(id(1)));
    if let Action::Grant { codes: of, .. } = &mut action {
        *of = codes.to_vec();
    }
    action
}

fn let_grant(to: &PublicIdentity, codes: &[CodeIdentityDigest], expires: Option<u64>) -> Action {
    Action::Delegate {
        to: to.principal_id(),
        delegation: Delegation::Grantor {
            codes: codes.to_vec(),
        },
        expires,
    }
}

#[test]
fn a_delegate_grants_in_code_of_its_delegation_only_and_the_owner_in_any() {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    let [a, b, own] = [code(0), code(1), code(2)];
    let (delegate, other) = (stranger(&mut state, 0), stranger(&mut state, 1));
    run(&mut state, 0, let_grant(&delegate, &[a, b], None), 1).unwrap();
    run(&mut state, 0, let_grant(&other, &[own], None), 1).unwrap();
    for inside in [&[a][..], &[b], &[a, b]] {
        submit(&mut state, &delegate, grant_in(inside), 1).unwrap();
    }
    // Neither alone nor among approved code, nor because another delegate, or an auditor, may.
    for outside in [&[own][..], &[a, own], &[a, b, own]] {
        let refused = submit(&mut state, &delegate, grant_in(outside), 1);
        assert_eq!(refused, Err(RefusalCode::CodeNotDelegated));
        run(&mut state, 0, grant_in(outside), 1).unwrap();
    }
    submit(&mut state, &other, grant_in(&[own]), 1).unwrap();
    let refused = submit(&mut state, &other, grant_in(&[a]), 1);
    assert_eq!(refused, Err(RefusalCode::CodeNotDelegated));
    // Nobody approved code for whoever is no delegate.
    let refused = run(&mut state, 2, grant_in(&[a]), 1);
    assert_eq!(refused, Err(RefusalCode::NotPermitted));
}

#[test]
fn a_delegate_lets_people_into_groups_whose_grants_it_could_have_made_only() {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    let (inside, outside) = (code(0), code(1));
    let delegate = stranger(&mut state, 0);
    run(&mut state, 0, let_grant(&delegate, &[inside], None), 1).unwrap();
    // A group needs a member before it can be granted anything; the first one of this one is let in by the delegate.
    submit(&mut state, &delegate, join(0, "team", id(1)), 1).unwrap();
    let mut to_team = |codes: &[CodeIdentityDigest], expires| {
        let mut action = grant(0, "m", Subject::Group(group("team")));
        if let Action::Grant {
            codes: of,
            expires: until,
            ..
        } = &mut action
        {
            (*of, *until) = (codes.to_vec(), expires);
        }
        run(&mut state, 0, action, 1).unwrap();
    };
    to_team(&[inside], None);
    to_team(&[inside, outside], Some(ENDS));
    let itself = join(0, "team", delegate.principal_id());
    let refused = submit(&mut state, &delegate, itself.clone(), 1);
    assert_eq!(refused, Err(RefusalCode::CodeNotDelegated));
    // The owner may, another group is another matter, and so is the group once that grant is over.
    run(&mut state, 0, join(0, "team", id(2)), 1).unwrap();
    submit(&mut state, &delegate, join(0, "others", id(2)), 1).unwrap();
    submit(&mut state, &delegate, itself, ENDS).unwrap();
}

#[test]
fn a_new_delegation_takes_the_place_of_the_last_one_and_grants_that_were_made_stay() {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    let [a, b] = [code(0), code(1)];
    let delegate = stranger(&mut state, 0);
    run(&mut state, 0, let_grant(&delegate, &[a, b], None), 1).unwrap();
    let made = submit(&mut state, &delegate, grant_in(&[a, b]), 1).unwrap();
    // Less code, more code, and until a time.
    run(&mut state, 0, let_grant(&delegate, &[b], None), 1).unwrap();
    let refused = submit(&mut state, &delegate, grant_in(&[a]), 1);
    assert_eq!(refused, Err(RefusalCode::CodeNotDelegated));
    run(&mut state, 0, let_grant(&delegate, &[a, b], Some(ENDS)), 1).unwrap();
    let snapshot = state.to_snapshot();
    let mut state = State::from_snapshot(&snapshot, state.point()).unwrap();
    submit(&mut state, &delegate, grant_in(&[a]), ENDS - 1).unwrap();
    let refused = submit(&mut state, &delegate, grant_in(&[a]), ENDS);
    assert_eq!(refused, Err(RefusalCode::NotPermitted));
    let end = Action::EndDelegation {
        to: delegate.principal_id(),
        role: Role::Grantor,
    };
    run(&mut state, 0, end, ENDS).unwrap();
    let question = Question::Grants {
        owner: id(0),
        name: None,
        after: 0,
    };
    let Ok(QueryAnswer::Grants(grants)) = ask(&state, id(0), ENDS, &question) else {
        panic!("no grants")
    };
    assert_eq!(grants[0].id, made);
    assert_eq!(grants[0].codes, [a, b]);
    assert_eq!(grants[0].by, delegate.principal_id());
}
