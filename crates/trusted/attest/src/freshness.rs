//! Freshness: what was seen once is the least that is accepted from then on.
//!
//! The host chooses which endorsements a verifier reads and what its clock says. Older revocation lists, older TCB levels
//! and an older clock would all bring back platforms that were given up since. So the verifier keeps a floor under each of
//! them: signed numbers and signed dates that it has seen may only grow. The clock's floor is the newest date that a TEE
//! maker has *signed*, not the newest that the clock has shown, so that a clock that was wrong once spoils nothing for ever.
//!
//! Where the TEE has sealed state the floor is kept with it ([`FreshnessFloor::snapshot`], [`FreshnessFloor::raise_to`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use minicbor::{Decode, Encode};
use sesemi_protocol::Digest;

use crate::code_identity::TeeKind;

/// Most numbers that a floor holds. There is one for each model of processor and each issuer of lists.
const MAX_NUMBERS: usize = 1024;

/// Something that only grows. The numbers of the variants are part of the sealed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum Growing {
    /// The newest date that a maker signed, in seconds since 1970.
    #[n(0)]
    SignedDate,
    /// `tcbEvaluationDataNumber` of TCB info and QE identity.
    #[n(1)]
    EvaluationNumber {
        /// Trust domain of the root that signed it.
        #[n(0)]
        domain: Digest,
        /// Kind of TEE.
        #[n(1)]
        tee: TeeKind,
        /// Model of processor.
        #[cbor(n(2), with = "minicbor::bytes")]
        fmspc: [u8; 6],
    },
    /// Date of issue (`thisUpdate`, RFC 5280, 5.1.2.4) of the root's list, in seconds since 1970. Not its number: Intel's
    /// lists all have number 1.
    #[n(2)]
    RootCrl {
        /// Trust domain of the root.
        #[n(0)]
        domain: Digest,
    },
    /// Date of issue of the list of one of Intel's two PCK authorities, in seconds since 1970.
    #[n(3)]
    PckCrl {
        /// Trust domain of the root.
        #[n(0)]
        domain: Digest,
        /// Whether it is the platform authority's list, not the processor authority's.
        #[n(1)]
        platform_ca: bool,
    },
}

/// One number of a floor, as it is kept with sealed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Level {
    /// What grows.
    #[n(0)]
    pub what: Growing,
    /// Its least acceptable value.
    #[n(1)]
    pub at_least: u64,
}

/// Something fell behind what was seen before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// The endorsements are older than those that were used before.
    #[error(
        "the endorsements are stale: {what} is {found}, but {floor} was seen before; fetch current endorsements"
    )]
    Number {
        /// What fell.
        what: &'static str,
        /// What the endorsements say.
        found: u64,
        /// What was seen before.
        floor: u64,
    },
    /// Too many different sources.
    #[error("more than {MAX_NUMBERS} processor models and list issuers were seen")]
    TooMany,
}

impl Growing {
    fn name(self) -> &'static str {
        match self {
            Self::SignedDate => "the newest signed date",
            Self::EvaluationNumber { .. } => "the TCB evaluation data number",
            Self::RootCrl { .. } => "the date of the root's revocation list",
            Self::PckCrl { .. } => "the date of the PCK authority's revocation list",
        }
    }
}

/// The least that a verifier accepts. Clones of a verifier share one.
#[derive(Debug, Default)]
pub struct FreshnessFloor(Mutex<BTreeMap<Growing, u64>>);

impl FreshnessFloor {
    /// The time to verify at: the clock's, but never before a date that was signed already.
    #[must_use]
    pub fn time(&self, clock: u64) -> u64 {
        let signed = self.lock().get(&Growing::SignedDate).copied();
        clock.max(signed.unwrap_or(0))
    }

