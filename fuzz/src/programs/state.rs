//! KeyService's rules and decisions: any history of commands, any release request, and any bytes in place of a snapshot.

use minicbor::Decoder;
use sesemi_keyservice::answers::{self, Asker};
use sesemi_keyservice::decision::{Ask, NoTrail, decide};
use sesemi_keyservice::state::{Authentic, Secret, State};
use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::command::{Action, Command, Subject};
use sesemi_protocol::query::Question;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::ReleaseRequest;
use sesemi_protocol::{CodeIdentityDigest, Digest, PublicIdentity, SecretKey, cbor};

use crate::samples;

const NOW: u64 = 1_790_000_000;

fn founded() -> State {
    let entry = Entry {
        salt: [0; 16],
        at: NOW,
        previous: 0,
        record: Record::Founded {
            public_key: [9; 32],
            code: CodeIdentityDigest([1; 32]),
            policy: Digest([2; 32]),
        },
    };
    State::found(&entry, Point::START).unwrap()
}

fn identity(n: u8) -> PublicIdentity {
    PublicIdentity::from_key([n % 4; 32])
}

/// What comes beside a command; the state takes what authentication would let through.
fn secret(action: &Action) -> Secret {
    let key = || SecretKey::from_bytes([7; 32]);
    match action {
        Action::NameCustodians { custodians, .. } => {
            Secret::Shares(custodians.iter().map(|_| key()).collect())
        }
        action if action.key().is_some() => Secret::Key(key()),
        _ => Secret::None,
    }
}

/// The bytes are a history, `[signer, action]` one after the other, and then release requests. Whatever is accepted can be
/// applied, and a snapshot of the state afterwards reads back as the same state.
pub fn state_history(bytes: &[u8]) {
    let mut state = founded();
    let mut d = Decoder::new(bytes);
    let mut sequence = 0;
    while let Ok((signer, action)) = d.decode::<(u8, Action)>() {
        sequence += 1;
        let identity = identity(signer);
        let command = Command {
            service: state.service(),
            sequence,
            seen: Point::START,
            action,
        };
        let now = NOW + sequence;
        let signer = identity.principal_id();
        if command.action.check().is_err() || state.check(&signer, &command, now).is_err() {
            continue;
        }
        let authentic = Authentic {
            signer,
            identity,
            secret: secret(&command.action),
            command,
        };
        let point = Point {
            sequence,
            chain: Digest([0; 32]),
        };
        state.apply_command(authentic, point, now);
    }
    releases(&state, bytes.get(d.position()..).unwrap_or_default());
    let snapshot = state.to_snapshot();
    let again = State::from_snapshot(&snapshot, state.point()).unwrap();
    assert_eq!(*again.to_snapshot(), *snapshot);
}

/// What is released, a release of the same can be explained as.
fn releases(state: &State, bytes: &[u8]) {
    let mut d = Decoder::new(bytes);
    while let Ok(request) = d.decode::<ReleaseRequest>() {
        let code = CodeIdentityDigest([4; 32]);
        let ask = Ask {
            user: &request.user,
            model: &request.model,
            code: &code,
            key: Some(request.key),
            now: NOW,
        };
        let decided = decide(state, &ask, &mut NoTrail);
        let explained = answers::explain(state, &ask, 60);
        assert_eq!(explained.allowed.is_some(), decided.is_ok());
        assert_eq!(explained.refused, decided.err());
        let asker = Asker {
            id: request.user,
            now: NOW,
            lease_seconds: 60,
        };
        let _ = answers::answer(state, asker, &Question::GrantsToMe { after: 0 });
    }
}

/// A snapshot is sealed; should anything else be sealed like one, it is refused without a panic.
pub fn state_snapshot(bytes: &[u8]) {
    if let Ok(state) = State::from_snapshot(bytes, Point::START) {
        let written = state.to_snapshot();
        let again = State::from_snapshot(&written, Point::START).unwrap();
        assert_eq!(*again.to_snapshot(), *written);
    }
}

fn registered() -> Vec<(u8, Action)> {
    let register = |n: u8| {
        let public_key = *identity(n).key();
        (n, Action::Register { public_key })
    };
    (0..4).map(register).collect()
}

fn encode(history: &[(u8, Action)]) -> Vec<u8> {
    let encoded = history
        .iter()
        .map(|step| cbor::encode(step).unwrap().to_vec());
    encoded.collect::<Vec<_>>().concat()
}

/// Everybody registers, then each action of the published vectors, in the name of the first principal; alone and all together.
pub(crate) fn state_history_seeds() -> Vec<Vec<u8>> {
    let own = identity(0).principal_id();
    let actions = samples::vectors(samples::SIGNED, &["bytes"])
        .into_iter()
        .filter_map(|signed| {
            let parsed = sesemi_protocol::command::parse(&signed).ok()?;
            let payload = parsed.unverified_payload();
            let command: Command = cbor::decode(payload, payload.len()).ok()?;
            Some(command.action)
        })
        .map(|mut action| {
            if let Action::Grant { owner, subject, .. } = &mut action {
                *owner = own;
                if let Subject::User(user) = subject {
                    *user = identity(1).principal_id();
                }
            }
            (0, action)
        });
    let actions: Vec<(u8, Action)> = actions.collect();
    let mut seeds: Vec<Vec<u8>> = actions
        .iter()
        .map(|action| {
            let mut history = registered();
            history.push(action.clone());
            encode(&history)
        })
        .collect();
    let mut all = registered();
    all.extend(actions);
    seeds.push(encode(&all));
    seeds
}

pub(crate) fn state_snapshot_seeds() -> Vec<Vec<u8>> {
    vec![founded().to_snapshot().to_vec()]
}
