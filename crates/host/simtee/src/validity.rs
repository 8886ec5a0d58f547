//! How long simulated certificates and collateral are valid, and how instants are written.
//!
//! The clock is passed in by the caller, so that tests can put a machine into the past or the future.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::SimteeError;

/// Days from its creation for which a machine's certificates are valid.
pub const CERTIFICATE_DAYS: u64 = 3650;
/// Days from its issue for which TCB info, QE identity and revocation lists are valid, as with the real service.
pub const COLLATERAL_DAYS: u64 = 30;
/// How far before "now" everything becomes valid, so that a verifier whose clock is a little behind accepts it.
pub const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// The TCB evaluation data number that the collateral carries.
pub const TCB_EVALUATION_DATA_NUMBER: u32 = 20;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Collateral is renewed when less than this is left, so that nobody is surprised by its end.
const RENEWAL_MARGIN: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// A span of time in whole seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Validity {
    from: u64,
    until: u64,
}

impl Validity {
    /// From a little before `now` to `days` after it.
    pub(crate) fn starting(now: SystemTime, days: u64) -> Result<Self, SimteeError> {
        let since_epoch = now
            .duration_since(UNIX_EPOCH)
            .map_err(|_| SimteeError::Clock)?;
        let length = DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
        let validity = Self {
            from: since_epoch.saturating_sub(CLOCK_SKEW).as_secs(),
            until: since_epoch.saturating_add(length).as_secs(),
        };
        validity.not_after().map(|_| validity)
    }

    /// The same span, later by so many seconds, or earlier if they are negative.
    pub(crate) fn shifted(self, seconds: i64) -> Self {
        Self {
            from: self.from.saturating_add_signed(seconds),
            until: self.until.saturating_add_signed(seconds),
        }
    }

    /// The first instant of the span.
    pub(crate) fn not_before(&self) -> Result<OffsetDateTime, SimteeError> {
        instant(self.from)
    }

    /// The last instant of the span.
    pub(crate) fn not_after(&self) -> Result<OffsetDateTime, SimteeError> {
        instant(self.until)
    }

    /// The last instant of the span, for callers outside this crate. One that no clock can show, which only an edited
    /// file can hold, counts as long past.
    pub(crate) fn until(&self) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.until))
            .unwrap_or(UNIX_EPOCH)
    }

    /// Whether a verifier with this clock would refuse the span now, or soon will.
    pub(crate) fn needs_renewal(&self, now: SystemTime) -> bool {
        match now.duration_since(UNIX_EPOCH) {
            Ok(now) => {
                now.as_secs() < self.from
                    || now.saturating_add(RENEWAL_MARGIN).as_secs() > self.until
            }
            Err(_) => true,
        }
    }
}

/// The RFC 3339 form that Intel's collateral uses.
pub(crate) fn rfc3339(instant: OffsetDateTime) -> Result<String, SimteeError> {
    instant.format(&Rfc3339).map_err(|_| SimteeError::Clock)
}

fn instant(seconds: u64) -> Result<OffsetDateTime, SimteeError> {
    let seconds = i64::try_from(seconds).map_err(|_| SimteeError::Clock)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| SimteeError::Clock)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn collateral_is_renewed_before_it_ends_and_when_the_clock_was_turned_back() {
        let issued = 1_800_000_000;
        let validity = Validity::starting(at(issued), COLLATERAL_DAYS).unwrap();
        assert!(!validity.needs_renewal(at(issued)));
        assert!(!validity.needs_renewal(at(issued + 19 * 86_400)));
        assert!(validity.needs_renewal(at(issued + 21 * 86_400)));
        assert!(validity.needs_renewal(at(issued - 86_400)));
    }

    #[test]
    fn a_clock_before_the_epoch_is_refused() {
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert!(matches!(
            Validity::starting(before, 1),
            Err(SimteeError::Clock)
        ));
    }
}
