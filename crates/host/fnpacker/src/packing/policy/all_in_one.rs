//! One endpoint has all models. How many instances it has is the platform's affair.

use super::{Placement, there};
use crate::packing::ledger::Ledger;

pub(super) fn place(ledger: &Ledger) -> Placement {
    ledger
        .endpoints()
        .next()
        .map_or(Placement::Wait, |first| there(ledger, first))
}
