//! The scheduler against random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::{name, scheduler};
use super::*;

/// One step of a random history; numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Submit { action: usize, patience: u64 },
    Started(usize),
    StartFailed(usize),
    Release(usize),
    Drain(usize),
    Failed(usize),
    Gone(usize),
    Cancel(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3usize, 1..200u64).prop_map(|(action, patience)| Step::Submit { action, patience }),
        4 => any::<usize>().prop_map(Step::Started),
        1 => any::<usize>().prop_map(Step::StartFailed),
        5 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Drain),
        1 => any::<usize>().prop_map(Step::Failed),
        4 => any::<usize>().prop_map(Step::Gone),
        1 => any::<usize>().prop_map(Step::Cancel),
        2 => (0..80u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

const ACTIONS: [(&str, u32, u32); 3] = [("a", 100, 1), ("b", 250, 3), ("c", 400, 2)];
const BUDGET: u32 = 700;

/// Follows the effects as a driver would and checks what must hold after each.
struct Model {
    scheduler: Scheduler,
    now: Instant,
    submitted: BTreeSet<Ticket>,
    answered: BTreeSet<Ticket>,
    running: BTreeMap<InstanceId, Vec<Ticket>>,
    starting: BTreeSet<InstanceId>,
    stopping: BTreeSet<InstanceId>,
    forced: bool,
}

impl Model {
    fn new() -> Self {
        let (scheduler, now) = scheduler(BUDGET, &ACTIONS);
        let (submitted, answered) = (BTreeSet::new(), BTreeSet::new());
        let (running, starting, stopping) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self {
            scheduler,
            now,
            submitted,
            answered,
            running,
            starting,
            stopping,
            forced: false,
        }
    }

    fn apply(&mut self, step: &Step) {
        let now = self.now;
        self.forced = matches!(step, Step::Failed(_));
        let effects = match step {
            Step::Submit { action, patience } => {
                let deadline = now + Duration::from_secs(*patience);
                match self
                    .scheduler
                    .submit(&name(ACTIONS[*action].0), deadline, now)
                {
                    Ok((ticket, effects)) => {
                        self.submitted.insert(ticket);
                        effects
                    }
                    Err(rejection) => {
                        assert_eq!(rejection, Rejection::QueueFull);
                        vec![]
                    }
                }
            }
            Step::Started(n) => self.with_starting(*n, |s, id| s.started(id, now)),
            Step::StartFailed(n) => {
                let starting = pick(self.starting.iter().copied(), *n);
                self.stopping.extend(starting);
                self.with_starting(*n, |s, id| s.start_failed(id, now))
            }
            Step::Release(n) => match pick(
                self.running
                    .iter()
                    .filter(|(_, t)| !t.is_empty())
                    .map(|(id, _)| *id),
                *n,
            ) {
                Some(id) => {
                    self.running.get_mut(&id).unwrap().pop();
                    self.scheduler.release(id, now)
                }
                None => vec![],
            },
            Step::Drain(n) => pick(self.running.keys().copied(), *n)
                .map_or(vec![], |id| self.scheduler.drain(id, now)),
            Step::Failed(n) => pick(self.running.keys().copied(), *n)
                .map_or(vec![], |id| self.scheduler.failed(id, now)),
            Step::Gone(n) => match pick(self.stopping.iter().copied(), *n) {
                Some(id) => {
                    self.stopping.remove(&id);
                    self.running.remove(&id);
                    self.scheduler.gone(id, now)
                }
                None => vec![],
            },
            Step::Cancel(n) => match pick(self.scheduler.waiting().map(|(ticket, _)| ticket), *n) {
                Some(ticket) => {
                    self.answered.insert(ticket);
                    self.scheduler.cancel(ticket, now)
                }
                None => vec![],
            },
            Step::Pass(seconds) => {
                self.now += Duration::from_secs(*seconds);
                self.scheduler.tick(self.now)
            }
        };
        self.follow(effects);
    }

    fn with_starting(
        &mut self,
        n: usize,
        event: impl Fn(&mut Scheduler, InstanceId) -> Vec<Effect>,
    ) -> Vec<Effect> {
        let Some(id) = pick(self.starting.iter().copied(), n) else {
            return vec![];
        };
        self.starting.remove(&id);
        event(&mut self.scheduler, id)
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { instance, .. } => assert!(self.starting.insert(instance)),
                Effect::Assign {
                    ticket, instance, ..
                } => {
                    assert!(
                        !self.stopping.contains(&instance),
                        "assigned to an instance that ends"
                    );
                    assert!(self.answered.insert(ticket), "assigned or refused before");
                    self.running.entry(instance).or_default().push(ticket);
                }
                Effect::Stop { instance } => {
                    let busy = self
                        .running
                        .get(&instance)
                        .is_some_and(|tickets| !tickets.is_empty());
                    assert!(self.forced || !busy, "work in flight was evicted");
                    self.starting.remove(&instance);
                    assert!(self.stopping.insert(instance), "stopped twice");
                }
                Effect::Refuse { ticket, .. } => {
                    assert!(self.answered.insert(ticket), "answered twice")
                }
            }
        }
        self.check();
    }

    fn check(&self) {
        let s = &self.scheduler;
        assert!(
            s.memory_in_use_mib() <= u64::from(BUDGET),
            "memory beyond the budget"
        );
        for (id, instance) in s.instances() {
            assert!(
                instance.in_flight <= instance.bounds.concurrency,
                "instance {id} has too much in flight"
            );
        }
        let waiting: Vec<_> = s.waiting().map(|(ticket, _)| ticket).collect();
        assert!(waiting.is_sorted(), "the queue is out of order");
        let bound = s
            .instances()
            .flat_map(|(_, instance)| instance.bound.iter().map(|(ticket, _)| *ticket));
        let last_bound = bound.chain(self.running.values().flatten().copied()).max();
        if let (Some(first), Some(last)) = (waiting.first(), last_bound) {
            assert!(last < *first, "one that came later was served before");
        }
    }

    /// Lets everything end well and checks that nothing is left over.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let quiet = self.starting.is_empty() && self.stopping.is_empty();
            if quiet && self.running.values().all(Vec::is_empty) {
                break;
            }
            for step in [Step::Started(0), Step::Release(0), Step::Gone(0)] {
                self.apply(&step);
            }
        }
        assert_eq!(
            self.scheduler.waiting().count(),
            0,
            "someone waits for ever"
        );
        assert_eq!(self.submitted, self.answered, "someone got no answer");
        self.apply(&Step::Pass(100));
        while !self.stopping.is_empty() {
            self.apply(&Step::Gone(0));
        }
        assert_eq!(self.scheduler.memory_in_use_mib(), 0, "memory leaked");
    }
}

fn pick<T>(all: impl Iterator<Item = T>, n: usize) -> Option<T> {
    let mut all: Vec<T> = all.collect();
    (!all.is_empty()).then(|| all.swap_remove(n % all.len()))
}

proptest! {
    #[test]
    fn any_history_keeps_budget_order_and_work_in_flight_and_answers_everyone_once(steps in steps()) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
        }
        model.settle();
    }
}
