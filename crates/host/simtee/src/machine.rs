//! A simulated machine: the one place where its keys, its quoting enclave and its files come together.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

use dcap_qvl::QuoteCollateralV3;
use ring::rand::SystemRandom;

use crate::pki::{Certificates, Secrets};
use crate::processor::Identity;
use crate::quote::QuotingEnclave;
use crate::seal::{SealPolicy, seal_key};
use crate::state::State;
use crate::validity::{COLLATERAL_DAYS, Validity};
use crate::{Measurement, SimteeError, collateral};

/// A simulated platform with a public-key infrastructure of its own.
///
/// It is cheap to share between threads behind an `Arc`: quoting and key derivation take `&self`.
pub struct Machine {
    state: State,
    trust_domain: [u8; 32],
    quoting_enclave: QuotingEnclave,
    random: SystemRandom,
}

/// What [`Machine::init`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitOutcome {
    /// There was no machine; one was created.
    Created,
    /// There was a machine; it was kept as it is.
    Kept,
    /// There was a machine; its keys were kept, its collateral was issued anew because it had expired or soon would.
    Renewed,
}

impl Machine {
    /// Creates a machine whose certificates and collateral are valid from `now` on, and writes it to `state_dir`.
    ///
    /// A machine that is already there is an error, never overwritten: its sealing keys would be lost.
    pub fn create(state_dir: &Path, now: SystemTime) -> Result<Self, SimteeError> {
        let random = SystemRandom::new();
        let secrets = Secrets::generate(&random)?;
        let identity = Identity::random(&random)?;
        let certificates = Certificates::issue(&secrets, &identity, now, &random)?;
        let validity = Validity::starting(now, COLLATERAL_DAYS)?;
        let collateral = collateral::issue(&secrets, &certificates, &validity, 1, &random)?;
        let machine = Self::start(
            State::new(secrets, identity, certificates, validity, collateral),
            random,
        )?;
        machine.state.write_new(state_dir)?;
        machine.publish(state_dir)?;
        Ok(machine)
    }

    /// Loads the machine that [`Machine::create`] wrote.
    pub fn load(state_dir: &Path) -> Result<Self, SimteeError> {
        Self::start(State::read(state_dir)?, SystemRandom::new())
    }

    /// Loads the machine in `state_dir`, or creates one if there is none. Collateral that has expired or soon will is
    /// renewed, and missing public files are written again. Of two that run at once, one creates, the other keeps.
    pub fn init(state_dir: &Path, now: SystemTime) -> Result<(Self, InitOutcome), SimteeError> {
        let mut machine = match Self::load(state_dir) {
            Err(SimteeError::StateMissing { .. }) => match Self::create(state_dir, now) {
                Err(SimteeError::StateExists { .. }) => Self::load(state_dir)?,
                created => return created.map(|machine| (machine, InitOutcome::Created)),
            },
            loaded => loaded?,
        };
        if machine.state.validity.needs_renewal(now) {
            machine.renew_collateral(state_dir, now)?;
            return Ok((machine, InitOutcome::Renewed));
        }
        machine.publish(state_dir)?;
        Ok((machine, InitOutcome::Kept))
    }

    /// Issues the collateral anew, valid from `now` on. Keys and certificates stay, and with them all quotes.
    pub fn renew_collateral(
        &mut self,
        state_dir: &Path,
        now: SystemTime,
    ) -> Result<(), SimteeError> {
        let state = &mut self.state;
        let issue = state.issue.saturating_add(1);
        let validity = Validity::starting(now, COLLATERAL_DAYS)?;
        state.collateral = collateral::issue(
            &state.secrets,
            &state.certificates,
            &validity,
            issue,
            &self.random,
        )?;
        (state.issue, state.validity) = (issue, validity);
        state.replace(state_dir)?;
        self.publish(state_dir)
    }

    /// Writes the files in `state_dir/public/`, which are copies of what this machine holds.
    pub fn publish(&self, state_dir: &Path) -> Result<(), SimteeError> {
        self.state.publish(state_dir)
    }

    /// An SGX DCAP quote, version 3, of an enclave with this measurement over this report data.
    ///
    /// The caller says which measurement. That is the processor's privilege: an enclave only ever talks to the
    /// [`device`](crate::device), which answers for the measurement that the launcher took.
    pub fn quote(
        &self,
        measurement: &Measurement,
        report_data: &[u8; 64],
    ) -> Result<Vec<u8>, SimteeError> {
        self.quoting_enclave
            .quote(measurement, report_data, &self.random)
    }

    /// The sealing key of an enclave with this measurement. The caller zeroizes it.
    pub fn seal_key(&self, measurement: &Measurement, policy: SealPolicy) -> [u8; 32] {
        seal_key(
            &self.state.secrets.seal_secret,
            &self.trust_domain,
            policy,
            measurement,
        )
    }

    /// The root certificate in DER: what a verifier must be told to trust.
    pub fn root_der(&self) -> &[u8] {
        &self.state.certificates.root_der
    }

    /// The root certificate in PEM.
    pub fn root_pem(&self) -> &str {
        &self.state.certificates.root_pem
    }

    /// The collateral with which this machine's quotes are verified.
    pub fn collateral(&self) -> &QuoteCollateralV3 {
        &self.state.collateral
    }

    /// When the collateral stops being accepted.
    pub fn collateral_expires(&self) -> SystemTime {
        self.state.validity.until()
    }

    /// The SHA-256 of the root's SubjectPublicKeyInfo in DER. It is part of every sealing key.
    pub fn trust_domain(&self) -> [u8; 32] {
        self.trust_domain
    }

    /// The platform provisioning id, by which an allow-list names this machine.
    pub fn ppid(&self) -> [u8; 16] {
        self.state.identity.ppid
    }

    fn start(state: State, random: SystemRandom) -> Result<Self, SimteeError> {
        let trust_domain = state.secrets.trust_domain()?;
        let quoting_enclave = QuotingEnclave::certify(
            &state.secrets,
            &state.certificates,
            &state.identity,
            &random,
        )?;
        Ok(Self {
            state,
            trust_domain,
            quoting_enclave,
            random,
        })
    }
}

impl fmt::Debug for Machine {
    /// Names the machine; its keys are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("trust_domain", &hex::encode(self.trust_domain))
            .field("ppid", &hex::encode(self.state.identity.ppid))
            .finish_non_exhaustive()
    }
}
