//! Random histories: the state's checks and decisions agree with the naive model's, step by step and for every ask.

use sesemi_keyservice::answers::explain;
use sesemi_keyservice::decision::Ask;
use sesemi_keyservice::state::State;
use sesemi_keyservice::state::check::Objection;
use sesemi_protocol::audit::Record;
use sesemi_protocol::command::{Action, Command};
use sesemi_protocol::query::{Finding, GrantVerdict, KeyVerdict};
use sesemi_protocol::{RefusalCode, ServiceId};

use crate::naive::Naive;
use crate::random::{Numbering, Random, Step, history};
use crate::world::{
    BUILD, LEASE, PEOPLE, apply, code, command, decided, founded, id, key, key_names, point,
    targets,
};

/// Both sides of a history under way.
pub(crate) struct Run {
    pub(crate) state: State,
    pub(crate) naive: Naive,
    clock: u64,
    /// What was carried out: for replays.
    pub(crate) entries: Vec<(u64, Happened)>,
    pub(crate) refused: usize,
}

/// What a log entry of it would hold.
#[derive(Debug, Clone)]
pub(crate) enum Happened {
    Command(usize, Command),
    Record(Record),
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            state: founded(),
            naive: Naive::default(),
            clock: 1,
            entries: Vec::new(),
            refused: 0,
        }
    }

    /// The service's time: never before that of the last entry.
    pub(crate) fn now(&self) -> u64 {
        self.entries.last().map_or(0, |(at, _)| *at).max(self.clock)
    }

    /// Both sides take a step, and say the same.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), String> {
        let now = self.now();
        if self.state.time(self.clock) != now {
            return Err(format!("the time is {now}"));
        }
        match step {
            Step::Wait(seconds) => self.clock += seconds,
            Step::TurnBack(seconds) => self.clock = self.clock.saturating_sub(*seconds),
            // By a time that the log has seen: one that it has not may be turned back.
            Step::Forget => self
                .state
                .forget_ended(self.entries.last().map_or(0, |(at, _)| *at)),
            Step::HandOver(build) => {
                let approved = self.naive.approved(build);
                if self.state.governance().is_approved(build) != approved {
                    return Err(format!("{build:?} is approved: {approved}"));
                }
                if approved && self.naive.successor.is_none() {
                    self.naive.successor = Some(*build);
                    let (code, policy) = *build;
                    self.record(Record::HandedOver { code, policy });
                }
            }
            Step::GoOn { recovered } => self.go_on(*recovered),
            Step::Floor(level) => self.record(Record::Floor(vec![*level].into())),
            Step::Command {
                signer,
                numbering,
                other_service,
                action,
            } => {
                let command = self.command(*signer, *numbering, *other_service, action);
                return self.command_on_both_sides(*signer, command, now);
            }
        }
        Ok(())
    }

    fn record(&mut self, record: Record) {
        let next = point(self.state.point().sequence + 1);
        let at = self.now();
        self.state.apply_record(&record, next, at);
        self.entries.push((at, Happened::Record(record)));
    }

    fn go_on(&mut self, recovered: bool) {
        let (code, policy) = match (self.naive.successor, recovered) {
            (Some(build), false) => build,
            (_, true) => BUILD,
            (None, false) => return,
        };
        self.naive.goes_on();
        let shares = vec![1, 2];
        self.record(match recovered {
            true => Record::Recovered {
                code,
                policy,
                shares,
            },
            false => Record::TookOver { code, policy },
        });
    }

    pub(crate) fn command(
        &self,
        signer: usize,
        numbering: Numbering,
        other_service: bool,
        action: &Action,
    ) -> Command {
        let last = self.naive.last_sequence(&id(signer)).unwrap_or(0);
        let sequence = match numbering {
            Numbering::Above(gap) => last + 1 + gap,
            Numbering::Behind(by) => last.saturating_sub(by),
        };
        let mut action = action.clone();
        if let Action::Revoke { grants, .. } = &mut action {
            let there: Vec<u64> = self.naive.grants.iter().map(|grant| grant.id).collect();
            for grant in grants.iter_mut() {
                let place = usize::try_from(*grant).unwrap() % (there.len() + 1);
                *grant = there.get(place).copied().unwrap_or(9999);
            }
            grants.sort_unstable();
            grants.dedup();
        }
        let mut command = command(sequence, action);
        if other_service {
            command.service = ServiceId([9; 32]);
        }
        command
    }

    fn command_on_both_sides(
        &mut self,
        signer: usize,
        command: Command,
        now: u64,
    ) -> Result<(), String> {
        // A registration with another's key is refused with its signature, before any rule.
        if let Action::Register { public_key } = &command.action
            && public_key != crate::world::person(signer).public().key()
        {
            return Ok(());
        }
        let real = self.state.check(&id(signer), &command, now);
        let naive = self.naive.check(&id(signer), &command, now);
        if real != naive {
            return Err(format!(
                "{signer} at {now}: {command:?}\n  is {real:?}, should be {naive:?}"
            ));
        }
        match real {
            Ok(()) => {
                let entry = self.state.point().sequence + 1;
                self.naive.apply(&id(signer), &command, entry, now);
                apply(
                    &mut self.state,
                    crate::world::person(signer).public(),
                    command.clone(),
                    now,
                );
                self.entries.push((now, Happened::Command(signer, command)));
            }
            Err(Objection::Refused(_) | Objection::SequenceBehind(_)) => self.refused += 1,
        }
        Ok(())
    }

    /// Both sides know which upgrades are approved.
    fn governed(&self) -> Result<(), String> {
        for code in (0..2).map(code) {
            for policy in (0..2).map(key) {
                let build = (code, policy);
                let approved = self.naive.approved(&build);
                if self.state.governance().is_approved(&build) != approved {
                    return Err(format!("{build:?} is approved: {approved}"));
                }
            }
        }
        Ok(())
    }

    /// Both sides decide one ask in the same way, and the explanation says the same.
    fn ask(&self, ask: &Ask<'_>) -> Result<Result<(), RefusalCode>, String> {
        let real = decided(&self.state, ask);
        let naive = self.naive.decide(ask);
        let agree = match (&real, &naive) {
            (Ok((real, grant)), Ok((naive, grants))) => real == naive && grants.contains(grant),
            (Err(real), Err(naive)) => real == naive,
            _ => false,
        };
        if !agree {
            return Err(format!("{ask:?}\n  is {real:?}, should be {naive:?}"));
        }
        Ok(real.map(drop))
    }

    fn explained(&self, ask: &Ask<'_>) -> Result<(), String> {
        let explanation = explain(&self.state, ask, LEASE);
        let decided = decided(&self.state, ask);
        let says = match (&explanation.allowed, explanation.refused) {
            (Some(version), None) => Ok((version.version, explanation.seconds)),
            (None, Some(code)) => Err(code),
            _ => return Err(format!("{explanation:?} says yes and no")),
        };
        let is = decided.map(|(outcome, _)| (outcome.version, outcome.seconds));
        let grants = explanation.findings.iter().any(
            |finding| matches!(finding, Finding::Grant { verdict, .. } if *verdict == GrantVerdict::Allows),
        );
        let keys = explanation.findings.iter().any(
            |finding| matches!(finding, Finding::RequestKey { verdict, .. } if *verdict == KeyVerdict::Allows),
        );
        let shows = match says {
            Ok(_) => grants && keys,
            Err(RefusalCode::NoRequestKey) => grants && !keys,
            Err(_) => !grants && !keys,
        };
        if says != is || !shows {
            return Err(format!("{ask:?}\n  is {is:?}, explained: {explanation:?}"));
        }
        Ok(())
    }

    /// All asks at one time. Unless `every` one is wanted, those are left out that the same refusal must meet: of a user or a
    /// version that is not there, and with most of the keys where none would do.
    pub(crate) fn asks(&self, now: u64, every: bool) -> Result<Allowed, String> {
        let mut allowed = Allowed::default();
        let keys = key_names();
        for user in (0..=PEOPLE).map(id) {
            for target in targets() {
                for (n, code) in (0..3).map(code).enumerate() {
                    let ask = |key| Ask {
                        user: &user,
                        model: target,
                        code: &code,
                        key,
                        now,
                    };
                    allowed.asked += 1;
                    let any_key = self.ask(&ask(None))?;
                    if every || n == allowed.asked % 3 {
                        self.explained(&ask(None))?;
                    }
                    let named = match any_key {
                        _ if every => &keys[1..],
                        Ok(()) => &keys[1..],
                        Err(RefusalCode::UnknownPrincipal | RefusalCode::UnknownModel) => break,
                        Err(_) => core::slice::from_ref(&keys[1 + allowed.asked % 6]),
                    };
                    for key in named {
                        allowed.asked += 1;
                        allowed.yes += usize::from(self.ask(&ask(*key))?.is_ok());
                    }
                }
            }
        }
        Ok(allowed)
    }
}

