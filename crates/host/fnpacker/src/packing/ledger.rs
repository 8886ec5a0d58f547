//! What FnPacker knows of a pool: its endpoints, the models that they hold, what was learned of both. No I/O, no clock.
//!
//! The platform and SeMIRT decide for themselves what they keep; this is the picture of it, drawn from what was sent where and
//! what came back. Whatever a policy looks for (who has a model, who has room, who was idle for longest, who has no instance) is
//! an index, so that a decision takes no longer with a thousand endpoints than with ten.

// Models and endpoints are given out by the ledger alone, and no place in its lists is ever taken away.
#![allow(clippy::indexing_slicing)]

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::estimate::{Quantiles, Rate};
use crate::ModelKey;

/// Models that are remembered. Callers name them, so that there is an end to it: those unused for longest are forgotten.
const MOST_MODELS: usize = 65_536;
/// How long an arrival counts towards the rate of its model.
const MEMORY: Duration = Duration::from_secs(60);
/// Longest time that an endpoint which failed again and again is left alone.
const LONGEST_BREAK: Duration = Duration::from_secs(60);
/// Bytes a second at which models load, as long as nothing is known.
const PRIOR_BANDWIDTH: f64 = 400e6;
/// How long a start takes, as long as nothing is known.
const PRIOR_START: Duration = Duration::from_millis(500);
/// How long a run takes, as long as nothing is known.
const PRIOR_RUN: Duration = Duration::from_millis(50);

/// A model of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Model(u32);

impl Model {
    /// Its number; models that were forgotten give theirs to others.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }
}

/// An endpoint of the pool, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(u32);

impl Endpoint {
    /// The endpoint with this number, of which there must be one.
    pub(super) fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its place in lists of endpoints.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an endpoint offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Requests at once.
    pub slots: u32,
    /// Bytes that models may take in one instance.
    pub room: u64,
    /// Bytes that one instance is charged for.
    pub memory: u64,
}

/// Where an endpoint is in its life, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has no instance; the next request starts one.
    Cold,
    /// Its first request is on its way, and with it an instance.
    Starting,
    /// An instance has answered.
    Up,
    /// It failed, and gets nothing until then.
    Broken(Instant),
    /// It gets nothing any more.
    Draining,
}

/// A model that an endpoint holds, or is about to.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Which.
    pub model: Model,
    /// Bytes it takes.
    pub bytes: u64,
    /// Requests of it in flight there.
    pub serving: u32,
    /// When it was used last.
    pub last: Instant,
}

#[derive(Debug, Clone)]
struct EndpointState {
    capacity: Capacity,
    phase: Phase,
    in_flight: u32,
    held: Vec<Held>,
    free: u64,
    last_used: Instant,
    /// Failures since its last answer.
    failures: u32,
    /// The model of which it served several requests at once, last.
    claim: Option<Model>,
}

#[derive(Debug, Clone, Default)]
struct ModelState {
    key: Option<ModelKey>,
    bytes: Option<u64>,
    run: Quantiles,
    load: Quantiles,
    last_run: Duration,
    ended: Option<Instant>,
    rate: Rate,
    in_flight: u32,
    waiting: u32,
    at: Vec<Endpoint>,
    last_endpoint: Option<Endpoint>,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Time of the run, if it is known.
    pub run: Option<Duration>,
    /// Time it took to get and load the model, if that was necessary.
    pub load: Option<Duration>,
    /// Time it took to start the instance, if that was necessary.
    pub start: Option<Duration>,
}

/// How a request ended, for the picture of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its instance answered.
    Answered(Report),
    /// Nobody knows: its client left, or its time ran out.
    Unknown,
    /// Its instance is gone, or never came to be.
    InstanceLost,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Ledger {
    keep_warm: Duration,
    endpoints: Vec<EndpointState>,
    models: Vec<ModelState>,
    names: HashMap<ModelKey, Model>,
    unused: Vec<Model>,
    start: Quantiles,
    run: Quantiles,
    /// Bytes and seconds of loads, fading.
    loaded: (f64, f64),
    /// Up with a free slot: by room that no model takes.
    roomy: BTreeSet<(u64, Endpoint)>,
    /// Up with nothing in flight: by last use.
    idle: BTreeSet<(Instant, Endpoint)>,
    /// Without an instance, and usable.
    cold: BTreeSet<Endpoint>,
    /// With an instance on its way, and a free slot.
    starting: BTreeSet<Endpoint>,
    /// Left alone until then.
    broken: BTreeSet<(Instant, Endpoint)>,
    in_flight: u64,
}

