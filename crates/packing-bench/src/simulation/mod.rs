//! A discrete-event simulation of a gateway, the embedded platform and its instances.
//!
//! The packer is the gateway's ([`Packer`]) and the scheduler is the platform's ([`Scheduler`]), as they are in production; both take
//! the time as an argument. What is modelled is the rest: processors that all instances of a host share, starts, and instances
//! that load a model for its first request and drop those used least recently when there is no room.

// Calls, models and endpoints are numbers of places in lists that only grow.
#![allow(clippy::indexing_slicing)]

mod cpu;
mod instance;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sesemi_fnpacker::ModelKey;
use sesemi_fnpacker::packing::ledger::{Capacity, End, Report};
use sesemi_fnpacker::packing::policy::{Policy, Prices};
use sesemi_fnpacker::packing::queue::{self, Bounds, User};
use sesemi_fnpacker::packing::{Arrival, Go, Packer, Rules, Slot};
use sesemi_platform::local::schedule::{self, ActionBounds, Effect, Scheduler};
use sesemi_platform::{ActionName, InstanceId};

use self::cpu::Cpu;
use self::instance::Instance;
use crate::outcome::{Outcome, Served};
use crate::traffic::Script;

/// What one model costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCosts {
    /// Bytes it takes in an instance.
    pub bytes: u64,
    /// Processor time of a run.
    pub run: Duration,
    /// Processor time to fetch, decrypt and load it.
    pub load: Duration,
}

/// What everything costs, as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// The models, the most popular first.
    pub models: Vec<ModelCosts>,
    /// Processor time to start an instance.
    pub start: Duration,
    /// Time of a start in which it waits.
    pub start_wait: Duration,
    /// Processor time of a request beside its run.
    pub request: Duration,
    /// Time that a request is on its way, in both directions.
    pub way: Duration,
    /// Time from the end of an instance's last request until it may be used for that of another user.
    pub stop: Duration,
}

/// The host and its platform.
#[derive(Debug, Clone)]
pub struct Site {
    /// Processors of the host.
    pub processors: f64,
    /// Memory of all instances together, in MiB.
    pub user_memory_mib: u32,
    /// An instance idle for so long ends.
    pub idle_timeout: Duration,
    /// Requests that an instance serves at once.
    pub slots: u32,
    /// Memory of an instance that is not for models, in MiB.
    pub program_mib: u32,
    /// Memory of each endpoint's instances, in MiB.
    pub endpoints_mib: Vec<u32>,
    /// Instances that the platform may start of one endpoint.
    pub instances: u32,
    /// How long a client waits.
    pub patience: Duration,
    /// How requests are placed.
    pub policy: Policy,
    /// What the policy weighs.
    pub prices: Prices,
}

/// What a CPU works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Start(InstanceId),
    Load(InstanceId, usize),
    Run(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The call of a script with this number.
    Call(usize, usize),
    /// A start has waited for what it waits for.
    Started(InstanceId),
    Gone(InstanceId),
    /// An answer is there.
    Answered(usize),
}

#[derive(Debug)]
struct Call {
    script: usize,
    number: usize,
    model: usize,
    began: Instant,
    slot: Option<Slot>,
    instance: Option<InstanceId>,
    cold: bool,
    sent: Instant,
    ran: Instant,
    loaded: Option<Duration>,
}

struct Simulation<'a> {
    costs: &'a Costs,
    site: &'a Site,
    scripts: &'a [Script],
    models: Vec<ModelKey>,
    actions: Vec<ActionName>,
    packer: Packer,
    scheduler: Scheduler,
    cpu: Cpu<Job>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
    instances: BTreeMap<InstanceId, Instance>,
    begun: HashMap<InstanceId, Instant>,
    calls: Vec<Call>,
    waiting: HashMap<queue::Ticket, usize>,
    submitted: HashMap<schedule::Ticket, usize>,
    now: Instant,
    end: Instant,
    outcome: Outcome,
}

/// What comes of this traffic. Memory is counted until `time`.
#[must_use]
pub fn simulate(costs: &Costs, site: &Site, scripts: &[Script], time: Duration) -> Outcome {
    let mut simulation = Simulation::new(costs, site, scripts, time);
    while let Some(next) = simulation.next() {
        simulation.pass(next);
        simulation.step();
    }
    // What is still there stays until the end of the count.
    simulation.pass(simulation.end);
    simulation.outcome
}

