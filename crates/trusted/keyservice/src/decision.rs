//! The one function that decides whether an enclave gets keys.
//!
//! Three parties must agree on the same code identity: the enclave proves that it runs it, the model's owner granted the model
//! to the user in it, and the user let it open the requests.

use sesemi_protocol::receipt::StatePoint;
use sesemi_protocol::release::{Lease, ReleaseRequest};
use sesemi_protocol::{CodeIdentityDigest, RefusalCode, ServiceId};

use crate::state::State;

/// Decides a release to an enclave whose *verified* evidence says that it runs `code`.
///
/// # Errors
/// The first condition that fails, from the caller's view of the world to the keys.
pub fn decide(
    state: &State,
    service: ServiceId,
    code: &CodeIdentityDigest,
    request: &ReleaseRequest,
    lease_seconds: u32,
) -> Result<Lease, RefusalCode> {
    if request.at_least > state.sequence() {
        return Err(RefusalCode::StaleState);
    }
    if state.principal(&request.user).is_none() {
        return Err(RefusalCode::UnknownPrincipal);
    }
    let Some(model) = state.model(&request.model) else {
        return Err(RefusalCode::UnknownModel);
    };
    if !state.is_granted(&request.model, &request.user, code) {
        return Err(RefusalCode::NotGranted);
    }
    let request_key = state
        .request_key(&request.user, &request.model, request.epoch)
        .filter(|record| record.codes.contains(code))
        .ok_or(RefusalCode::NoRequestKey)?;
    Ok(Lease {
        model_key: model.key.clone(),
        manifest: model.manifest,
        request_key: request_key.key.clone(),
        seconds: lease_seconds,
        state: StatePoint {
            service,
            sequence: state.sequence(),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sesemi_protocol::command::{Action, Command};
    use sesemi_protocol::{
        Digest, ModelName, ModelRef, ModelVersion, PrincipalId, PublicIdentity, SecretKey,
    };

    use super::*;
    use crate::state::Objection;

    const SERVICE: ServiceId = ServiceId([7; 32]);

    /// A small world, so that random histories collide: 3 principals, 2 names, 2 versions, 2 codes, 2 epochs.
    #[derive(Debug, Clone)]
    enum Step {
        Register(u8),
        Model {
            owner: u8,
            name: u8,
            version: u8,
        },
        Grant {
            owner: u8,
            name: u8,
            version: u8,
            user: u8,
            code: u8,
        },
        Key {
            user: u8,
            owner: u8,
            name: u8,
            version: u8,
            epoch: u8,
            codes: Vec<u8>,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..3).prop_map(Step::Register),
            (0u8..3, 0u8..2, 1u8..3).prop_map(|(owner, name, version)| Step::Model {
                owner,
                name,
                version
            }),
            (0u8..3, 0u8..2, 1u8..3, 0u8..3, 0u8..2).prop_map(
                |(owner, name, version, user, code)| Step::Grant {
                    owner,
                    name,
                    version,
                    user,
                    code
                }
            ),
            (
                0u8..3,
                0u8..3,
                0u8..2,
                1u8..3,
                0u8..2,
                prop::collection::vec(0u8..2, 1..3)
            )
                .prop_map(|(user, owner, name, version, epoch, codes)| Step::Key {
                    user,
                    owner,
                    name,
                    version,
                    epoch,
                    codes
                }),
        ]
    }

    fn identity(n: u8) -> PublicIdentity {
        PublicIdentity::from_key([n; 32])
    }

    fn principal(n: u8) -> PrincipalId {
        identity(n).principal_id()
    }

    fn name(n: u8) -> ModelName {
        ModelName::new(&format!("m{n}")).unwrap()
    }

    fn version(n: u8) -> ModelVersion {
        ModelVersion::new(u32::from(n)).unwrap()
    }

    fn code(n: u8) -> CodeIdentityDigest {
        CodeIdentityDigest([n; 32])
    }

    fn command(step: &Step, sequence: u64) -> (u8, Command) {
        let (signer, action) = match step.clone() {
            Step::Register(n) => (
                n,
                Action::Register {
                    public_key: [n; 32],
                },
            ),
            Step::Model {
                owner,
                name: n,
                version: v,
            } => (
                owner,
                Action::PutModelKey {
                    name: name(n),
                    version: version(v),
                    key: SecretKey::from_bytes([owner * 16 + n * 4 + v; 32]),
                    manifest: Digest([v; 32]),
                },
            ),
            Step::Grant {
                owner,
                name: n,
                version: v,
                user,
                code: c,
            } => (
                owner,
                Action::Grant {
                    name: name(n),
                    version: version(v),
                    user: principal(user),
                    code: code(c),
                },
            ),
            Step::Key {
                user,
                owner,
                name: n,
                version: v,
                epoch,
                codes,
            } => (
                user,
                Action::PutRequestKey {
                    model: ModelRef::new(principal(owner), name(n), version(v)),
                    epoch: u32::from(epoch),
                    key: SecretKey::from_bytes([100 + user; 32]),
                    codes: codes.into_iter().map(code).collect(),
                },
            ),
        };
        (
            signer,
            Command {
                service: SERVICE,
                sequence,
                action,
            },
        )
    }

    /// Runs a history through the state and gives the accepted steps.
    fn run(history: &[Step]) -> (State, Vec<Step>) {
        let mut state = State::new(SERVICE);
        let mut accepted = Vec::new();
        for (i, step) in history.iter().enumerate() {
            let (signer, command) = command(step, i as u64 + 1);
            let signed = Digest::of(&[i as u8]);
            if state.check(&principal(signer), &command, &signed).is_ok() {
                state.apply(
                    principal(signer),
                    identity(signer),
                    command,
                    signed,
                    Digest([0; 32]),
                );
                accepted.push(step.clone());
            }
        }
        (state, accepted)
    }

    proptest! {
        /// The naive model of the rules: scan the accepted history for each condition.
        #[test]
        fn a_release_needs_exactly_model_grant_and_request_key(
            history in prop::collection::vec(step(), 0..60),
            user in 0u8..3, owner in 0u8..3, n in 0u8..2, v in 1u8..3, epoch in 0u8..2, c in 0u8..2,
        ) {
            let (state, accepted) = run(&history);
            let registered = accepted.iter().any(|s| matches!(s, Step::Register(p) if *p == user));
            let model = accepted.iter().any(|s| matches!(s, Step::Model { owner: o, name, version } if (*o, *name, *version) == (owner, n, v)));
            let granted = accepted.iter().any(|s| matches!(s, Step::Grant { owner: o, name, version, user: u, code } if (*o, *name, *version, *u, *code) == (owner, n, v, user, c)));
            // The last accepted deposit counts: the key stays, the approved code is set anew.
            let key = accepted.iter().rev().find_map(|s| match s {
                Step::Key { user: u, owner: o, name, version, epoch: e, codes } if (*u, *o, *name, *version, *e) == (user, owner, n, v, epoch) => Some(codes.contains(&c)),
                _ => None,
            }).unwrap_or(false);
            let request = ReleaseRequest {
                model: ModelRef::new(principal(owner), name(n), version(v)),
                user: principal(user),
                epoch: u32::from(epoch),
                at_least: 0,
            };
            let decided = decide(&state, SERVICE, &code(c), &request, 60);
            prop_assert_eq!(decided.is_ok(), registered && model && granted && key, "{:?}", decided);
            if let Ok(lease) = decided {
                prop_assert_eq!(lease.model_key, SecretKey::from_bytes([owner * 16 + n * 4 + v; 32]));
                prop_assert_eq!(lease.request_key, SecretKey::from_bytes([100 + user; 32]));
            }
        }
    }

    #[test]
    fn a_model_is_granted_to_thousands_and_each_of_them_is_served() {
        let mut state = State::new(SERVICE);
        let tell = |state: &mut State, key: [u8; 32], sequence, action| {
            let signer = PublicIdentity::from_key(key);
            let command = Command {
                service: SERVICE,
                sequence,
                action,
            };
            let signed = Digest::of(&[key.as_slice(), &sequence.to_be_bytes()].concat());
            let id = signer.principal_id();
            state.check(&id, &command, &signed).unwrap();
            state.apply(id, signer, command, signed, Digest([0; 32]));
            id
        };
        let owner_key = [0xff; 32];
        let public_key = owner_key;
        let owner = tell(&mut state, owner_key, 1, Action::Register { public_key });
        let (_, model_command) = command(
            &Step::Model {
                owner: 0,
                name: 0,
                version: 1,
            },
            2,
        );
        tell(&mut state, owner_key, 2, model_command.action);
        let model = ModelRef::new(owner, name(0), version(1));
        let users: Vec<[u8; 32]> = (0u64..5_000)
            .map(|n| {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&n.to_be_bytes());
                key
            })
            .collect();
        for (granted, public_key) in (3..).zip(users.iter().copied()) {
            let user = tell(&mut state, public_key, 1, Action::Register { public_key });
            let grant = Action::Grant {
                name: name(0),
                version: version(1),
                user,
                code: code(0),
            };
            tell(&mut state, owner_key, granted, grant);
            let deposit = Action::PutRequestKey {
                model: model.clone(),
                epoch: 1,
                key: SecretKey::from_bytes(public_key),
                codes: [code(0)].into(),
            };
            tell(&mut state, public_key, 2, deposit);
        }
        for public_key in users {
            let request = ReleaseRequest {
                model: model.clone(),
                user: PublicIdentity::from_key(public_key).principal_id(),
                epoch: 1,
                at_least: 0,
            };
            let lease = decide(&state, SERVICE, &code(0), &request, 60).unwrap();
            assert_eq!(lease.request_key, SecretKey::from_bytes(public_key));
        }
    }

    #[test]
    fn a_service_behind_what_the_caller_has_seen_releases_nothing() {
        let history = [
            Step::Register(0),
            Step::Model {
                owner: 0,
                name: 0,
                version: 1,
            },
            Step::Grant {
                owner: 0,
                name: 0,
                version: 1,
                user: 0,
                code: 0,
            },
            Step::Key {
                user: 0,
                owner: 0,
                name: 0,
                version: 1,
                epoch: 1,
                codes: vec![0],
            },
        ];
        let (state, _) = run(&history);
        let mut request = ReleaseRequest {
            model: ModelRef::new(principal(0), name(0), version(1)),
            user: principal(0),
            epoch: 1,
            at_least: 4,
        };
        assert!(decide(&state, SERVICE, &code(0), &request, 60).is_ok());
        request.at_least = 5;
        assert_eq!(
            decide(&state, SERVICE, &code(0), &request, 60),
            Err(RefusalCode::StaleState)
        );
    }

    #[test]
    fn replayed_and_misaddressed_commands_are_objected_to() {
        let (state, _) = run(&[Step::Register(0)]);
        let (_, mut register_model) = command(
            &Step::Model {
                owner: 0,
                name: 0,
                version: 1,
            },
            1,
        );
        let check = |command: &Command, signed: u8| {
            state.check(&principal(0), command, &Digest::of(&[signed]))
        };
        assert_eq!(check(&register_model, 0), Err(Objection::Repeated));
        assert_eq!(check(&register_model, 9), Err(Objection::SequenceBehind(1)));
        register_model.sequence = 2;
        assert_eq!(check(&register_model, 9), Ok(()));
        register_model.service = ServiceId([8; 32]);
        assert_eq!(
            check(&register_model, 9),
            Err(Objection::Refused(RefusalCode::WrongService))
        );
    }
}
