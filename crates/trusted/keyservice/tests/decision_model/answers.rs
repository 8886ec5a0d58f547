//! Pages show everything exactly once and fit into a message, and explanations show what matters.

use sesemi_keyservice::state::State;
use sesemi_keyservice::state::check::{MAX_ALIASES, MAX_GRANTS, MAX_VERSIONS};
use sesemi_protocol::command::{Action, Delegation, GrantedVersions, KeyScope, Subject};
use sesemi_protocol::limits::{
    MAX_APPROVED_IDENTITIES, MAX_NAME, MAX_NOTE, MAX_PAGE, MAX_WIRE_MESSAGE,
};
use sesemi_protocol::query::{
    Explanation, Finding, GrantVerdict, KeyVerdict, QueryAnswer, Question,
};
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::wire::{Reply, ReplyBody};
use sesemi_protocol::{
    CodeIdentityDigest, Isolation, IsolationLevel, ModelId, ModelName, PrincipalId, RefusalCode,
    cbor,
};

use crate::visibility::ask;
use crate::world::{
    LEASE, alias, code, exact, grant, id, join, model, peopled, put, put_key, run, set_alias,
    stranger, target,
};

/// Asserts that an answer fits into one message, as it is sent.
fn fits(answer: QueryAnswer) {
    let reply = Reply {
        number: u64::MAX,
        body: ReplyBody::Answer(Box::new(answer)),
    };
    let length = cbor::encode(&reply).unwrap().len();
    assert!(length <= MAX_WIRE_MESSAGE, "{length}");
}

/// The longest name that begins like this.
fn long(begin: &str) -> String {
    format!("{begin}{}", "x".repeat(MAX_NAME - begin.len()))
}

fn codes(n: usize) -> Vec<CodeIdentityDigest> {
    let code = |n: usize| CodeIdentityDigest([u8::try_from(n).unwrap(); 32]);
    (0..n).map(code).collect()
}

/// All grants, page by page.
fn all_grants(
    state: &State,
    who: PrincipalId,
    question: impl Fn(u64) -> Question,
) -> (Vec<u64>, usize) {
    let (mut ids, mut pages, mut after) = (Vec::new(), 0, 0);
    loop {
        let answer = ask(state, who, 1, &question(after)).unwrap();
        let QueryAnswer::Grants(page) = &answer else {
            panic!("{answer:?}")
        };
        let Some(last) = page.last() else {
            return (ids, pages);
        };
        after = last.id;
        pages += 1;
        ids.extend(page.iter().map(|grant| grant.id));
        fits(answer);
    }
}

#[test]
fn a_user_with_very_many_grants_sees_each_once_those_through_groups_too() {
    let mut state = peopled();
    let user = id(1);
    let models = 160;
    let name = |n: usize| format!("m{n}");
    for n in 0..models {
        run(&mut state, 0, put(&name(n), 1), 1).unwrap();
    }
    run(&mut state, 2, put("m", 1), 1).unwrap();
    for (owner, team) in [(0, "team"), (0, "ward"), (2, "team")] {
        run(&mut state, owner, join(owner, team, user), 1).unwrap();
    }
    let to = |team: &str| Subject::Group(crate::world::group(team));
    let mut expected = Vec::new();
    let mut others = Vec::new();
    for n in 0..models * MAX_GRANTS {
        let through = |owner, name: &str, subject| grant(owner, name, subject);
        let action = match n % 2000 {
            0 => (0, through(0, "m0", to("team"))),
            1 => (0, through(0, "m1", to("ward"))),
            2 => (2, through(2, "m", to("team"))),
            _ => (0, through(0, &name(n / MAX_GRANTS), Subject::User(user))),
        };
        expected.push(run(&mut state, action.0, action.1, 1).unwrap());
        if n % 1000 == 7 {
            others.push(run(&mut state, 0, grant(0, "m0", Subject::User(id(2))), 1).unwrap());
        }
    }
    assert!(expected.len() > 10_000 && !others.is_empty());
    let (ids, pages) = all_grants(&state, user, |after| Question::GrantsToMe { after });
    assert!(ids == expected);
    assert_eq!(pages, expected.len().div_ceil(MAX_PAGE));

    let of_owner = |after| Question::Grants {
        owner: id(0),
        name: None,
        after,
    };
    let (ids, _) = all_grants(&state, id(0), of_owner);
    let total = expected.len() + others.len();
    let of_another = expected.len().div_ceil(2000);
    assert_eq!(ids.len(), total - of_another);
    assert!(ids.is_sorted_by(|a, b| a < b));
    let of_model = |after| Question::Grants {
        owner: id(0),
        name: Some(model("m1")),
        after,
    };
    let (ids, _) = all_grants(&state, id(0), of_model);
    assert_eq!(ids.len(), MAX_GRANTS + of_another);
}

