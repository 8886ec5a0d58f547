//! Each model has an endpoint of its own, as if every model were a function.

use super::{Placement, Request, there};
use crate::packing::ledger::{Endpoint, Ledger};

pub(super) fn place(ledger: &Ledger, request: &Request) -> Placement {
    // Where it was first sent it stays; a new one takes the first endpoint that nobody was sent to. If there are more models than
    // endpoints, they share them by number.
    match ledger.last_endpoint(request.model) {
        Some(own) => there(ledger, own),
        None => {
            let count = ledger.endpoints().count().max(1);
            let free = ledger.endpoints().find(|it| ledger.held(*it).is_empty());
            let number = request.model.number() as usize % count;
            there(ledger, free.unwrap_or(Endpoint::new(number as u32)))
        }
    }
}