impl Ledger {
    /// Endpoints without instances; the platform ends instances that are idle for `keep_warm`.
    #[must_use]
    pub fn new(endpoints: &[Capacity], keep_warm: Duration, now: Instant) -> Self {
        let mut ledger = Self {
            keep_warm,
            endpoints: Vec::new(),
            models: Vec::new(),
            names: HashMap::new(),
            unused: Vec::new(),
            start: Quantiles::default(),
            run: Quantiles::default(),
            loaded: (0.0, 0.0),
            roomy: BTreeSet::new(),
            idle: BTreeSet::new(),
            cold: BTreeSet::new(),
            starting: BTreeSet::new(),
            broken: BTreeSet::new(),
            in_flight: 0,
        };
        for capacity in endpoints {
            ledger.add(*capacity, now);
        }
        ledger
    }

    /// One more endpoint.
    pub fn add(&mut self, capacity: Capacity, now: Instant) -> Endpoint {
        let endpoint = Endpoint(self.endpoints.len() as u32);
        self.endpoints.push(EndpointState {
            capacity,
            phase: Phase::Cold,
            in_flight: 0,
            held: Vec::new(),
            free: capacity.room,
            last_used: now,
            failures: 0,
            claim: None,
        });
        self.index(endpoint);
        endpoint
    }

    /// The model of this name; made known if it is new.
    pub fn model(&mut self, key: &ModelKey, now: Instant) -> Model {
        if let Some(model) = self.names.get(key) {
            return *model;
        }
        if self.names.len() >= MOST_MODELS {
            self.forget_some(now);
        }
        let state = ModelState {
            key: Some(key.clone()),
            ..ModelState::default()
        };
        let model = match self.unused.pop() {
            Some(model) => {
                self.models[model.0 as usize] = state;
                model
            }
            None => {
                self.models.push(state);
                Model(self.models.len() as u32 - 1)
            }
        };
        self.names.insert(key.clone(), model);
        model
    }

    /// Forgets half of those that nothing holds and nobody waits for, those that were asked for least recently.
    fn forget_some(&mut self, now: Instant) {
        let mut known: Vec<(Option<Instant>, Model)> = self
            .names
            .values()
            .filter(|model| {
                let state = &self.models[model.0 as usize];
                state.at.is_empty() && state.in_flight == 0 && state.waiting == 0
            })
            .map(|model| (self.models[model.0 as usize].rate.last(), *model))
            .collect();
        known.sort();
        for (last, model) in known.iter().take(known.len().div_ceil(2)) {
            // One that was asked for this very moment has not had its turn yet.
            if *last == Some(now) {
                continue;
            }
            if let Some(key) = self.models[model.0 as usize].key.take() {
                self.names.remove(&key);
                self.unused.push(*model);
            }
        }
    }

    /// How many models are remembered.
    #[must_use]
    pub fn models(&self) -> usize {
        self.names.len()
    }

    /// Endpoints, also those that drain.
    pub fn endpoints(&self) -> impl Iterator<Item = Endpoint> + use<> {
        (0..self.endpoints.len() as u32).map(Endpoint)
    }

    /// How long idle instances live.
    #[must_use]
    pub fn keep_warm(&self) -> Duration {
        self.keep_warm
    }

    /// Requests in flight at all endpoints.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Slots of all endpoints that may be used.
    #[must_use]
    pub fn slots(&self) -> u64 {
        let usable = self
            .endpoints
            .iter()
            .filter(|it| it.phase != Phase::Draining);
        usable.map(|it| u64::from(it.capacity.slots)).sum()
    }

