//! The scheduling decision of the embedded platform, as OpenWhisk's invoker takes it, without any I/O.
//!
//! [`Scheduler`] holds the whole state: actions, instances, the queue. Events go in with the time at which they happen,
//! [`Effect`]s come out for a driver to carry out. The rule for the invocation at the head of the queue is
//!
//! 1. an instance of the same action with spare concurrency, ready before starting, busiest first (so that others can end);
//! 2. else a new instance, if its memory is free;
//! 3. else the idle instances least recently used are ended until its memory will be free, if that is possible;
//! 4. else it waits, and so do all behind it: strict first in, first out, so that nothing starves.
//!
//! Memory counts until a process is really gone, not until it is told to end: what is in use never exceeds the budget.

mod decide;
mod effect;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use self::decide::Decision;
pub use self::effect::{ActionBounds, Bounds, Effect, Refusal, Rejection, Ticket};
use crate::{ActionName, InstanceId, InstancePhase};

/// One instance, as it is accounted for.
#[derive(Debug, Clone)]
pub struct Instance {
    /// What it runs.
    pub action: ActionName,
    /// What it uses.
    pub bounds: ActionBounds,
    /// Where it is in its life.
    pub phase: InstancePhase,
    /// Invocations bound to it, also those that wait for its start.
    pub in_flight: u32,
    idle_since: Instant,
    bound: Vec<(Ticket, bool)>,
}

impl Instance {
    fn has_room(&self) -> bool {
        let serves = matches!(self.phase, InstancePhase::Ready | InstancePhase::Starting);
        serves && self.in_flight < self.bounds.concurrency
    }

