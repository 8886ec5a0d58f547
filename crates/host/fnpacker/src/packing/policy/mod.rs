//! Which endpoint serves a request: policies, each a pure function of the ledger, the request and the time.
//!
//! `cost` is the default. The others are what it is measured against: `paper` and `prototype` are FnPacker as it was described and
//! as it was published, `one-to-one` and `all-in-one` are what one would do without it.

mod all_in_one;
mod cost;
mod one_to_one;
mod paper;
mod prototype;

use std::time::{Duration, Instant};

pub use cost::Prices;
use serde::Deserialize;

use super::ledger::{Endpoint, Ledger, Model};

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Its model.
    pub model: Model,
    /// For how long it has waited.
    pub waited: Duration,
    /// When its client stops waiting.
    pub deadline: Instant,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// To this endpoint.
    Endpoint(Endpoint),
    /// Nowhere yet.
    Wait,
    /// Nowhere: it is refused. Only `prototype` does this.
    Refuse,
}

/// How requests are placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Policy {
    /// Each model has an endpoint of its own.
    OneToOne,
    /// One endpoint has them all.
    AllInOne,
    /// A model with requests in flight keeps an endpoint to itself, the others share what is idle: FnPacker's rule in the paper
    /// (arXiv 2412.11640, the section on FnPacker).
    Paper,
    /// What the paper's published prototype does (`fnpacker/fnpack/controller.go`, function `PickFnInstance`).
    Prototype,
    /// The least expected time, counting what it costs others and what more memory costs.
    #[default]
    Cost,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OneToOne,
        Self::AllInOne,
        Self::Paper,
        Self::Prototype,
        Self::Cost,
    ];

    /// Its name, as it is configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneToOne => "one-to-one",
            Self::AllInOne => "all-in-one",
            Self::Paper => "paper",
            Self::Prototype => "prototype",
            Self::Cost => "cost",
        }
    }
}

impl std::str::FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let policy = Self::ALL.into_iter().find(|it| it.as_str() == name);
        policy.ok_or(UnknownPolicy)
    }
}

impl TryFrom<String> for Policy {
    type Error = UnknownPolicy;

    fn try_from(name: String) -> Result<Self, UnknownPolicy> {
        name.parse()
    }
}

/// Not the name of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a placement policy is one of one-to-one, all-in-one, paper, prototype and cost")]
pub struct UnknownPolicy;

/// Chooses the endpoint of a request. It changes nothing: whoever follows it reserves a slot in the ledger.
#[must_use]
pub fn place(
    policy: Policy,
    prices: &Prices,
    ledger: &Ledger,
    request: &Request,
    now: Instant,
) -> Placement {
    match policy {
        Policy::OneToOne => one_to_one::place(ledger, request),
        Policy::AllInOne => all_in_one::place(ledger),
        Policy::Paper => paper::place(ledger, request),
        Policy::Prototype => prototype::place(ledger, request, now),
        Policy::Cost => cost::place(prices, ledger, request, now),
    }
}

/// To this endpoint if it has a slot.
fn there(ledger: &Ledger, endpoint: Endpoint) -> Placement {
    if ledger.has_slot(endpoint) {
        Placement::Endpoint(endpoint)
    } else {
        Placement::Wait
    }
}