    /// Checks verified numbers against the floor, then raises it to them; all or nothing.
    pub(crate) fn admit(&self, seen: &[Level]) -> Result<(), Stale> {
        let mut levels = self.lock();
        for Level { what, at_least } in seen {
            match levels.get(what) {
                // An older date alone is no fault: sets of endorsements are issued one after the other.
                Some(floor) if at_least < floor && *what != Growing::SignedDate => {
                    return Err(Stale::Number {
                        what: what.name(),
                        found: *at_least,
                        floor: *floor,
                    });
                }
                _ => {}
            }
        }
        raise(&mut levels, seen)
    }

    /// The floor, to be kept with sealed state.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Level> {
        let levels = self.lock();
        let level = |(what, at_least): (&Growing, &u64)| Level {
            what: *what,
            at_least: *at_least,
        };
        levels.iter().map(level).collect()
    }

    /// Raises the floor to what was kept; nothing falls.
    ///
    /// # Errors
    /// [`Stale::TooMany`] for more numbers than there can be.
    pub fn raise_to(&self, kept: &[Level]) -> Result<(), Stale> {
        raise(&mut self.lock(), kept)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Growing, u64>> {
        // Every change is a whole one, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn raise(levels: &mut BTreeMap<Growing, u64>, seen: &[Level]) -> Result<(), Stale> {
    for Level { what, at_least } in seen {
        if levels.len() >= MAX_NUMBERS && !levels.contains_key(what) {
            return Err(Stale::TooMany);
        }
        let level = levels.entry(*what).or_default();
        *level = (*level).max(*at_least);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRL: Growing = Growing::RootCrl {
        domain: Digest([1; 32]),
    };

    fn level(what: Growing, at_least: u64) -> Level {
        Level { what, at_least }
    }

    #[test]
    fn numbers_grow_and_what_falls_behind_is_refused() {
        let floor = FreshnessFloor::default();
        floor.admit(&[level(CRL, 5)]).unwrap();
        floor.admit(&[level(CRL, 5)]).unwrap();
        floor.admit(&[level(CRL, 6)]).unwrap();
        assert!(matches!(
            floor.admit(&[level(CRL, 5)]),
            Err(Stale::Number {
                found: 5,
                floor: 6,
                ..
            })
        ));
        let other = Growing::RootCrl {
            domain: Digest([2; 32]),
        };
        floor.admit(&[level(other, 1)]).unwrap();
    }

    #[test]
    fn a_set_of_which_one_number_fell_raises_nothing() {
        let floor = FreshnessFloor::default();
        floor.admit(&[level(CRL, 5)]).unwrap();
        let before = floor.snapshot();
        let higher = level(Growing::SignedDate, 9);
        assert!(floor.admit(&[higher, level(CRL, 4)]).is_err());
        assert_eq!(floor.snapshot(), before);
    }

    #[test]
    fn the_clock_is_never_taken_to_be_before_a_signed_date() {
        let floor = FreshnessFloor::default();
        floor.admit(&[level(Growing::SignedDate, 100)]).unwrap();
        assert_eq!((floor.time(50), floor.time(150)), (100, 150));
        // Asking does not raise: a clock that was wrong once spoils nothing.
        assert_eq!(floor.time(120), 120);
        floor.admit(&[level(Growing::SignedDate, 90)]).unwrap();
        assert_eq!(floor.time(0), 100);
    }

    #[test]
    fn a_kept_floor_holds_in_the_next_life() {
        let floor = FreshnessFloor::default();
        floor
            .admit(&[level(CRL, 5), level(Growing::SignedDate, 100)])
            .unwrap();
        let kept = sesemi_protocol::cbor::encode(&floor.snapshot()).unwrap();
        let kept: Vec<Level> = sesemi_protocol::cbor::decode(&kept, kept.len()).unwrap();
        let next = FreshnessFloor::default();
        next.raise_to(&kept).unwrap();
        assert!(next.admit(&[level(CRL, 4)]).is_err());
        assert_eq!(next.time(0), 100);
    }
}