/// How many asks there were, and how many of those that named a key were allowed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Allowed {
    pub(crate) asked: usize,
    pub(crate) yes: usize,
}

/// Takes the steps, then asks everything: at one time as a rule, at several and thoroughly if `thorough`.
fn agree(steps: &[Step], seed: u64, thorough: bool) -> Result<(Run, Allowed), String> {
    let mut run = Run::new();
    for step in steps {
        run.step(step)?;
    }
    run.governed()?;
    let now = run.now();
    let times = [now, now + 2, now + 6];
    if !thorough {
        let time = times[usize::try_from(seed % 3).unwrap()];
        let allowed = run.asks(time, false)?;
        return Ok((run, allowed));
    }
    let mut sum = Allowed::default();
    for time in times {
        let allowed = run.asks(time, true)?;
        sum.asked += allowed.asked;
        sum.yes += allowed.yes;
    }
    Ok((run, sum))
}

/// Leaves out steps as long as the rest still fails.
fn shrink(mut steps: Vec<Step>) -> (Vec<Step>, String) {
    let fails = |steps: &[Step]| agree(steps, 0, true).err();
    let mut error = fails(&steps).unwrap_or_else(|| "it failed only once".into());
    loop {
        let shorter = (0..steps.len()).rev().find_map(|at| {
            let mut shorter = steps.clone();
            shorter.remove(at);
            fails(&shorter).map(|error| (shorter, error))
        });
        match shorter {
            Some((shorter, smaller)) => (steps, error) = (shorter, smaller),
            None => return (steps, error),
        }
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(otherwise, |text| text.parse().unwrap())
}

#[derive(Debug, Default)]
struct Seen {
    carried_out: usize,
    refused: usize,
    asked: usize,
    yes: usize,
}

fn histories(seeds: impl Iterator<Item = u64>) -> Result<Seen, u64> {
    let mut seen = Seen::default();
    for seed in seeds {
        let steps = history(&mut Random::new(seed));
        let (run, allowed) = agree(&steps, seed, seed % 50 == 0).map_err(|_| seed)?;
        seen.carried_out += run.entries.len();
        seen.refused += run.refused;
        seen.asked += allowed.asked;
        seen.yes += allowed.yes;
    }
    Ok(seen)
}

#[test]
fn a_hundred_thousand_random_histories_end_as_the_naive_model_says() {
    let count = setting("SESEMI_HISTORIES", 100_000);
    let first = setting("SESEMI_SEED", 0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let results: Vec<Result<Seen, u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|n| scope.spawn(move || histories((first + n..first + count).step_by(threads))))
            .collect();
        workers.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let mut sum = Seen::default();
    for result in results {
        match result {
            Ok(seen) => {
                sum.carried_out += seen.carried_out;
                sum.refused += seen.refused;
                sum.asked += seen.asked;
                sum.yes += seen.yes;
            }
            Err(seed) => {
                let (steps, error) = shrink(history(&mut Random::new(seed)));
                let steps: Vec<String> = steps.iter().map(|step| format!("  {step:?}")).collect();
                panic!("seed {seed}, shrunk:\n{}\n{error}", steps.join("\n"));
            }
        }
    }
    println!("{count} histories: {sum:?}");
    // Histories in which nothing is allowed, or nothing refused, would show nothing.
    let histories = usize::try_from(count).unwrap();
    assert!(sum.carried_out > 10 * histories, "{sum:?}");
    assert!(sum.refused > 3 * histories, "{sum:?}");
    assert!(sum.yes > histories, "{sum:?}");
}
