//! Packing: who waits, who goes where, what was learned from it. A state machine without I/O and without a clock, which the gateway
//! and the simulator drive alike: events go in with the time at which they happen, [`Go`]s come out for the driver to follow.

pub mod estimate;
pub mod ledger;
pub mod policy;
pub mod queue;

use std::time::{Duration, Instant};

use ledger::{Capacity, End, Endpoint, Ledger, Model, Phase};
use policy::{Placement, Policy, Prices, Request};
use queue::{Bounds, FairQueue, Full, Ticket, User};

use crate::ModelKey;

/// Of those who wait, so many are looked at for each slot that may be free.
const LOOKS: usize = 64;
/// After so long those who wait are looked at again, even if nothing happened: what was worth a wait may not be any more.
const AGAIN: Duration = Duration::from_millis(100);
/// Retry-After is at least one second, as HTTP has no smaller unit, and never so long that a client gives up for good.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 1..=60;

/// How a pool packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Where requests go.
    pub policy: Policy,
    /// What the policy `cost` weighs.
    pub prices: Prices,
    /// Requests that may wait.
    pub queue: Bounds,
    /// How long the platform keeps instances that are idle.
    pub keep_warm: Duration,
}

/// A request that arrives.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its model.
    pub model: ModelKey,
    /// Whose it is.
    pub user: User,
    /// When its client stops waiting.
    pub deadline: Instant,
}

/// A request goes to an endpoint, where a slot is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Go {
    /// Which request.
    pub ticket: Ticket,
    /// The slot, to be given back with [`Packer::ended`].
    pub slot: Slot,
}

/// A slot that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Of which endpoint.
    pub endpoint: Endpoint,
    /// Whether the endpoint was taken to hold the request's model already, and to be up.
    pub held: bool,
    model: Model,
}

/// Why a request is refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait already, in all or of this user.
    Full {
        /// When it may be worth another try, in seconds.
        retry_after: u64,
    },
    /// Its turn would come after its deadline.
    TooLate,
    /// The policy has no place for it, and knows no waiting.
    NoPlace,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Packer {
    rules: Rules,
    ledger: Ledger,
    queue: FairQueue<Model>,
    looked: Instant,
}

impl Packer {
    /// Nothing runs and nobody waits.
    #[must_use]
    pub fn new(rules: Rules, endpoints: &[Capacity], now: Instant) -> Self {
        Self {
            rules,
            ledger: Ledger::new(endpoints, rules.keep_warm, now),
            queue: FairQueue::new(rules.queue),
            looked: now,
        }
    }

    /// What is known of the pool.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How it packs.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What a model takes in memory, in bytes, from who knows.
    pub fn size_is(&mut self, model: &ModelKey, bytes: u64, now: Instant) {
        let model = self.ledger.model(model, now);
        self.ledger.size_is(model, bytes);
    }

    /// A request arrives. It has a slot at once if it is among those that go.
    ///
    /// # Errors
    /// [`Refusal`], at once: nobody waits in vain.
    pub fn arrives(
        &mut self,
        arrival: &Arrival,
        now: Instant,
    ) -> Result<(Ticket, Vec<Go>), Refusal> {
        self.ledger.pass(now);
        let model = self.ledger.model(&arrival.model, now);
        self.ledger.arrived(model, now);
        let late = self.least_wait(self.queue.len());
        if arrival.deadline.saturating_duration_since(now) <= late {
            return Err(Refusal::TooLate);
        }
        let request = Request {
            model,
            waited: Duration::ZERO,
            deadline: arrival.deadline,
        };
        if self.place(&request, now) == Placement::Refuse {
            return Err(Refusal::NoPlace);
        }
        let times = (now, arrival.deadline);
        let expected = self.ledger.run_of(model);
        let entered = self.queue.enter(&arrival.user, times, expected, model);
        let ticket = entered.map_err(|_: Full| Refusal::Full {
            retry_after: self.retry_after(),
        })?;
        self.ledger.waits(model, true);
        Ok((ticket, self.advance(now)))
    }

    /// Whoever waited stops waiting. Nothing happens if it has gone already.
    pub fn leaves(&mut self, ticket: Ticket) {
        if let Some(left) = self.queue.leave(ticket) {
            self.ledger.waits(left.what, false);
        }
    }

    /// A slot is given back.
    pub fn ended(&mut self, slot: Slot, end: End, now: Instant) -> Vec<Go> {
        self.ledger.release(slot.endpoint, slot.model, end, now);
        self.passes(now)
    }

    /// Time passed; see [`next_change`](Self::next_change).
    pub fn passes(&mut self, now: Instant) -> Vec<Go> {
        self.ledger.pass(now);
        self.advance(now)
    }

    /// When [`passes`](Self::passes) has something to do, if nothing else happens before.
    #[must_use]
    pub fn next_change(&self) -> Option<Instant> {
        let again = (!self.queue.is_empty()).then(|| self.looked + AGAIN);
        [self.ledger.next_change(), again]
            .into_iter()
            .flatten()
            .min()
    }

    /// How long a run of a slot's model takes, as far as is known.
    #[must_use]
    pub fn run_of(&self, slot: Slot) -> Duration {
        self.ledger.run_of(slot.model)
    }

    /// One more endpoint.
    pub fn add(&mut self, capacity: Capacity, now: Instant) -> (Endpoint, Vec<Go>) {
        let endpoint = self.ledger.add(capacity, now);
        (endpoint, self.advance(now))
    }

    /// An endpoint gets nothing any more. True if nothing is in flight there.
    pub fn drain(&mut self, endpoint: Endpoint) -> bool {
        self.ledger.drain(endpoint)
    }

    /// Everyone who waits and has a place now goes there, in their order.
    fn advance(&mut self, now: Instant) -> Vec<Go> {
        self.looked = now;
        let mut gone = Vec::new();
        let mut refused: Vec<Model> = Vec::new();
        let waiting = self.queue.iter().take(LOOKS);
        let some: Vec<_> = waiting
            .map(|it| (it.ticket, it.what, it.since, it.deadline))
            .collect();
        for (ticket, model, since, deadline) in some {
            // What the first of a model does not find, the others do not find either.
            if refused.contains(&model) {
                continue;
            }
            let request = Request {
                model,
                waited: now.saturating_duration_since(since),
                deadline,
            };
            match self.place(&request, now) {
                Placement::Endpoint(endpoint) => {
                    self.queue.take(ticket);
                    self.ledger.waits(model, false);
                    let up = self.ledger.phase(endpoint) == Phase::Up;
                    let held = up && self.ledger.holders(model).contains(&endpoint);
                    self.ledger.reserve(endpoint, model, now);
                    let slot = Slot {
                        endpoint,
                        held,
                        model,
                    };
                    gone.push(Go { ticket, slot });
                }
                Placement::Wait | Placement::Refuse => refused.push(model),
            }
        }
        gone
    }

    fn place(&self, request: &Request, now: Instant) -> Placement {
        let Rules { policy, prices, .. } = &self.rules;
        policy::place(*policy, prices, &self.ledger, request, now)
    }

    /// The least time until a request has its turn that has `ahead` others before it, were every slot as fast as the fastest run.
    /// The first round of slots may become free at any moment.
    fn least_wait(&self, ahead: usize) -> Duration {
        let rounds = ahead as u64 / self.ledger.slots().max(1);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        let fastest = self.ledger.fastest_run().unwrap_or_default();
        fastest.saturating_mul(rounds)
    }

    fn retry_after(&self) -> u64 {
        let seconds = self.least_wait(self.queue.len()).as_secs() + 1;
        seconds.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end())
    }
}

#[cfg(test)]
mod tests;