impl<'a> Simulation<'a> {
    fn new(costs: &'a Costs, site: &'a Site, scripts: &'a [Script], time: Duration) -> Self {
        let now = Instant::now();
        let rules = Rules {
            policy: site.policy,
            prices: site.prices,
            queue: Bounds {
                all: 1_000,
                each: 1_000,
            },
            keep_warm: site.idle_timeout,
        };
        let capacity = |mib: &u32| Capacity {
            slots: site.slots * site.instances,
            room: u64::from(mib.saturating_sub(site.program_mib)) << 20,
            memory: u64::from(*mib) << 20,
        };
        let capacities: Vec<Capacity> = site.endpoints_mib.iter().map(capacity).collect();
        let mut packer = Packer::new(rules, &capacities, now);
        let key = |n: usize| ModelKey::new(format!("model-{n}").as_bytes());
        let models: Vec<ModelKey> = (0..costs.models.len())
            .filter_map(|n| key(n).ok())
            .collect();
        for (key, model) in models.iter().zip(&costs.models) {
            packer.size_is(key, model.bytes, now);
        }
        let mut scheduler = Scheduler::new(schedule::Bounds {
            user_memory_mib: site.user_memory_mib,
            idle_timeout: site.idle_timeout,
            queue_capacity: 10_000,
        });
        let name = |n: usize| ActionName::new(&format!("pool-{n}")).ok();
        let actions: Vec<ActionName> = (0..site.endpoints_mib.len()).filter_map(name).collect();
        for (action, memory_mib) in actions.iter().zip(&site.endpoints_mib) {
            let bounds = ActionBounds {
                memory_mib: *memory_mib,
                concurrency: site.slots,
            };
            scheduler.add_action(action.clone(), bounds);
        }
        let mut simulation = Self {
            costs,
            site,
            scripts,
            models,
            actions,
            packer,
            scheduler,
            cpu: Cpu::new(site.processors, now),
            events: BinaryHeap::new(),
            sequence: 0,
            instances: BTreeMap::new(),
            begun: HashMap::new(),
            calls: Vec::new(),
            waiting: HashMap::new(),
            submitted: HashMap::new(),
            now,
            end: now + time,
            outcome: Outcome::default(),
        };
        for (number, script) in scripts.iter().enumerate() {
            simulation.at(now + script.at, Event::Call(number, 0));
        }
        simulation
    }

