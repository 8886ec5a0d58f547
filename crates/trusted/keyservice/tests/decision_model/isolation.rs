//! What a lease demands of an enclave is the stricter of what the owner and the user asked for, whoever asked for more, and
//! neither a snapshot nor a key that is deposited again loses any of it.

use sesemi_keyservice::state::State;
use sesemi_protocol::command::{Action, KeyScope, Subject};
use sesemi_protocol::query::{Explanation, QueryAnswer, Question};
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::{Isolation, IsolationLevel, RefusalCode};

use crate::visibility::ask;
use crate::world::{
    code, decided, exact, grant, id, peopled, put, put_key, run, set_alias, target,
};
use sesemi_keyservice::decision::Ask;

const QUANTA: [u32; 4] = [0, 1, 250, 60_000];

fn all() -> Vec<Isolation> {
    let of_level = |level| QUANTA.map(|quantum_ms| Isolation { level, quantum_ms });
    IsolationLevel::ALL.into_iter().flat_map(of_level).collect()
}

fn put_isolated(number: u32, asked: Isolation) -> Action {
    let mut action = put("m", number);
    if let Action::PutModel { isolation, .. } = &mut action {
        *isolation = asked;
    }
    action
}

fn key_isolated(scope: KeyScope, epoch: u32, asked: Isolation) -> Action {
    let mut action = put_key(scope, epoch);
    if let Action::PutRequestKey { isolation, .. } = &mut action {
        *isolation = asked;
    }
    action
}

/// What a lease for a version of `m` under a key would demand.
fn leased(state: &State, number: u32, key: Option<RequestKeyName>) -> Isolation {
    let ask = Ask {
        user: &id(1),
        model: &target(0, "m", exact(number)),
        code: &code(0),
        key,
        now: 10,
    };
    decided(state, &ask).unwrap().0.isolation
}

fn explained(state: &State, number: u32, user: usize) -> Explanation {
    let question = Question::Explain {
        user: id(user),
        model: target(0, "m", exact(number)),
        code: code(0),
        key: None,
    };
    match ask(state, id(0), 10, &question).unwrap() {
        QueryAnswer::Explanation(explanation) => explanation,
        other => panic!("{other:?}"),
    }
}

/// One version for each isolation, and a user who may use them all.
fn granted() -> State {
    let mut state = peopled();
    for (number, asked) in (1..).zip(all()) {
        run(&mut state, 0, put_isolated(number, asked), 1).unwrap();
    }
    run(&mut state, 0, grant(0, "m", Subject::User(id(1))), 1).unwrap();
    state
}

#[test]
fn a_lease_demands_the_stricter_of_what_owner_and_user_asked_for() {
    let mut state = granted();
    for (epoch, asked) in (1..).zip(all()) {
        run(
            &mut state,
            1,
            key_isolated(KeyScope::AllModels, epoch, asked),
            1,
        )
        .unwrap();
    }
    let restored = State::from_snapshot(&state.to_snapshot(), state.point()).unwrap();
    for state in [&state, &restored] {
        for (number, owners) in (1..).zip(all()) {
            for (epoch, users) in (1..).zip(all()) {
                let lease = leased(state, number, Some(RequestKeyName::all_models(epoch)));
                assert_eq!(lease, owners.stricter(users), "{owners} and {users}");
                assert!(lease.level >= owners.level && lease.level >= users.level);
                assert!(lease.quantum_ms >= owners.quantum_ms.max(users.quantum_ms));
            }
        }
    }
}

#[test]
fn the_key_that_seals_a_request_says_how_it_is_isolated_and_no_other_key_of_the_user_does() {
    let mut state = granted();
    let strict = Isolation::from(IsolationLevel::Sequential);
    let of_model = KeyScope::Model(target(0, "m", exact(1)).model);
    let shared = Isolation::default();
    run(&mut state, 1, key_isolated(of_model, 1, strict), 1).unwrap();
    run(
        &mut state,
        1,
        key_isolated(KeyScope::AllModels, 1, shared),
        1,
    )
    .unwrap();
    let under = |name| leased(&state, 1, Some(name));
    assert_eq!(under(RequestKeyName::model(1)), strict);
    assert_eq!(under(RequestKeyName::all_models(1)), shared);
}

#[test]
fn a_key_that_is_deposited_again_has_the_isolation_that_was_asked_for_last() {
    let mut state = granted();
    let name = Some(RequestKeyName::all_models(1));
    for asked in all().into_iter().chain([Isolation::default()]) {
        run(
            &mut state,
            1,
            key_isolated(KeyScope::AllModels, 1, asked),
            1,
        )
        .unwrap();
        assert_eq!(leased(&state, 1, name), asked);
    }
}

#[test]
fn a_version_keeps_its_isolation_for_good() {
    let mut state = granted();
    let laxer = put_isolated(12, Isolation::default());
    assert_eq!(
        run(&mut state, 0, laxer.clone(), 1),
        Err(RefusalCode::AlreadyExists)
    );
    let (name, version) = match laxer.clone() {
        Action::PutModel { name, version, .. } => (name, version),
        other => panic!("{other:?}"),
    };
    run(&mut state, 0, Action::RetireModel { name, version }, 1).unwrap();
    assert_eq!(
        run(&mut state, 0, laxer, 1),
        Err(RefusalCode::AlreadyExists)
    );
}

#[test]
fn an_alias_brings_the_isolation_of_the_version_that_it_points_to() {
    let mut state = granted();
    run(&mut state, 1, put_key(KeyScope::AllModels, 1), 1).unwrap();
    for (number, asked) in (1..).zip(all()) {
        run(&mut state, 0, set_alias("m", "stable", number), 1).unwrap();
        let alias = sesemi_protocol::VersionSelector::Alias(crate::world::alias("stable"));
        let ask = Ask {
            user: &id(1),
            model: &target(0, "m", alias),
            code: &code(0),
            key: None,
            now: 10,
        };
        // The key is of the default level, which is not the laxest.
        let demanded = asked.stricter(Isolation::default());
        assert_eq!(decided(&state, &ask).unwrap().0.isolation, demanded);
    }
}

#[test]
fn lists_and_explanations_say_what_was_asked_for_and_what_a_lease_would_demand() {
    let mut state = granted();
    let users = Isolation {
        level: IsolationLevel::DedicatedUser,
        quantum_ms: 20,
    };
    run(
        &mut state,
        1,
        key_isolated(KeyScope::AllModels, 1, users),
        1,
    )
    .unwrap();
    let question = Question::Models {
        owner: id(0),
        after: None,
    };
    let QueryAnswer::Models(models) = ask(&state, id(0), 10, &question).unwrap() else {
        panic!("another answer")
    };
    let listed: Vec<Isolation> = models[0].versions.iter().map(|one| one.isolation).collect();
    assert_eq!(listed, all());
    let question = Question::RequestKeys { after: 0 };
    let QueryAnswer::RequestKeys(keys) = ask(&state, id(1), 10, &question).unwrap() else {
        panic!("another answer")
    };
    assert_eq!(keys[0].isolation, users);
    for (number, owners) in (1..).zip(all()) {
        let explanation = explained(&state, number, 1);
        assert_eq!(explanation.isolation, Some(owners.stricter(users)));
    }
    assert_eq!(explained(&state, 1, 2).isolation, None);
}
