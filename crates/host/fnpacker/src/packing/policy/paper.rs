//! FnPacker's rule in the paper: a model with requests in flight keeps an endpoint to itself, and its requests go there; any other
//! request goes to an endpoint that is idle.

use super::{Placement, Request, there};
use crate::packing::ledger::Ledger;

pub(super) fn place(ledger: &Ledger, request: &Request) -> Placement {
    let last = ledger.last_endpoint(request.model);
    if ledger.in_flight_of(request.model) > 0
        && let Some(own) = last
    {
        return there(ledger, own);
    }
    let idle = |endpoint| ledger.load_of(endpoint) == 0 && ledger.has_slot(endpoint);
    // The paper does not say which of the idle ones: where the model was last, then one with an instance, used least recently.
    let again = last.filter(|own| idle(*own) && holds(ledger, *own, request));
    let other = || ledger.idle().find(|it| idle(*it));
    let new = || ledger.cold().find(|it| idle(*it));
    match again.or_else(other).or_else(new) {
        Some(endpoint) => Placement::Endpoint(endpoint),
        None => Placement::Wait,
    }
}

fn holds(ledger: &Ledger, endpoint: crate::packing::ledger::Endpoint, request: &Request) -> bool {
    ledger.holders(request.model).contains(&endpoint)
}
