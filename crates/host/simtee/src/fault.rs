//! Faults: how a simulated machine is told to misbehave, so that tests can see who notices.
//!
//! Each fault is one thing that can be wrong with a platform, its quoting enclave or the service that vouches for them,
//! and nothing else: quotes and collateral stay right in every other respect, so that a verifier which misses the one
//! check accepts them. They are kept in the machine's state and may be combined.

use std::mem::discriminant;

use serde::{Deserialize, Serialize};

use crate::validity::TCB_EVALUATION_DATA_NUMBER;

/// One thing that is wrong with a simulated machine; see [`Machine::apply`](crate::Machine::apply).
///
/// The reasons of refusal that are named here are those of a DCAP verifier with a strict policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, clap::Subcommand)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// The PCK CA's revocation list names the platform's PCK certificate.
    PlatformRevoked,
    /// The root's revocation list names the PCK CA.
    PckCaRevoked,
    /// TCB info gives the level on which the platform is another status than UpToDate.
    TcbStatus {
        /// The status of the platform's level.
        status: PlatformStatus,
    },
    /// Security advisories are open on the platform's level, whose status stays as it is. A plain DCAP verifier, however
    /// strict, accepts that: they show in the claims, and whoever minds them has to look. SeSeMI's policy minds them.
    Advisories {
        /// Their names, as `INTEL-SA-00334`.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// The PCE of the platform is older than any level that TCB info lists.
    PceSvnBelowLevels,
    /// QE identity lists a newer quoting enclave; the machine's own is out of date.
    QeOutOfDate,
    /// TCB info lists a newer TDX module; the machine's own is out of date. SGX quotes are not concerned.
    TdxModuleOutOfDate,
    /// Enclaves and trust domains run in debug mode, in which the host reads their memory.
    Debug,
    /// Collateral is issued as if the clock were off by so many seconds: negative for the past (its validity of 30 days
    /// may then have ended), positive for the future (it may not have begun).
    ClockOffset {
        /// Seconds that are added to the time of issue.
        #[arg(allow_negative_numbers = true)]
        seconds: i64,
    },
    /// Collateral of an older issue is published again: still valid, but with a lower TCB evaluation data number and
    /// lower numbers of the revocation lists. A strict policy accepts it unless it was told a minimum.
    StaleCollateral,
    /// The quoting enclave has another signer than QE identity names.
    QeOtherSigner,
    /// QE identity was changed after it was signed.
    ForgedQeIdentity,
    /// TCB info was changed after it was signed.
    ForgedTcbInfo,
    /// TCB info is genuine, but for another model of processor.
    FmspcMismatch,
    /// Quotes are signed by an attestation key that the quoting enclave's report does not vouch for.
    UnboundAttestationKey,
    /// Quotes carry a certificate chain that ends in another root; collateral stays with the machine's own.
    OtherRoot,
    /// The platform's PCK certificate says that packages can be added to the platform.
    DynamicPlatform,
    /// The platform's PCK certificate says that the registration service keeps the platform's root keys.
    CachedKeys,
    /// The platform's PCK certificate says that simultaneous multithreading is on.
    Smt,
}

/// What TCB info can say of a platform's level, other than UpToDate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PlatformStatus {
    /// Known weaknesses, fixed in a newer version.
    OutOfDate,
    /// The platform needs another configuration.
    ConfigurationNeeded,
    /// The software in the enclave has to defend itself.
    SwHardeningNeeded,
    /// Both of the former.
    ConfigurationAndSwHardeningNeeded,
    /// Out of date, and needs another configuration.
    OutOfDateConfigurationNeeded,
    /// The level's keys are compromised: no verifier accepts it under any policy.
    Revoked,
}

impl PlatformStatus {
    /// The word in TCB info.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::OutOfDate => "OutOfDate",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
            Self::Revoked => "Revoked",
        }
    }
}

/// The faults of one machine, at most one of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault; it takes the place of one of the same kind.
    pub(crate) fn add(&mut self, fault: Fault) {
        self.0
            .retain(|present| discriminant(present) != discriminant(&fault));
        self.0.push(fault);
    }

    /// Removes all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// All, in the order in which they came.
    pub(crate) fn as_slice(&self) -> &[Fault] {
        &self.0
    }

    /// Whether a fault without parameters is present.
    pub(crate) fn has(&self, fault: &Fault) -> bool {
        self.0.contains(fault)
    }

    /// The word that TCB info says of the platform's level.
    pub(crate) fn platform_status(&self) -> &'static str {
        self.find(|fault| match fault {
            Fault::TcbStatus { status } => Some(status.word()),
            _ => None,
        })
        .unwrap_or("UpToDate")
    }

    /// The advisories that are open on the platform's level.
    pub(crate) fn advisories(&self) -> &[String] {
        self.find(|fault| match fault {
            Fault::Advisories { ids } => Some(ids.as_slice()),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// The seconds by which the clock of the provisioning service is off.
    pub(crate) fn clock_offset(&self) -> i64 {
        self.find(|fault| match fault {
            Fault::ClockOffset { seconds } => Some(*seconds),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// The TCB evaluation data number that is published.
    pub(crate) fn evaluation_data_number(&self) -> u32 {
        TCB_EVALUATION_DATA_NUMBER.saturating_sub(self.has(&Fault::StaleCollateral).into())
    }

    fn find<'a, T>(&'a self, pick: impl FnMut(&'a Fault) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(pick)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_takes_the_place_of_one_of_its_kind_and_joins_others() {
        let mut faults = Faults::default();
        faults.add(Fault::ClockOffset { seconds: 1 });
        faults.add(Fault::Debug);
        faults.add(Fault::ClockOffset { seconds: 2 });
        assert_eq!(
            faults.as_slice(),
            [Fault::Debug, Fault::ClockOffset { seconds: 2 }]
        );
        assert_eq!(faults.clock_offset(), 2);
        faults.clear();
        assert_eq!(faults, Faults::default());
    }
}
