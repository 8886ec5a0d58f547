//! A small world in which much collides: four people, two of whom own models of the same name, few versions, aliases, groups,
//! codes and keys. And a real state in it, driven without signatures and without a log.

use std::sync::LazyLock;

use sesemi_keyservice::decision::{Allowed, Ask, NoTrail, decide};
use sesemi_keyservice::state::check::Objection;
use sesemi_keyservice::state::{Authentic, Secret, State};
use sesemi_protocol::audit::{Entry, Record};
use sesemi_protocol::command::{
    Action, Command, Delegation, GrantedVersions, KeyScope, Role, Subject,
};
use sesemi_protocol::receipt::Point;
use sesemi_protocol::release::RequestKeyName;
use sesemi_protocol::{
    AliasName, CodeIdentityDigest, Digest, GroupName, Isolation, ModelId, ModelName, ModelTarget,
    ModelVersion, PrincipalId, PublicIdentity, RefusalCode, SecretKey, ServiceId, SigningIdentity,
    VersionSelector,
};

/// What models are leased for unless they say otherwise, in seconds.
pub(crate) const LEASE: u32 = 60;
/// Who registers as a rule; one more never does.
pub(crate) const PEOPLE: usize = 3;
/// Code of the service itself, and digest of its policy.
pub(crate) const BUILD: (CodeIdentityDigest, Digest) =
    (CodeIdentityDigest([0xc0; 32]), Digest([0xd0; 32]));

struct Cast {
    service: SigningIdentity,
    service_id: ServiceId,
    people: Vec<(SigningIdentity, PrincipalId)>,
    keys: Vec<(Digest, [u8; 32])>,
}

static CAST: LazyLock<Cast> = LazyLock::new(|| {
    let identity = |seed| SigningIdentity::from_seed(SecretKey::from_bytes([seed; 32])).unwrap();
    let person = |seed| {
        let identity = identity(seed);
        let id = identity.public().principal_id();
        (identity, id)
    };
    let service = identity(0x5e);
    Cast {
        service_id: service.public().service_id(),
        service,
        people: (1..=4).map(person).collect(),
        keys: (0..8)
            .map(|n| [0x80 + n; 32])
            .map(|key| (Digest::of(&key), key))
            .collect(),
    }
});

pub(crate) fn service() -> ServiceId {
    CAST.service_id
}

pub(crate) fn person(n: usize) -> &'static SigningIdentity {
    &CAST.people[n].0
}

pub(crate) fn id(n: usize) -> PrincipalId {
    CAST.people[n].1
}

pub(crate) fn key(n: usize) -> Digest {
    CAST.keys[n].0
}

pub(crate) fn key_bytes(digest: &Digest) -> [u8; 32] {
    let known = CAST.keys.iter().find(|(known, _)| known == digest);
    known.unwrap().1
}

pub(crate) fn code(n: usize) -> CodeIdentityDigest {
    CodeIdentityDigest([0x10 + u8::try_from(n).unwrap(); 32])
}

pub(crate) fn model(name: &str) -> ModelName {
    ModelName::new(name).unwrap()
}

pub(crate) fn alias(name: &str) -> AliasName {
    AliasName::new(name).unwrap()
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(crate) fn version(n: u32) -> ModelVersion {
    ModelVersion::new(n).unwrap()
}

pub(crate) fn exact(n: u32) -> VersionSelector {
    VersionSelector::Exact(version(n))
}

pub(crate) fn target(owner: usize, name: &str, version: VersionSelector) -> ModelTarget {
    ModelTarget {
        model: ModelId {
            owner: id(owner),
            name: model(name),
        },
        version,
    }
}

static TARGETS: LazyLock<Vec<ModelTarget>> = LazyLock::new(all_targets);

/// All that can be asked for.
pub(crate) fn targets() -> &'static [ModelTarget] {
    &TARGETS
}

/// Models of two owners, versions and aliases of each.
fn all_targets() -> Vec<ModelTarget> {
    let selectors = || {
        let aliases = ["stable", "beta"].map(|name| VersionSelector::Alias(alias(name)));
        [exact(1), exact(2)].into_iter().chain(aliases)
    };
    [(0, "m"), (0, "n"), (1, "m")]
        .into_iter()
        .flat_map(|(owner, name)| selectors().map(move |version| target(owner, name, version)))
        .collect()
}

/// All keys that a request can name, and none.
pub(crate) fn key_names() -> Vec<Option<RequestKeyName>> {
    let epochs = || 1..=3;
    let names = epochs()
        .map(RequestKeyName::model)
        .chain(epochs().map(RequestKeyName::all_models));
    core::iter::once(None).chain(names.map(Some)).collect()
}

/// The first entry of the log.
pub(crate) fn founding() -> Entry {
    Entry {
        salt: [0; 16],
        at: 0,
        previous: 0,
        record: Record::Founded {
            public_key: *CAST.service.public().key(),
            code: BUILD.0,
            policy: BUILD.1,
        },
    }
}

/// Where a log without digests stands.
pub(crate) fn point(sequence: u64) -> Point {
    Point {
        sequence,
        chain: Digest([0; 32]),
    }
}

