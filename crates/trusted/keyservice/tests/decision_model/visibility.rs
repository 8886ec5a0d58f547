//! Who may see what and who may do what, by its role and while that lasts.

use sesemi_keyservice::answers::{Asker, answer, may_audit};
use sesemi_keyservice::state::State;
use sesemi_protocol::command::{Action, Role, Subject};
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::{PrincipalId, PublicIdentity, RefusalCode};

use crate::world::{
    LEASE, code, exact, grant, id, model, peopled, put, run, set_alias, stranger, submit, target,
    version,
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
                    role,
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
        role: Role::Grantor,
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
