//! The rule itself: what the state of the platform means for the invocation at the head of the queue. It changes nothing.

use super::{ActionBounds, Instance, Scheduler};
use crate::{ActionName, InstanceId, InstancePhase};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Bind(InstanceId),
    Start(ActionBounds),
    Evict(Vec<InstanceId>),
    Wait,
}

impl Scheduler {
    /// What becomes of the invocation at the head of the queue.
    pub(super) fn decide(&self, action: &ActionName) -> Decision {
        let with_room = self
            .instances
            .iter()
            .filter(|(_, it)| it.action == *action && it.has_room());
        let preference = |it: &Instance| (it.phase == InstancePhase::Ready, it.in_flight);
        if let Some((id, _)) =
            with_room.max_by_key(|(id, it)| (preference(it), std::cmp::Reverse(**id)))
        {
            return Decision::Bind(*id);
        }
        let Some(&bounds) = self.actions.get(action) else {
            return Decision::Wait;
        };
        let need = u64::from(bounds.memory_mib);
        let mut free =
            u64::from(self.bounds.user_memory_mib).saturating_sub(self.memory_in_use_mib());
        if free >= need {
            return Decision::Start(bounds);
        }
        // Memory that is on its way counts, else each event would end one instance more than is needed.
        let leaving = self
            .instances
            .values()
            .filter(|it| it.phase == InstancePhase::Stopping);
        free += leaving
            .map(|it| u64::from(it.bounds.memory_mib))
            .sum::<u64>();
        let mut idle: Vec<_> = self
            .instances
            .iter()
            .filter(|(_, it)| it.is_idle())
            .collect();
        idle.sort_by_key(|(id, it)| (it.idle_since, **id));
        let mut victims = Vec::new();
        for (id, instance) in idle {
            if free >= need {
                break;
            }
            free += u64::from(instance.bounds.memory_mib);
            victims.push(*id);
        }
        // Ending some is no use if the memory does not suffice then: they stay warm for whoever comes.
        if free >= need && !victims.is_empty() {
            Decision::Evict(victims)
        } else {
            Decision::Wait
        }
    }
}