    fn is_idle(&self) -> bool {
        self.phase == InstancePhase::Ready && self.in_flight == 0
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    ticket: Ticket,
    action: ActionName,
    deadline: Instant,
}

/// The state of the embedded platform. See the [module](self) for the rule.
#[derive(Debug)]
pub struct Scheduler {
    bounds: Bounds,
    actions: BTreeMap<ActionName, ActionBounds>,
    instances: BTreeMap<InstanceId, Instance>,
    queue: VecDeque<Waiting>,
    tickets: u64,
    started: u64,
    closing: bool,
}

impl Scheduler {
    /// A platform without actions.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            actions: BTreeMap::new(),
            instances: BTreeMap::new(),
            queue: VecDeque::new(),
            tickets: 0,
            started: 0,
            closing: false,
        }
    }

    /// Makes an action known, or says that its name is taken.
    pub fn add_action(&mut self, name: ActionName, bounds: ActionBounds) -> bool {
        if self.actions.contains_key(&name) {
            return false;
        }
        self.actions.insert(name, bounds);
        true
    }

    /// Forgets an action: what waits for it is refused, what runs finishes. `None` if there is no such action.
    pub fn remove_action(&mut self, name: &ActionName, now: Instant) -> Option<Vec<Effect>> {
        self.actions.remove(name)?;
        let mut effects = Vec::new();
        self.refuse_waiting(
            |waiting| &waiting.action == name,
            Refusal::ActionDeleted,
            &mut effects,
        );
        for id in self.ids(|instance| &instance.action == name) {
            self.retire(id, Refusal::ActionDeleted, &mut effects);
        }
        self.advance(now, &mut effects);
        Some(effects)
    }

    /// Takes an invocation in: it is bound, or it waits its turn.
    pub fn submit(
        &mut self,
        action: &ActionName,
        deadline: Instant,
        now: Instant,
    ) -> Result<(Ticket, Vec<Effect>), Rejection> {
        self.admit(action, deadline, now)?;
        if self.queue.len() >= self.bounds.queue_capacity {
            return Err(Rejection::QueueFull);
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.queue.push_back(Waiting {
            ticket,
            action: action.clone(),
            deadline,
        });
        let mut effects = Vec::new();
        self.advance(now, &mut effects);
        Ok((ticket, effects))
    }

    /// Takes an invocation back that its instance did not want, at the place that its first arrival gave it. It was
    /// admitted once, so the queue's bound does not count.
    pub fn resubmit(
        &mut self,
        ticket: Ticket,
        action: &ActionName,
        deadline: Instant,
        now: Instant,
    ) -> Result<Vec<Effect>, Rejection> {
        self.admit(action, deadline, now)?;
        let place = self
            .queue
            .partition_point(|waiting| waiting.ticket < ticket);
        self.queue.insert(
            place,
            Waiting {
                ticket,
                action: action.clone(),
                deadline,
            },
        );
        let mut effects = Vec::new();
        self.advance(now, &mut effects);
        Ok(effects)
    }

    fn admit(&self, action: &ActionName, deadline: Instant, now: Instant) -> Result<(), Rejection> {
        match () {
            () if self.closing => Err(Rejection::ShuttingDown),
            () if !self.actions.contains_key(action) => Err(Rejection::UnknownAction),
            () if deadline <= now => Err(Rejection::Expired),
            () => Ok(()),
        }
    }

    /// The caller of an invocation that is not assigned yet has left.
    pub fn cancel(&mut self, ticket: Ticket, now: Instant) -> Vec<Effect> {
        self.queue.retain(|waiting| waiting.ticket != ticket);
        for instance in self.instances.values_mut() {
            let before = instance.bound.len();
            instance.bound.retain(|(bound, _)| *bound != ticket);
            if instance.bound.len() < before {
                instance.in_flight = instance.in_flight.saturating_sub(1);
            }
        }
        self.advanced(now)
    }

    /// An instance is ready: what is bound to it may run.
    pub fn started(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(instance) = self.instances.get_mut(&id)
            && instance.phase == InstancePhase::Starting
        {
            instance.phase = InstancePhase::Ready;
            instance.idle_since = now;
            let bound = std::mem::take(&mut instance.bound);
            effects.extend(bound.into_iter().map(|(ticket, cold)| Effect::Assign {
                ticket,
                instance: id,
                cold,
            }));
        }
        self.advance(now, &mut effects);
        effects
    }

    /// An instance did not become ready: what is bound to it is refused. Its memory counts until it is gone.
    pub fn start_failed(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(instance) = self.instances.get_mut(&id)
            && instance.phase == InstancePhase::Starting
        {
            instance.phase = InstancePhase::Stopping;
            refuse_bound(instance, Refusal::StartFailed(id), &mut effects);
        }
        self.advance(now, &mut effects);
        effects
    }

    /// An assigned invocation is over, however it ended.
    pub fn release(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.in_flight = instance.in_flight.saturating_sub(1);
            if instance.in_flight == 0 {
                instance.idle_since = now;
                if instance.phase == InstancePhase::Draining {
                    stop(id, instance, &mut effects);
                }
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// An instance takes nothing new: it ends when what it has in flight is over.
    pub fn drain(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.retire(id, Refusal::StartFailed(id), &mut effects);
        self.advance(now, &mut effects);
        effects
    }

    /// An instance is broken: it ends at once.
    pub fn failed(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(instance) = self.instances.get_mut(&id) {
            refuse_bound(instance, Refusal::StartFailed(id), &mut effects);
            stop(id, instance, &mut effects);
        }
        self.advance(now, &mut effects);
        effects
    }

    /// An instance's process has ended: its memory is free.
    pub fn gone(&mut self, id: InstanceId, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(mut instance) = self.instances.remove(&id) {
            refuse_bound(&mut instance, Refusal::StartFailed(id), &mut effects);
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Ends what has been idle for too long.
    pub fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let timeout = self.bounds.idle_timeout;
        for (id, instance) in &mut self.instances {
            if instance.is_idle() && now.saturating_duration_since(instance.idle_since) >= timeout {
                stop(*id, instance, &mut effects);
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens before.
    pub fn next_expiry(&self) -> Option<Instant> {
        let idle = self
            .instances
            .values()
            .filter(|instance| instance.is_idle());
        idle.filter_map(|instance| instance.idle_since.checked_add(self.bounds.idle_timeout))
            .min()
    }

    /// Takes nothing new, refuses what waits, ends what is idle and drains the rest.
    pub fn shut_down(&mut self) -> Vec<Effect> {
        self.closing = true;
        let mut effects = Vec::new();
        self.refuse_waiting(|_| true, Refusal::ShuttingDown, &mut effects);
        for id in self.ids(|_| true) {
            self.retire(id, Refusal::ShuttingDown, &mut effects);
        }
        effects
    }

    /// After [`shut_down`](Self::shut_down): ends also what still has something in flight.
    pub fn stop_all(&mut self) -> Vec<Effect> {
        let mut effects = self.shut_down();
        for (id, instance) in &mut self.instances {
            stop(*id, instance, &mut effects);
        }
        effects
    }

    /// Memory of all instances, also of those that are ending, in MiB.
    pub fn memory_in_use_mib(&self) -> u64 {
        self.instances
            .values()
            .map(|instance| u64::from(instance.bounds.memory_mib))
            .sum()
    }

    /// All instances, oldest first.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, &Instance)> {
        self.instances.iter().map(|(id, instance)| (*id, instance))
    }

    /// All actions, by name.
    pub fn actions(&self) -> impl Iterator<Item = (&ActionName, ActionBounds)> {
        self.actions.iter().map(|(name, bounds)| (name, *bounds))
    }

    /// What waits, first in first.
    pub fn waiting(&self) -> impl Iterator<Item = (Ticket, &ActionName)> {
        self.queue
            .iter()
            .map(|waiting| (waiting.ticket, &waiting.action))
    }

    fn advanced(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.advance(now, &mut effects);
        effects
    }

    /// Serves the head of the queue until it has to wait.
    fn advance(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some(head) = self.queue.front() {
            if head.deadline <= now {
                effects.push(Effect::Refuse {
                    ticket: head.ticket,
                    why: Refusal::Expired,
                });
                self.queue.pop_front();
                continue;
            }
            match self.decide(&head.action) {
                Decision::Bind(id) => self.bind_head(id, effects),
                Decision::Start(bounds) => self.start_for_head(bounds, now, effects),
                Decision::Evict(victims) => {
                    for id in victims {
                        if let Some(instance) = self.instances.get_mut(&id) {
                            stop(id, instance, effects);
                        }
                    }
                    return;
                }
                Decision::Wait => return,
            }
        }
    }

    fn bind_head(&mut self, id: InstanceId, effects: &mut Vec<Effect>) {
        let (Some(instance), Some(head)) = (self.instances.get_mut(&id), self.queue.pop_front())
        else {
            return;
        };
        instance.in_flight += 1;
        if instance.phase == InstancePhase::Ready {
            effects.push(Effect::Assign {
                ticket: head.ticket,
                instance: id,
                cold: false,
            });
        } else {
            instance.bound.push((head.ticket, false));
        }
    }

    fn start_for_head(&mut self, bounds: ActionBounds, now: Instant, effects: &mut Vec<Effect>) {
        let Some(head) = self.queue.pop_front() else {
            return;
        };
        self.started += 1;
        let id = InstanceId(self.started);
        effects.push(Effect::Start {
            instance: id,
            action: head.action.clone(),
        });
        let instance = Instance {
            action: head.action,
            bounds,
            phase: InstancePhase::Starting,
            in_flight: 1,
            idle_since: now,
            bound: vec![(head.ticket, true)],
        };
        self.instances.insert(id, instance);
    }

    /// Idle and starting instances end, busy ones drain.
    fn retire(&mut self, id: InstanceId, why: Refusal, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else {
            return;
        };
        match instance.phase {
            InstancePhase::Ready if instance.in_flight > 0 => {
                instance.phase = InstancePhase::Draining
            }
            InstancePhase::Ready => stop(id, instance, effects),
            InstancePhase::Starting => {
                refuse_bound(instance, why, effects);
                stop(id, instance, effects);
            }
            InstancePhase::Draining | InstancePhase::Stopping => {}
        }
    }

    fn refuse_waiting(
        &mut self,
        which: impl Fn(&Waiting) -> bool,
        why: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        self.queue.retain(|waiting| {
            let refused = which(waiting);
            if refused {
                effects.push(Effect::Refuse {
                    ticket: waiting.ticket,
                    why,
                });
            }
            !refused
        });
    }

    fn ids(&self, which: impl Fn(&Instance) -> bool) -> Vec<InstanceId> {
        self.instances
            .iter()
            .filter(|(_, instance)| which(instance))
            .map(|(id, _)| *id)
            .collect()
    }
}

fn stop(id: InstanceId, instance: &mut Instance, effects: &mut Vec<Effect>) {
    if instance.phase != InstancePhase::Stopping {
        instance.phase = InstancePhase::Stopping;
        effects.push(Effect::Stop { instance: id });
    }
}

fn refuse_bound(instance: &mut Instance, why: Refusal, effects: &mut Vec<Effect>) {
    for (ticket, _) in instance.bound.drain(..) {
        instance.in_flight = instance.in_flight.saturating_sub(1);
        effects.push(Effect::Refuse { ticket, why });
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
