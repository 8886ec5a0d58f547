//! The paper's published prototype, as its controller does it: a model with requests in flight stays where it is, and claims that
//! endpoint once there are two of them. Any other model takes the first endpoint that is neither busy nor claimed by a model that
//! was there within twice the time of its last run. If there is none, the request is refused.

use std::time::Instant;

use super::{Placement, Request};
use crate::packing::ledger::{Endpoint, Ledger};

pub(super) fn place(ledger: &Ledger, request: &Request, now: Instant) -> Placement {
    let model = request.model;
    if ledger.in_flight_of(model) > 0
        && let Some(own) = ledger.last_endpoint(model)
    {
        // However many there are: it sends them all there.
        return Placement::Endpoint(own);
    }
    let free = |endpoint: &Endpoint| {
        ledger.load_of(*endpoint) == 0
            && ledger.claim(*endpoint).is_none_or(|owner| {
                let (run, ended) = ledger.last_run_of(owner);
                let since = ended.map(|it| now.saturating_duration_since(it));
                owner == model || since.is_none_or(|since| since >= 2 * run)
            })
    };
    match ledger.endpoints().find(free) {
        Some(endpoint) => Placement::Endpoint(endpoint),
        None => Placement::Refuse,
    }
}