/// What comes with a command beside it.
pub(crate) fn secret(action: &Action) -> Secret {
    match action {
        Action::NameCustodians { custodians, .. } => Secret::Shares(
            (0u8..)
                .zip(custodians)
                .map(|(n, _)| SecretKey::from_bytes([0xe0 + n; 32]))
                .collect(),
        ),
        action => action.key().map_or(Secret::None, |digest| {
            Secret::Key(SecretKey::from_bytes(key_bytes(digest)))
        }),
    }
}

/// A state after the founding.
pub(crate) fn founded() -> State {
    State::found(&founding(), point(1)).unwrap()
}

/// Applies a command that was checked.
pub(crate) fn apply(state: &mut State, signer: &PublicIdentity, command: Command, at: u64) {
    let authentic = Authentic {
        signer: signer.principal_id(),
        identity: *signer,
        secret: secret(&command.action),
        command,
    };
    let next = point(state.point().sequence + 1);
    state.apply_command(authentic, next, at);
}

pub(crate) fn command(sequence: u64, action: Action) -> Command {
    Command {
        service: service(),
        sequence,
        seen: Point::START,
        action,
    }
}

/// Checks and applies one command with the signer's next sequence; gives the id that a grant made by it has.
pub(crate) fn submit(
    state: &mut State,
    signer: &PublicIdentity,
    action: Action,
    at: u64,
) -> Result<u64, RefusalCode> {
    let id = signer.principal_id();
    let last = state.principals().get(&id);
    let command = command(last.map_or(0, |last| last.last_sequence()) + 1, action);
    match state.check(&id, &command, at) {
        Ok(()) => {
            apply(state, signer, command, at);
            Ok(state.point().sequence)
        }
        Err(Objection::Refused(code)) => Err(code),
        Err(Objection::SequenceBehind(_)) => Err(RefusalCode::Replayed),
    }
}

/// The same for one of the people.
pub(crate) fn run(
    state: &mut State,
    signer: usize,
    action: Action,
    at: u64,
) -> Result<u64, RefusalCode> {
    submit(state, person(signer).public(), action, at)
}

/// A state with the people in it.
pub(crate) fn peopled() -> State {
    let mut state = founded();
    for n in 0..PEOPLE {
        run(&mut state, n, register(n), 1).unwrap();
    }
    state
}

/// One of a crowd, registered. Nobody has its private key.
pub(crate) fn stranger(state: &mut State, n: usize) -> PublicIdentity {
    let mut public_key = [0x77; 32];
    public_key[..8].copy_from_slice(&n.to_be_bytes());
    let identity = PublicIdentity::from_key(public_key);
    submit(state, &identity, Action::Register { public_key }, 1).unwrap();
    identity
}

pub(crate) fn put(name: &str, number: u32) -> Action {
    Action::PutModel {
        name: model(name),
        version: version(number),
        key: key(0),
        manifest: Digest([1; 32]),
        isolation: Isolation::default(),
    }
}

pub(crate) fn set_alias(name: &str, to: &str, number: u32) -> Action {
    Action::SetAlias {
        name: model(name),
        alias: alias(to),
        version: version(number),
    }
}

pub(crate) fn grant(owner: usize, name: &str, subject: Subject) -> Action {
    Action::Grant {
        owner: id(owner),
        name: model(name),
        versions: GrantedVersions::All,
        subject,
        codes: vec![code(0)],
        expires: None,
        note: String::new(),
    }
}

/// A role; a grantor's for the code that grants are for.
pub(crate) fn delegation(role: Role) -> Delegation {
    match role {
        Role::Grantor => Delegation::Grantor {
            codes: vec![code(0)],
        },
        Role::Auditor => Delegation::Auditor,
    }
}

pub(crate) fn join(owner: usize, to: &str, user: PrincipalId) -> Action {
    Action::AddMember {
        owner: id(owner),
        group: group(to),
        user,
    }
}

pub(crate) fn put_key(scope: KeyScope, epoch: u32) -> Action {
    Action::PutRequestKey {
        scope,
        epoch,
        key: key(4),
        codes: vec![code(0)],
        isolation: Isolation::default(),
        earlier_end: None,
    }
}

pub(crate) fn register(n: usize) -> Action {
    Action::Register {
        public_key: *person(n).public().key(),
    }
}

/// A decision in a form that can be compared, with all that a lease holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) version: ModelVersion,
    pub(crate) model_key: [u8; 32],
    pub(crate) manifest: Digest,
    pub(crate) request_key: [u8; 32],
    pub(crate) seconds: u32,
    pub(crate) until: Option<u64>,
    pub(crate) isolation: Isolation,
}

/// What the real state decides, and by which grant.
pub(crate) fn decided(state: &State, ask: &Ask<'_>) -> Result<(Outcome, u64), RefusalCode> {
    let allowed: Allowed<'_> = decide(state, ask, &mut NoTrail)?;
    assert_eq!(allowed.model.model, ask.model.model);
    let outcome = Outcome {
        version: allowed.model.version,
        model_key: *allowed.model_key.expose(),
        manifest: allowed.manifest,
        request_key: *allowed.request_key.expose(),
        seconds: allowed.seconds(ask.now, LEASE),
        until: allowed.until,
        isolation: allowed.isolation,
    };
    Ok((outcome, allowed.grant))
}