    /// Memory that all instances are charged for that are known to be there, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let there = |it: &&EndpointState| {
            matches!(it.phase, Phase::Up | Phase::Starting) || it.in_flight > 0
        };
        self.endpoints
            .iter()
            .filter(there)
            .map(|it| it.capacity.memory)
            .sum()
    }

    // What a policy may ask of an endpoint.

    /// What it offers.
    #[must_use]
    pub fn capacity(&self, endpoint: Endpoint) -> Capacity {
        self.endpoints[endpoint.index()].capacity
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self, endpoint: Endpoint) -> Phase {
        self.endpoints[endpoint.index()].phase
    }

    /// Requests in flight there.
    #[must_use]
    pub fn load_of(&self, endpoint: Endpoint) -> u32 {
        self.endpoints[endpoint.index()].in_flight
    }

    /// Models that it holds, least recently used first.
    #[must_use]
    pub fn held(&self, endpoint: Endpoint) -> &[Held] {
        &self.endpoints[endpoint.index()].held
    }

    /// When it was used last.
    #[must_use]
    pub fn last_used(&self, endpoint: Endpoint) -> Instant {
        self.endpoints[endpoint.index()].last_used
    }

    /// The model of which it served several requests at once, if it served no other since.
    #[must_use]
    pub fn claim(&self, endpoint: Endpoint) -> Option<Model> {
        self.endpoints[endpoint.index()].claim
    }

    /// Whether it may be given a request: it has a free slot, and neither drains nor is left alone.
    #[must_use]
    pub fn has_slot(&self, endpoint: Endpoint) -> bool {
        let state = &self.endpoints[endpoint.index()];
        // One that failed is tried with one request.
        let slots = if state.failures > 0 {
            1
        } else {
            state.capacity.slots
        };
        let usable = matches!(state.phase, Phase::Cold | Phase::Starting | Phase::Up);
        usable && state.in_flight < slots
    }

    /// Endpoints that are up, with a free slot and room for so many bytes beside what they hold: fullest first.
    pub fn with_room(&self, bytes: u64) -> impl Iterator<Item = Endpoint> + '_ {
        self.roomy
            .range((bytes, Endpoint(0))..)
            .map(|(_, endpoint)| *endpoint)
    }

    /// Endpoints that are up and idle, least recently used first.
    pub fn idle(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.idle.iter().map(|(_, endpoint)| *endpoint)
    }

    /// Endpoints that are up, with a free slot: those with least room first.
    pub fn with_slot(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.roomy.iter().map(|(_, endpoint)| *endpoint)
    }

    /// Endpoints without an instance, by number.
    pub fn cold(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.cold.iter().copied()
    }

    /// Endpoints whose instance is on its way, with a free slot, by number.
    pub fn starting(&self) -> impl Iterator<Item = Endpoint> + '_ {
        self.starting.iter().copied()
    }

    // What a policy may ask of a model.

    /// Endpoints that hold it, or are about to.
    #[must_use]
    pub fn holders(&self, model: Model) -> &[Endpoint] {
        &self.models[model.0 as usize].at
    }

    /// Where it was sent last.
    #[must_use]
    pub fn last_endpoint(&self, model: Model) -> Option<Endpoint> {
        self.models[model.0 as usize].last_endpoint
    }

    /// Requests of it in flight.
    #[must_use]
    pub fn in_flight_of(&self, model: Model) -> u32 {
        self.models[model.0 as usize].in_flight
    }

    /// Requests of it that wait.
    #[must_use]
    pub fn waiting_of(&self, model: Model) -> u32 {
        self.models[model.0 as usize].waiting
    }

    /// Bytes that it takes: what is known, or a quarter of the smallest endpoint's room.
    #[must_use]
    pub fn bytes_of(&self, model: Model) -> u64 {
        let known = self.models[model.0 as usize].bytes;
        known.unwrap_or_else(|| {
            let rooms = self.endpoints.iter().map(|it| it.capacity.room);
            rooms.min().unwrap_or(0) / 4
        })
    }

    /// Time of a run: the median, or that of all models.
    #[must_use]
    pub fn run_of(&self, model: Model) -> Duration {
        let own = self.models[model.0 as usize].run.quantile(0.5);
        own.or_else(|| self.run.quantile(0.5)).unwrap_or(PRIOR_RUN)
    }

    /// Time of its last run, and when that ended.
    #[must_use]
    pub fn last_run_of(&self, model: Model) -> (Duration, Option<Instant>) {
        let state = &self.models[model.0 as usize];
        (state.last_run, state.ended)
    }

    /// Time to get and load it: the median, or what its size says.
    #[must_use]
    pub fn load_time_of(&self, model: Model) -> Duration {
        let own = self.models[model.0 as usize].load.quantile(0.5);
        own.unwrap_or_else(|| {
            let (bytes, seconds) = self.loaded;
            let bandwidth = if seconds > 0.0 && bytes > 0.0 {
                bytes / seconds
            } else {
                PRIOR_BANDWIDTH
            };
            Duration::try_from_secs_f64(self.bytes_of(model) as f64 / bandwidth)
                .unwrap_or(Duration::from_secs(60))
        })
    }

    /// Requests of it a second, of late.
    #[must_use]
    pub fn rate_of(&self, model: Model, now: Instant) -> f64 {
        self.models[model.0 as usize].rate.at(now, MEMORY)
    }

    /// Time to start an instance.
    #[must_use]
    pub fn start_time(&self) -> Duration {
        self.start.quantile(0.5).unwrap_or(PRIOR_START)
    }

    /// The shortest time that a request takes, or nearly so; `None` without experience.
    #[must_use]
    pub fn fastest_run(&self) -> Option<Duration> {
        self.run.quantile(0.02)
    }

    // What happens.

    /// A request of a model arrived.
    pub fn arrived(&mut self, model: Model, now: Instant) {
        self.models[model.0 as usize].rate.happened(now, MEMORY);
    }

    /// So many more requests of a model wait, or fewer.
    pub fn waits(&mut self, model: Model, more: bool) {
        let waiting = &mut self.models[model.0 as usize].waiting;
        *waiting = if more {
            *waiting + 1
        } else {
            waiting.saturating_sub(1)
        };
    }

    /// What a model takes in memory, from who knows.
    pub fn size_is(&mut self, model: Model, bytes: u64) {
        self.models[model.0 as usize].bytes = Some(bytes);
    }

    /// Takes a slot of an endpoint for a request of a model.
    pub fn reserve(&mut self, endpoint: Endpoint, model: Model, now: Instant) {
        self.unindex(endpoint);
        let bytes = self.bytes_of(model);
        let state = &mut self.models[model.0 as usize];
        state.in_flight += 1;
        state.last_endpoint = Some(endpoint);
        let several = state.in_flight > 1;
        let at = &mut self.endpoints[endpoint.index()];
        at.in_flight += 1;
        at.last_used = now;
        at.claim = match at.claim {
            _ if several => Some(model),
            Some(claim) if claim == model => Some(model),
            _ => None,
        };
        if at.phase == Phase::Cold {
            at.phase = Phase::Starting;
        }
        self.in_flight += 1;
        self.hold(endpoint, model, bytes, now);
        self.index(endpoint);
    }

    /// The model is among those that the endpoint holds; others go for it, as SeMIRT would let them: those not in use.
    fn hold(&mut self, endpoint: Endpoint, model: Model, bytes: u64, now: Instant) {
        let at = &mut self.endpoints[endpoint.index()];
        let held = at.held.iter().position(|held| held.model == model);
        let mut new = match held {
            Some(place) => at.held.remove(place),
            None => Held {
                model,
                bytes,
                serving: 0,
                last: now,
            },
        };
        new.serving += 1;
        new.last = now;
        if held.is_none() {
            self.models[model.0 as usize].at.push(endpoint);
            let mut taken: u64 = at.held.iter().map(|held| held.bytes).sum();
            while taken + bytes > at.capacity.room
                && let Some(place) = at.held.iter().position(|held| held.serving == 0)
            {
                let gone = at.held.remove(place);
                taken -= gone.bytes;
                self.models[gone.model.0 as usize]
                    .at
                    .retain(|it| *it != endpoint);
            }
            at.free = at.capacity.room.saturating_sub(taken + bytes);
        }
        at.held.push(new);
    }

    /// Gives a slot back.
    pub fn release(&mut self, endpoint: Endpoint, model: Model, end: End, now: Instant) {
        self.unindex(endpoint);
        let state = &mut self.models[model.0 as usize];
        state.in_flight = state.in_flight.saturating_sub(1);
        state.ended = Some(now);
        let at = &mut self.endpoints[endpoint.index()];
        at.in_flight = at.in_flight.saturating_sub(1);
        at.last_used = now;
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(held) = at.held.iter_mut().find(|held| held.model == model) {
            held.serving = held.serving.saturating_sub(1);
        }
        match end {
            End::Answered(report) => {
                at.failures = 0;
                if matches!(at.phase, Phase::Starting | Phase::Broken(_)) {
                    at.phase = Phase::Up;
                }
                self.learn(model, report);
            }
            // Whether its instance is up is not known: the next answer tells.
            End::Unknown => {}
            End::InstanceLost => self.lost(endpoint, now),
        }
        self.index(endpoint);
    }

    fn learn(&mut self, model: Model, report: Report) {
        let bytes = self.bytes_of(model) as f64;
        let state = &mut self.models[model.0 as usize];
        if let Some(run) = report.run {
            state.last_run = run;
            state.run.observe(run);
            self.run.observe(run);
        }
        if let Some(load) = report.load {
            state.load.observe(load);
            let (known, seconds) = self.loaded;
            self.loaded = (known * 0.95 + bytes, seconds * 0.95 + load.as_secs_f64());
        }
        if let Some(start) = report.start {
            self.start.observe(start);
        }
    }

    /// An instance is gone with all that it held, and its endpoint is left alone for a while, twice as long each time.
    fn lost(&mut self, endpoint: Endpoint, now: Instant) {
        let at = &mut self.endpoints[endpoint.index()];
        at.failures = at.failures.saturating_add(1);
        let pause = Duration::from_millis(250).saturating_mul(1 << at.failures.min(10));
        if at.phase != Phase::Draining {
            at.phase = Phase::Broken(now + pause.min(LONGEST_BREAK));
        }
        self.empty(endpoint);
    }

    /// It holds nothing but what is in flight.
    fn empty(&mut self, endpoint: Endpoint) {
        let at = &mut self.endpoints[endpoint.index()];
        let gone: Vec<Model> = at
            .held
            .iter()
            .filter(|it| it.serving == 0)
            .map(|it| it.model)
            .collect();
        at.held.retain(|it| it.serving > 0);
        let taken: u64 = at.held.iter().map(|it| it.bytes).sum();
        at.free = at.capacity.room.saturating_sub(taken);
        at.claim = None;
        for model in gone {
            self.models[model.0 as usize]
                .at
                .retain(|it| *it != endpoint);
        }
    }

    /// An endpoint gets nothing any more. True if nothing is in flight there.
    pub fn drain(&mut self, endpoint: Endpoint) -> bool {
        self.unindex(endpoint);
        self.endpoints[endpoint.index()].phase = Phase::Draining;
        self.empty(endpoint);
        self.endpoints[endpoint.index()].in_flight == 0
    }

    /// What time alone changes: idle instances end, endpoints that were left alone may be tried again.
    pub fn pass(&mut self, now: Instant) {
        while let Some((last, endpoint)) = self.idle.first().copied()
            && now.saturating_duration_since(last) >= self.keep_warm
        {
            self.unindex(endpoint);
            self.endpoints[endpoint.index()].phase = Phase::Cold;
            self.empty(endpoint);
            self.index(endpoint);
        }
        while let Some((until, endpoint)) = self.broken.first().copied()
            && now >= until
        {
            self.unindex(endpoint);
            self.endpoints[endpoint.index()].phase = Phase::Cold;
            self.index(endpoint);
        }
    }

    /// When [`pass`](Self::pass) has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        let ends = self.idle.first().map(|(last, _)| *last + self.keep_warm);
        let again = self.broken.first().map(|(until, _)| *until);
        [ends, again].into_iter().flatten().min()
    }

    fn unindex(&mut self, endpoint: Endpoint) {
        let at = &self.endpoints[endpoint.index()];
        self.roomy.remove(&(at.free, endpoint));
        self.idle.remove(&(at.last_used, endpoint));
        self.cold.remove(&endpoint);
        self.starting.remove(&endpoint);
        if let Phase::Broken(until) = at.phase {
            self.broken.remove(&(until, endpoint));
        }
    }

    fn index(&mut self, endpoint: Endpoint) {
        let slot = self.has_slot(endpoint);
        let at = &self.endpoints[endpoint.index()];
        match at.phase {
            Phase::Up => {
                if slot {
                    self.roomy.insert((at.free, endpoint));
                }
                if at.in_flight == 0 {
                    self.idle.insert((at.last_used, endpoint));
                }
            }
            // One whose first request was given up has an instance or none: as if it had none.
            Phase::Cold | Phase::Starting if at.in_flight == 0 => {
                self.cold.insert(endpoint);
            }
            Phase::Starting if slot => {
                self.starting.insert(endpoint);
            }
            Phase::Broken(until) => {
                self.broken.insert((until, endpoint));
            }
            _ => {}
        }
    }
}
