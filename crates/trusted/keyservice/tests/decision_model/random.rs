//! Random histories, each from a seed.

use sesemi_protocol::command::{Action, Delegation, GrantedVersions, KeyScope, Role, Subject};
use sesemi_protocol::{
    CodeIdentityDigest, Digest, Isolation, IsolationLevel, ModelId, ModelName, PrincipalId,
};

use crate::world::{PEOPLE, alias, code, group, id, key, model, register, version};

/// SplitMix64: a generator that fits into three lines and does for tests.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5e5e)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub(crate) fn percent(&mut self, n: usize) -> bool {
        self.below(100) < n
    }

    pub(crate) fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// Which sequence a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// The next, or one after a gap.
    Above(u64),
    /// The last one again, or one before it.
    Behind(u64),
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Somebody sends a command. Revocations name grants by their place among those that are there, from 0: just beyond it
    /// is one that is not.
    Command {
        signer: usize,
        numbering: Numbering,
        other_service: bool,
        action: Action,
    },
    /// The clock goes on.
    Wait(u64),
    /// The host turns its clock back.
    TurnBack(u64),
    /// Keys that have ended are wiped.
    Forget,
    /// The service is handed over, if the custodians approved that.
    HandOver((CodeIdentityDigest, Digest)),
    /// Other code goes on: the successor, or one that custodians let in with their shares.
    GoOn { recovered: bool },
    /// The service records something of its own.
    Floor(u8),
}

const OWNERS: [usize; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2];

/// A random history. Times in it fit to its clock, so that things end while it lasts.
pub(crate) fn history(random: &mut Random) -> Vec<Step> {
    let mut clock = 1;
    let mut steps: Vec<Step> = (0..PEOPLE)
        .filter(|_| random.percent(95))
        .map(|n| Step::Command {
            signer: n,
            numbering: Numbering::Above(0),
            other_service: false,
            action: register(n),
        })
        .collect();
    if random.percent(25) {
        steps.push(by(1, custodians(random)));
    }
    steps.extend(usual(random));
    let length = steps.len() + 6 + random.below(32);
    while steps.len() < length {
        steps.push(step(random, &mut clock));
    }
    steps
}

/// What most histories begin with: without a model and a key, little that follows has an effect.
fn usual(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 1..=1 + random.below(2) as u32 {
        let mut action = put_model(random, number);
        if let Action::PutModel { name, .. } = &mut action {
            *name = model("m");
        }
        steps.push(by(0, action));
    }
    if random.percent(80) {
        let action = Action::SetAlias {
            name: model("m"),
            alias: alias("stable"),
            version: version(1),
        };
        steps.push(by(0, action));
    }
    if random.percent(80) {
        let (_, action) = request_key(random, 3);
        steps.push(by(1, action));
    }
    steps.retain(|_| random.percent(92));
    steps
}

fn by(signer: usize, action: Action) -> Step {
    Step::Command {
        signer,
        numbering: Numbering::Above(0),
        other_service: false,
        action,
    }
}

fn step(random: &mut Random, clock: &mut u64) -> Step {
    match random.below(100) {
        0..12 => {
            let seconds = 1 + random.below(3) as u64;
            *clock += seconds;
            Step::Wait(seconds)
        }
        12 => Step::TurnBack(1 + random.below(4) as u64),
        13..15 => Step::Forget,
        15 => Step::HandOver(build(random)),
        16..18 => Step::GoOn {
            recovered: random.percent(20),
        },
        18 => Step::Floor(random.below(3) as u8),
        _ => any_command(random, *clock),
    }
}

/// A command of the right signer as a rule, and of another one often enough.
pub(crate) fn any_command(random: &mut Random, clock: u64) -> Step {
    let (signer, action) = action(random, clock);
    let signer = if random.percent(8) {
        random.below(PEOPLE + 1)
    } else {
        signer
    };
    let numbering = match random.below(40) {
        0 => Numbering::Behind(random.below(3) as u64),
        1 => Numbering::Above(random.below(5) as u64),
        _ => Numbering::Above(0),
    };
    Step::Command {
        signer,
        numbering,
        other_service: random.percent(1),
        action,
    }
}

fn build(random: &mut Random) -> (CodeIdentityDigest, Digest) {
    (code(random.below(2)), key(random.below(2)))
}

fn user(random: &mut Random) -> PrincipalId {
    id(random.one_of(&[0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]))
}

fn name(random: &mut Random) -> ModelName {
    model(random.one_of(&["m", "m", "m", "m", "m", "n"]))
}

fn codes(random: &mut Random) -> Vec<CodeIdentityDigest> {
    // As a rule two or all of the three.
    let set = random.one_of(&[1, 2, 4, 3, 5, 6, 7, 7]);
    (0..3).filter(|n| set & (1 << n) != 0).map(code).collect()
}

fn later(random: &mut Random, clock: u64) -> u64 {
    (clock + random.below(12) as u64).saturating_sub(1)
}

fn expiry(random: &mut Random, clock: u64) -> Option<u64> {
    random.percent(50).then(|| later(random, clock))
}

fn scope(random: &mut Random) -> KeyScope {
    if random.percent(40) {
        return KeyScope::AllModels;
    }
    KeyScope::Model(ModelId {
        owner: id(random.one_of(&OWNERS)),
        name: name(random),
    })
}