#[test]
fn the_longest_grants_fit_into_messages() {
    let mut state = peopled();
    let name = long("m");
    run(&mut state, 0, put(&name, 1), 1).unwrap();
    run(&mut state, 0, set_alias(&name, &long("a"), 1), 1).unwrap();
    let mut expected = Vec::new();
    for n in 0..4 {
        let team = long(&format!("team{n}-"));
        run(&mut state, 0, join(0, &team, id(1)), 1).unwrap();
        for _ in 0..MAX_GRANTS {
            let action = Action::Grant {
                owner: id(0),
                name: model(&name),
                versions: GrantedVersions::Alias(alias(&long("a"))),
                subject: Subject::Group(crate::world::group(&team)),
                codes: codes(MAX_APPROVED_IDENTITIES),
                expires: Some(u64::MAX),
                note: "n".repeat(MAX_NOTE),
            };
            expected.push(run(&mut state, 0, action, 1).unwrap());
        }
    }
    let (ids, pages) = all_grants(&state, id(1), |after| Question::GrantsToMe { after });
    assert!(ids == expected);
    assert!(pages < expected.len() / 10, "{pages} pages");
}

#[test]
fn models_with_all_their_versions_and_aliases_fit_into_messages() {
    let mut state = peopled();
    // The longest after one that is nearly half a message, and after a short one.
    let sizes = [
        (3, 1),
        (3400, 200),
        (MAX_VERSIONS, MAX_ALIASES),
        (2, 1),
        (MAX_VERSIONS, MAX_ALIASES),
    ];
    let mut expected = Vec::new();
    for (n, (versions, aliases)) in sizes.into_iter().enumerate() {
        let name = long(&format!("m{n}"));
        // The longest numbers.
        let number = |n: usize| u32::MAX - u32::try_from(n).unwrap();
        for n in 0..versions {
            // The longest isolation too.
            let mut action = put(&name, number(n));
            if let Action::PutModel { isolation, .. } = &mut action {
                *isolation = Isolation::new(IsolationLevel::Sequential, 60_000).unwrap();
            }
            run(&mut state, 0, action, 1).unwrap();
        }
        for n in 0..aliases {
            run(
                &mut state,
                0,
                set_alias(&name, &long(&format!("a{n}-")), number(0)),
                1,
            )
            .unwrap();
        }
        expected.push((name, versions, aliases));
    }
    for n in 0..150 {
        let name = format!("z{n:03}");
        run(&mut state, 0, put(&name, 1), 1).unwrap();
        expected.push((name, 1, 0));
    }
    let (mut seen, mut after): (_, Option<ModelName>) = (Vec::new(), None);
    loop {
        let question = Question::Models {
            owner: id(0),
            after: after.clone(),
        };
        let answer = ask(&state, id(0), 1, &question).unwrap();
        let QueryAnswer::Models(page) = &answer else {
            panic!("{answer:?}")
        };
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page.iter().map(|model| {
            let name = model.name.as_str().to_owned();
            (name, model.versions.len(), model.aliases.len())
        }));
        fits(answer);
    }
    assert_eq!(seen, expected);
}

#[test]
fn request_keys_with_many_approved_codes_fit_into_messages_and_ended_ones_are_left_out() {
    let mut state = peopled();
    let name = long("m");
    run(&mut state, 0, put(&name, 1), 1).unwrap();
    let of_model = KeyScope::Model(ModelId {
        owner: id(0),
        name: model(&name),
    });
    let mut expected = Vec::new();
    for scope in [of_model, KeyScope::AllModels] {
        for epoch in 1..=150 {
            let mut action = put_key(scope.clone(), epoch);
            if let Action::PutRequestKey {
                codes: approved, ..
            } = &mut action
            {
                *approved = codes(MAX_APPROVED_IDENTITIES);
            }
            run(&mut state, 1, action, 1).unwrap();
            if epoch % 10 == 0 {
                let (scope, at) = (scope.clone(), 0);
                let end = Action::EndRequestKey { scope, epoch, at };
                run(&mut state, 1, end, 1).unwrap();
            } else {
                expected.push((scope.clone(), epoch));
            }
        }
    }
    let mut seen = Vec::new();
    loop {
        let after = seen.len() as u64;
        let answer = ask(&state, id(1), 1, &Question::RequestKeys { after }).unwrap();
        let QueryAnswer::RequestKeys(page) = &answer else {
            panic!("{answer:?}")
        };
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|key| (key.scope.clone(), key.epoch)));
        fits(answer);
    }
    assert_eq!(seen, expected);
    // They are the user's own affair.
    let others = ask(&state, id(0), 1, &Question::RequestKeys { after: 0 });
    assert_eq!(others, Ok(QueryAnswer::RequestKeys(Vec::new())));
}

