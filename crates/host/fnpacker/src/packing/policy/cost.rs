//! The least expected time until a request is done, counting the time that it costs others, and what more memory costs.
//!
//! A request whose model is at an endpoint with a free slot goes there: first to one that is up, and of those to the one with the
//! lowest number, so that others may end. Otherwise the ways are compared, in seconds:
//!
//! | way | costs |
//! |---|---|
//! | wait for one that has the model | the runs ahead of it over the slots that there are, and what it has waited already |
//! | load it where there is room beside the others | the load |
//! | load it in place of others | the load, and what they will cost when they are asked for again: see below |
//! | join an instance that is starting | the start, the load |
//! | start an instance | the start, the load, and its memory for as long as it lives |
//!
//! Two models that share too little room displace each other, twice for each pair of turns: with rates a and b that is 2ab/(a+b)
//! times a second. Over the time that an instance would live for nothing (the platform's idle time), that is what the memory of one
//! more instance would save. How many seconds of waiting a GB-second is worth is the operator's to say ([`Prices`]).

use std::time::Instant;

use super::{Placement, Request};
use crate::packing::ledger::{Endpoint, Held, Ledger, Model, Phase};

/// Endpoints that are looked at, of those in whose instance something would have to go.
const LOOKS: usize = 4;

/// What the policy weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// Milliseconds of waiting that are worth one GB-second of memory.
    pub millis_per_gb_second: u32,
    /// A model is at no more endpoints than its load needs, were their slots taken to this part, in percent.
    pub utilisation: u32,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            millis_per_gb_second: 20,
            utilisation: 50,
        }
    }
}

pub(super) fn place(
    prices: &Prices,
    ledger: &Ledger,
    request: &Request,
    now: Instant,
) -> Placement {
    if let Some(holder) = best_holder(ledger, request.model) {
        return Placement::Endpoint(holder);
    }
    let wait = wait(ledger, request);
    let ways = [
        beside(ledger, request.model),
        instead(ledger, request.model, now),
        joining(ledger, request.model),
        another(prices, ledger, request.model),
    ];
    let ways = ways.into_iter().flatten();
    let best = ways.min_by(|a, b| a.1.total_cmp(&b.1));
    match (best, wait) {
        (Some((endpoint, cost)), Some(wait)) => {
            if cost < wait && may_spread(prices, ledger, request.model, now) {
                Placement::Endpoint(endpoint)
            } else {
                Placement::Wait
            }
        }
        (Some((endpoint, _)), None) => Placement::Endpoint(endpoint),
        (None, _) => Placement::Wait,
    }
}

/// An endpoint with the model and a free slot.
fn best_holder(ledger: &Ledger, model: Model) -> Option<Endpoint> {
    let holders = ledger.holders(model).iter().copied();
    let free = holders.filter(|it| ledger.has_slot(*it));
    free.min_by_key(|it| (ledger.phase(*it) != Phase::Up, *it))
}

/// Seconds until a slot is free where the model is. `None` if it is nowhere.
fn wait(ledger: &Ledger, request: &Request) -> Option<f64> {
    let usable = |it: &&Endpoint| matches!(ledger.phase(**it), Phase::Up | Phase::Starting);
    let holders = ledger.holders(request.model).iter().filter(usable);
    let slots: u32 = holders.map(|it| ledger.capacity(*it).slots).sum();
    if slots == 0 {
        return None;
    }
    let ahead = f64::from(ledger.waiting_of(request.model) + 1);
    let run = ledger.run_of(request.model).as_secs_f64();
    Some(run * ahead / f64::from(slots) + request.waited.as_secs_f64())
}