/// Draws from a generator beside the history's own, so that the rest of each history is the same with and without it.
fn isolation(random: &Random) -> Isolation {
    let mut random = Random::new(random.0);
    Isolation {
        level: random.one_of(&IsolationLevel::ALL),
        quantum_ms: random.one_of(&[0, 0, 20, 60_000]),
    }
}

fn put_model(random: &mut Random, number: u32) -> Action {
    Action::PutModel {
        name: name(random),
        version: version(number),
        key: key(random.below(4)),
        manifest: Digest([u8::try_from(random.below(200)).unwrap(); 32]),
        isolation: isolation(random),
    }
}

fn custodians(random: &mut Random) -> Action {
    let mut custodians: Vec<PrincipalId> = (0..PEOPLE).map(id).collect();
    if random.percent(40) {
        custodians.remove(random.below(PEOPLE));
    }
    custodians.sort_unstable();
    let threshold = if random.percent(30) {
        u8::try_from(custodians.len()).unwrap()
    } else {
        2
    };
    Action::NameCustodians {
        custodians,
        threshold,
    }
}

/// An action and who would rightly sign it.
fn action(random: &mut Random, clock: u64) -> (usize, Action) {
    let number = 1 + random.below(2) as u32;
    let owner = random.one_of(&OWNERS);
    match random.below(100) {
        0..8 => (owner, put_model(random, number)),
        8..10 => {
            let name = name(random);
            let version = version(number);
            (owner, Action::RetireModel { name, version })
        }
        10..18 => {
            let action = Action::SetAlias {
                name: name(random),
                alias: alias(random.one_of(&["stable", "stable", "beta"])),
                version: version(number),
            };
            (owner, action)
        }
        18..20 => {
            let name = name(random);
            let alias = alias(random.one_of(&["stable", "beta"]));
            (owner, Action::RemoveAlias { name, alias })
        }
        20..22 => {
            let name = name(random);
            let seconds = random.one_of(&[None, Some(2), Some(90)]);
            (owner, Action::SetLease { name, seconds })
        }
        22..24 => {
            let public_key = *crate::world::person(random.below(PEOPLE)).public().key();
            let signer = random.below(PEOPLE);
            let action = match random.percent(50) {
                true => register(signer),
                false => Action::Register { public_key },
            };
            // Whoever registers brings its own key: another one is refused with the signature.
            let signer = (0..PEOPLE).find(|n| action == register(*n)).unwrap();
            (signer, action)
        }
        24..76 => in_namespace(random, clock),
        76..96 => request_key(random, clock),
        96 => (random.below(PEOPLE), custodians(random)),
        _ => {
            let (code, policy) = build(random);
            (
                random.below(PEOPLE),
                Action::ApproveUpgrade { code, policy },
            )
        }
    }
}

/// What owners and their grantors do.
fn in_namespace(random: &mut Random, clock: u64) -> (usize, Action) {
    let of = random.one_of(&OWNERS);
    let signer = random.one_of(&[of, of, of, of, of, 2]);
    let owner = id(of);
    let team = group(random.one_of(&["team", "ward"]));
    let action = match random.below(100) {
        0..58 => Action::Grant {
            owner,
            name: name(random),
            versions: match random.below(6) {
                0..2 => GrantedVersions::All,
                2..4 => GrantedVersions::Exact(version(1 + random.below(2) as u32)),
                _ => GrantedVersions::Alias(alias(random.one_of(&["stable", "stable", "beta"]))),
            },
            subject: match random.percent(45) {
                true => Subject::Group(team),
                false => Subject::User(user(random)),
            },
            codes: codes(random),
            expires: expiry(random, clock),
            note: random.one_of(&["", "for the study"]).into(),
        },
        58..66 => {
            let mut grants: Vec<u64> = (0..1 + random.below(2))
                .map(|_| random.below(7) as u64)
                .collect();
            grants.sort_unstable();
            grants.dedup();
            Action::Revoke { owner, grants }
        }
        66..80 => Action::AddMember {
            owner,
            group: team,
            user: user(random),
        },
        80..84 => Action::RemoveMember {
            owner,
            group: team,
            user: user(random),
        },
        84..96 => {
            let action = Action::Delegate {
                to: user(random),
                delegation: match random.below(3) {
                    0..2 => Delegation::Grantor {
                        codes: codes(random),
                    },
                    _ => Delegation::Auditor,
                },
                expires: expiry(random, clock),
            };
            return (of, action);
        }
        _ => {
            let to = user(random);
            let role = random.one_of(&[Role::Grantor, Role::Auditor]);
            return (of, Action::EndDelegation { to, role });
        }
    };
    (signer, action)
}

fn request_key(random: &mut Random, clock: u64) -> (usize, Action) {
    let signer = random.one_of(&[0, 1, 1, 1, 2, 2]);
    let scope = scope(random);
    let epoch = random.one_of(&[1, 1, 2, 2, 2, 3]);
    let action = if random.percent(78) {
        Action::PutRequestKey {
            scope,
            epoch,
            key: key(random.one_of(&[4, 4, 5, 6])),
            codes: codes(random),
            isolation: isolation(random),
            earlier_end: random.percent(40).then(|| later(random, clock)),
        }
    } else {
        let at = later(random, clock);
        Action::EndRequestKey { scope, epoch, at }
    };
    (signer, action)
}