    fn at(&mut self, time: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    /// When something happens next. None once all that is left is that instances end.
    fn next(&self) -> Option<Instant> {
        let event = self.events.peek().map(|it| it.0.0);
        let job = self.cpu.next().map(|it| it.0);
        let busy = [event, job].into_iter().flatten().min();
        let timers = [self.packer.next_change(), self.scheduler.next_expiry()];
        let timer = timers.into_iter().flatten().min();
        match (busy, timer) {
            (None, timer) => timer.filter(|it| *it < self.end || self.packer.waiting() > 0),
            (busy, timer) => [busy, timer].into_iter().flatten().min(),
        }
    }

    fn pass(&mut self, next: Instant) {
        let next = next.max(self.now);
        let counted = next.min(self.end).saturating_duration_since(self.now);
        let gb = self.scheduler.memory_in_use_mib() as f64 * f64::from(1 << 20) / 1e9;
        self.outcome.gb_s += gb * counted.as_secs_f64();
        self.cpu.pass(next);
        self.now = next;
    }

    fn step(&mut self) {
        if let Some((at, job)) = self.cpu.next()
            && at <= self.now
        {
            self.cpu.end(job);
            self.done(job);
        } else if let Some(Reverse((at, _, event))) = self.events.peek().copied()
            && at <= self.now
        {
            self.events.pop();
            self.happens(event);
        } else {
            let gone = self.packer.passes(self.now);
            self.follow(gone);
            let effects = self.scheduler.tick(self.now);
            self.carry_out(effects);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Call(script, number) => self.call(script, number),
            Event::Started(instance) => {
                let effects = self.scheduler.started(instance, self.now);
                self.carry_out(effects);
            }
            Event::Gone(instance) => {
                self.instances.remove(&instance);
                let effects = self.scheduler.gone(instance, self.now);
                self.carry_out(effects);
            }
            Event::Answered(call) => self.answered(call),
        }
    }

    fn call(&mut self, script: usize, number: usize) {
        let Some((user, model)) = self.scripts.get(script).and_then(|it| {
            let (_, model) = it.calls.get(number)?;
            Some((it.user, *model))
        }) else {
            return;
        };
        let deadline = self.now + self.site.patience;
        let arrival = Arrival {
            model: self.models[model].clone(),
            user: User::new(&user.to_le_bytes()),
            deadline,
        };
        let call = self.calls.len();
        self.calls.push(Call {
            script,
            number,
            model,
            began: self.now,
            slot: None,
            instance: None,
            cold: false,
            sent: self.now,
            ran: self.now,
            loaded: None,
        });
        match self.packer.arrives(&arrival, self.now) {
            Ok((ticket, gone)) => {
                self.waiting.insert(ticket, call);
                self.follow(gone);
            }
            Err(_) => {
                self.outcome.refused += 1;
                self.goes_on(call);
            }
        }
    }

    /// What the packer says.
    fn follow(&mut self, gone: Vec<Go>) {
        for Go { ticket, slot } in gone {
            let Some(call) = self.waiting.remove(&ticket) else {
                continue;
            };
            self.calls[call].slot = Some(slot);
            self.calls[call].sent = self.now;
            let action = self.actions[slot.endpoint.index()].clone();
            let deadline = self.calls[call].began + self.site.patience;
            match self.scheduler.submit(&action, deadline, self.now) {
                Ok((ticket, effects)) => {
                    self.submitted.insert(ticket, call);
                    self.carry_out(effects);
                }
                Err(_) => self.refused(call),
            }
        }
    }

    /// What the platform says.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { instance, action } => {
                    let number = self.actions.iter().position(|it| *it == action);
                    let mib = number
                        .and_then(|it| self.site.endpoints_mib.get(it))
                        .copied();
                    let room = mib.unwrap_or(0).saturating_sub(self.site.program_mib);
                    self.instances
                        .insert(instance, Instance::new(u64::from(room) << 20));
                    self.begun.insert(instance, self.now);
                    self.cpu.begin(Job::Start(instance), self.costs.start);
                }
                Effect::Assign {
                    ticket,
                    instance,
                    cold,
                } => {
                    if let Some(call) = self.submitted.remove(&ticket) {
                        self.calls[call].instance = Some(instance);
                        self.calls[call].cold = cold;
                        self.assigned(call, instance);
                    }
                }
                Effect::Stop { instance } => {
                    self.cpu.give_up(Job::Start(instance));
                    let gone = self.now + self.costs.stop;
                    self.at(gone, Event::Gone(instance));
                }
                Effect::Refuse { ticket, .. } => {
                    if let Some(call) = self.submitted.remove(&ticket) {
                        self.refused(call);
                    }
                }
            }
        }
    }

    /// A call is at its instance: it runs, or its model is loaded first, once for all that wait for it.
    fn assigned(&mut self, call: usize, instance: InstanceId) {
        let model = self.calls[call].model;
        let bytes = self.costs.models[model].bytes;
        let Some(at) = self.instances.get_mut(&instance) else {
            return;
        };
        match at.ask(model, bytes, call) {
            instance::Answer::Held => self.run(call),
            instance::Answer::Load => {
                let work = self.costs.models[model].load;
                self.cpu.begin(Job::Load(instance, model), work);
            }
            instance::Answer::UnderWay => {}
        }
    }

    fn run(&mut self, call: usize) {
        let call_of = &mut self.calls[call];
        call_of.ran = self.now;
        let work = self.costs.models[call_of.model].run + self.costs.request;
        self.cpu.begin(Job::Run(call), work);
    }

    fn done(&mut self, job: Job) {
        match job {
            Job::Start(instance) => {
                let ready = self.now + self.costs.start_wait;
                self.at(ready, Event::Started(instance));
            }
            Job::Load(instance, model) => {
                let ready = self.instances.get_mut(&instance);
                let calls = ready.map(|it| it.loaded(model)).unwrap_or_default();
                for call in calls {
                    let since = self.calls[call].sent;
                    self.calls[call].loaded = Some(self.now.saturating_duration_since(since));
                    self.run(call);
                }
            }
            Job::Run(call) => {
                let answered = self.now + self.costs.way;
                self.at(answered, Event::Answered(call));
            }
        }
    }

    fn answered(&mut self, call: usize) {
        let Call {
            model,
            began,
            slot,
            instance,
            cold,
            ran,
            loaded,
            ..
        } = self.calls[call];
        self.outcome.served.push(Served {
            model,
            took: self.now.saturating_duration_since(began),
            cold,
        });
        if let Some(instance) = instance {
            if let Some(at) = self.instances.get_mut(&instance) {
                at.ran(model);
            }
            let effects = self.scheduler.release(instance, self.now);
            self.carry_out(effects);
        }
        if let Some(slot) = slot {
            let start = cold.then_some(self.costs.start + self.costs.start_wait);
            let report = Report {
                run: Some(self.now.saturating_duration_since(ran)),
                load: loaded.map(|it| it.saturating_sub(start.unwrap_or_default())),
                start,
            };
            let gone = self.packer.ended(slot, End::Answered(report), self.now);
            self.follow(gone);
        }
        self.goes_on(call);
    }

    fn refused(&mut self, call: usize) {
        self.outcome.refused += 1;
        if let Some(slot) = self.calls[call].slot {
            let gone = self.packer.ended(slot, End::Unknown, self.now);
            self.follow(gone);
        }
        self.goes_on(call);
    }

    /// Whoever has an answer asks for the next, after a while.
    fn goes_on(&mut self, call: usize) {
        let (script, number) = (self.calls[call].script, self.calls[call].number + 1);
        let next = self.scripts.get(script).and_then(|it| it.calls.get(number));
        if let Some((think, _)) = next {
            self.at(self.now + *think, Event::Call(script, number));
        }
    }
}

#[cfg(test)]
mod tests;