#[test]
fn members_and_delegates_are_listed_once_each() {
    let mut state = peopled();
    let crowd: Vec<PrincipalId> = (0..500)
        .map(|n| stranger(&mut state, n).principal_id())
        .collect();
    let mut expected = 0;
    for (n, user) in crowd.iter().enumerate() {
        run(
            &mut state,
            0,
            join(0, &long(&format!("g{}-", n % 7)), *user),
            1,
        )
        .unwrap();
        expected += 1;
        if n < 100 {
            let codes = codes(MAX_APPROVED_IDENTITIES);
            for delegation in [Delegation::Grantor { codes }, Delegation::Auditor] {
                let delegate = Action::Delegate {
                    to: *user,
                    delegation,
                    expires: Some(u64::MAX),
                };
                run(&mut state, 0, delegate, 1).unwrap();
                expected += 1;
            }
        }
    }
    let mut seen = Vec::new();
    loop {
        let question = Question::People {
            owner: id(0),
            after: seen.len() as u64,
        };
        let answer = ask(&state, id(0), 1, &question).unwrap();
        let QueryAnswer::People(page) = &answer else {
            panic!("{answer:?}")
        };
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|person| format!("{person:?}")));
        fits(answer);
    }
    assert_eq!(seen.len(), expected);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), expected);
}

fn explained(state: &State, key: Option<RequestKeyName>) -> Explanation {
    let question = Question::Explain {
        user: id(1),
        model: target(0, "m", exact(1)),
        code: code(0),
        key,
    };
    let answer = ask(state, id(1), 10, &question).unwrap();
    fits(answer.clone());
    let QueryAnswer::Explanation(explanation) = answer else {
        panic!("{answer:?}")
    };
    assert!(explanation.findings.len() <= MAX_PAGE);
    explanation
}

#[test]
fn an_explanation_shows_the_grant_and_the_key_that_allow_however_many_do_not() {
    let mut state = peopled();
    run(&mut state, 0, put("m", 1), 1).unwrap();
    // More grants and keys than an explanation holds, which have all ended.
    for n in 0..4 {
        let team = format!("g{n}");
        run(&mut state, 0, join(0, &team, id(1)), 1).unwrap();
        for at in 0..MAX_GRANTS {
            let last = n == 3 && at + 1 == MAX_GRANTS;
            let mut action = grant(0, "m", Subject::Group(crate::world::group(&team)));
            if let Action::Grant { expires, .. } = &mut action {
                *expires = (!last).then_some(5);
            }
            run(&mut state, 0, action, 1).unwrap();
        }
    }
    let of_model = KeyScope::Model(target(0, "m", exact(1)).model);
    for (scope, epochs) in [(of_model, 200), (KeyScope::AllModels, 1)] {
        for epoch in 1..=epochs {
            run(&mut state, 1, put_key(scope.clone(), epoch), 1).unwrap();
            if epochs > 1 {
                let scope = scope.clone();
                let end = Action::EndRequestKey {
                    scope,
                    epoch,
                    at: 5,
                };
                run(&mut state, 1, end, 1).unwrap();
            }
        }
    }
    for key in [None, Some(RequestKeyName::all_models(1))] {
        let explanation = explained(&state, key);
        assert_eq!(explanation.refused, None);
        assert_eq!(explanation.seconds, LEASE);
        let allows = |finding: &&Finding| {
            matches!(
                finding,
                Finding::Grant {
                    verdict: GrantVerdict::Allows,
                    ..
                } | Finding::RequestKey {
                    verdict: KeyVerdict::Allows,
                    ..
                }
            )
        };
        assert_eq!(explanation.findings.iter().filter(allows).count(), 2);
    }
    // And the condition that fails, where one does.
    let ended = Some(RequestKeyName::model(1));
    let explanation = explained(&state, ended);
    assert_eq!(explanation.refused, Some(RefusalCode::NoRequestKey));
    let of_keys = Finding::RequestKey {
        name: RequestKeyName::model(1),
        verdict: KeyVerdict::Ended,
    };
    assert!(explanation.findings.contains(&of_keys));
}
