//! Why the writer may check the commands of one batch against the state before it: commands of different namespaces do not
//! depend on each other, in whatever order they come.

use std::collections::HashSet;

use sesemi_keyservice::decision::Ask;
use sesemi_keyservice::state::State;
use sesemi_protocol::PrincipalId;
use sesemi_protocol::command::{Action, Command};

use crate::histories::Run;
use crate::random::{Numbering, Random, Step, any_command, history};
use crate::world::{Outcome, apply, code, decided, id, key_names, person, targets};

/// Whose namespaces a command touches: those of the writer's rule.
fn touched(signer: usize, command: &Command) -> HashSet<PrincipalId> {
    let owner = command.action.owner().copied();
    owner.into_iter().chain([id(signer)]).collect()
}

/// What is decided, whichever grant it is that allows it: grants' ids follow the order of the log.
fn all_decided(state: &State, now: u64) -> Vec<Option<Outcome>> {
    let mut all = Vec::new();
    for user in (0..3).map(id) {
        for model in targets() {
            for code in (0..3).map(code) {
                for key in [None, key_names()[1], key_names()[4]] {
                    let ask = Ask {
                        user: &user,
                        model,
                        code: &code,
                        key,
                        now,
                    };
                    all.push(decided(state, &ask).ok().map(|(outcome, _)| outcome));
                }
            }
        }
    }
    all
}

#[test]
fn commands_of_different_namespaces_do_not_depend_on_their_order() {
    let mut pairs = 0;
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let mut run = Run::new();
        for step in history(&mut random) {
            run.step(&step).unwrap();
        }
        let now = run.now();
        let waiting: Vec<(usize, Command)> = (0..12)
            .filter_map(|_| match any_command(&mut random, now) {
                Step::Command { signer, action, .. } => {
                    let command = run.command(signer, Numbering::Above(0), false, &action);
                    Some((signer, command))
                }
                _ => None,
            })
            .filter(|(_, command)| {
                // These are alone in their batch.
                !matches!(
                    command.action,
                    Action::NameCustodians { .. } | Action::ApproveUpgrade { .. }
                )
            })
            .filter(|(signer, command)| run.state.check(&id(*signer), command, now).is_ok())
            .collect();
        let Some((a, b)) = waiting.iter().enumerate().find_map(|(n, a)| {
            let others = waiting[n + 1..].iter();
            let mut free = others.filter(|b| touched(a.0, &a.1).is_disjoint(&touched(b.0, &b.1)));
            free.next().map(|b| (a, b))
        }) else {
            continue;
        };
        pairs += 1;
        let snapshot = run.state.to_snapshot();
        let after = |order: [&(usize, Command); 2]| {
            let mut state = State::from_snapshot(&snapshot, run.state.point()).unwrap();
            for (signer, command) in order {
                let checked = state.check(&id(*signer), command, now);
                assert_eq!(checked, Ok(()), "seed {seed}: {a:?} and {b:?}");
                apply(&mut state, person(*signer).public(), command.clone(), now);
            }
            all_decided(&state, now)
        };
        assert!(
            after([a, b]) == after([b, a]),
            "seed {seed}: {a:?} and {b:?}"
        );
    }
    assert!(pairs > 300, "{pairs}");
}