/// Whether the model's load is more than the endpoints that have it should carry.
fn may_spread(prices: &Prices, ledger: &Ledger, model: Model, now: Instant) -> bool {
    let holders = ledger.holders(model);
    let slots: u32 = holders.iter().map(|it| ledger.capacity(*it).slots).sum();
    // Runs at once, on average; those that wait are of the present load, whatever the average says.
    let average = ledger.rate_of(model, now) * ledger.run_of(model).as_secs_f64();
    let present = ledger.in_flight_of(model) + ledger.waiting_of(model);
    let demand = average.max(f64::from(present));
    demand * 100.0 > f64::from(slots) * f64::from(prices.utilisation)
}

fn load(ledger: &Ledger, model: Model) -> f64 {
    ledger.load_time_of(model).as_secs_f64()
}

/// Where there is room for it beside the others: the fullest such endpoint, so that others stay empty.
fn beside(ledger: &Ledger, model: Model) -> Option<(Endpoint, f64)> {
    let endpoint = ledger.with_room(ledger.bytes_of(model)).next()?;
    Some((endpoint, load(ledger, model)))
}

/// In place of others that are not in use.
fn instead(ledger: &Ledger, model: Model, now: Instant) -> Option<(Endpoint, f64)> {
    let some = ledger
        .idle()
        .take(LOOKS)
        .chain(ledger.with_slot().take(LOOKS));
    let ways = some
        .filter(|it| ledger.has_slot(*it))
        .filter_map(|endpoint| {
            let displaced = displaced(ledger, endpoint, model, now)?;
            Some((endpoint, load(ledger, model) + displaced))
        });
    ways.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// What it will cost that these go, in seconds. `None` if there would be no room all the same.
fn displaced(ledger: &Ledger, endpoint: Endpoint, model: Model, now: Instant) -> Option<f64> {
    let room = ledger.capacity(endpoint).room;
    let held = ledger.held(endpoint);
    let mut taken = held.iter().map(|it| it.bytes).sum::<u64>() + ledger.bytes_of(model);
    let mut cost = 0.0;
    for gone in held.iter().filter(|it| it.serving == 0) {
        if taken <= room {
            break;
        }
        taken -= gone.bytes;
        cost += displacement(ledger, gone, model, now);
    }
    (taken <= room).then_some(cost)
}

fn displacement(ledger: &Ledger, gone: &Held, by: Model, now: Instant) -> f64 {
    // It is still somewhere else.
    if ledger.holders(gone.model).len() > 1 {
        return 0.0;
    }
    let (a, b) = (ledger.rate_of(gone.model, now), ledger.rate_of(by, now));
    if a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    let turns = 2.0 * a * b / (a + b) * ledger.keep_warm().as_secs_f64();
    turns * f64::midpoint(load(ledger, gone.model), load(ledger, by))
}

/// An instance that is starting for another model.
fn joining(ledger: &Ledger, model: Model) -> Option<(Endpoint, f64)> {
    let bytes = ledger.bytes_of(model);
    let endpoint = ledger.starting().find(|it| {
        let taken: u64 = ledger.held(*it).iter().map(|held| held.bytes).sum();
        taken + bytes <= ledger.capacity(*it).room
    })?;
    let start = ledger.start_time().as_secs_f64();
    Some((endpoint, start + load(ledger, model)))
}

/// One more instance.
fn another(prices: &Prices, ledger: &Ledger, model: Model) -> Option<(Endpoint, f64)> {
    let bytes = ledger.bytes_of(model);
    let fits = |it: &Endpoint| ledger.has_slot(*it) && bytes <= ledger.capacity(*it).room;
    // One that is too small for it as well, if all are: SeMIRT has the last word.
    let endpoint = ledger.cold().find(fits).or_else(|| ledger.cold().next())?;
    let gigabytes = ledger.capacity(endpoint).memory as f64 / 1e9;
    let price = f64::from(prices.millis_per_gb_second) / 1000.0;
    // All who wait for the model gain from it.
    let sharing = f64::from(ledger.waiting_of(model).max(1));
    let held = gigabytes * ledger.keep_warm().as_secs_f64() * price / sharing;
    let start = ledger.start_time().as_secs_f64();
    Some((endpoint, start + load(ledger, model) + held))
}
