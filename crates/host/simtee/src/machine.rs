//! A simulated machine: the one place where its keys, its quoting enclaves and its files come together.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dcap_qvl::QuoteCollateralV3;
use ring::rand::SystemRandom;

use crate::collateral::Issue;
use crate::fault::Faults;
use crate::pki::{Certificates, Secrets};
use crate::processor::Identity;
use crate::qe::QuotingEnclave;
use crate::seal::{SealPolicy, seal_key};
use crate::state::State;
use crate::validity::{CERTIFICATE_DAYS, COLLATERAL_DAYS, Validity};
use crate::{Fault, Measurement, SimteeError, TdMeasurement, Tee};

/// A simulated platform with a public-key infrastructure of its own.
///
/// It is cheap to share between threads behind an `Arc`: quoting and key derivation take `&self`. Whatever changes it
/// is written to its directory at once; other processes see it there. One process at a time may change it.
///
/// ```
/// # use std::time::SystemTime;
/// use sesemi_simtee::{Fault, Machine, Measurement};
///
/// # let directory = tempfile::tempdir()?;
/// let machine = Machine::create(directory.path(), SystemTime::now())?.with_fault(Fault::PlatformRevoked)?;
/// let quote = machine.quote(&Measurement::of_elf(b"a program"), &[0; 64])?;
/// let collateral = machine.collateral(); // under which no verifier accepts the quote
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Machine {
    directory: PathBuf,
    state: State,
    trust_domain: [u8; 32],
    sgx: QuotingEnclave,
    tdx: QuotingEnclave,
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
        let dates = Validity::starting(now, CERTIFICATE_DAYS)?;
        let certificates = Certificates::issue(&secrets, &identity, dates, &random)?;
        let validity = Validity::starting(now, COLLATERAL_DAYS)?;
        let collateral = Issue::under(&Faults::default(), validity, 1).collaterals(
            &secrets,
            &certificates,
            &random,
        )?;
        let state = State::new(secrets, identity, certificates, validity, collateral);
        let machine = Self::start(state_dir, state, random)?;
        machine.state.write_new(state_dir)?;
        machine.publish()?;
        Ok(machine)
    }

    /// Loads the machine that [`Machine::create`] wrote.
    pub fn load(state_dir: &Path) -> Result<Self, SimteeError> {
        Self::start(state_dir, State::read(state_dir)?, SystemRandom::new())
    }

    /// Loads the machine in `state_dir`, or creates one if there is none. Collateral that has expired or soon will is
    /// renewed, and missing public files are written again. Faults stay. Of two that run at once, one creates, the other
    /// keeps.
    pub fn init(state_dir: &Path, now: SystemTime) -> Result<(Self, InitOutcome), SimteeError> {
        let mut machine = match Self::load(state_dir) {
            Err(SimteeError::StateMissing { .. }) => match Self::create(state_dir, now) {
                Err(SimteeError::StateExists { .. }) => Self::load(state_dir)?,
                created => return created.map(|machine| (machine, InitOutcome::Created)),
            },
            loaded => loaded?,
        };
        if machine.needs_renewal(now) {
            machine.renew_collateral(now)?;
            return Ok((machine, InitOutcome::Renewed));
        }
        machine.publish()?;
        Ok((machine, InitOutcome::Kept))
    }

    /// Whether the collateral has expired or soon will; a fault of the clock does not count.
    pub fn needs_renewal(&self, now: SystemTime) -> bool {
        self.state.validity.needs_renewal(now)
    }

    /// Issues the collateral anew, valid from `now` on. Keys and certificates stay, and with them all quotes.
    pub fn renew_collateral(&mut self, now: SystemTime) -> Result<(), SimteeError> {
        self.state.validity = Validity::starting(now, COLLATERAL_DAYS)?;
        self.reissue()
    }

    /// Makes the machine misbehave in one way more: new quotes and the published collateral show the fault.
    ///
    /// The collateral is issued anew, for the same time. A fault of a kind that is already there takes its place.
    ///
    /// # Errors
    ///
    /// [`SimteeError::Clock`] if certificates cannot express the time that a clock offset leads to, or why the files could
    /// not be written. They are then as they were; this machine may not be, and should be loaded anew.
    pub fn apply(&mut self, fault: Fault) -> Result<(), SimteeError> {
        self.state.faults.add(fault);
        self.take_effect()
    }

    /// [`Machine::apply`] for a machine that was just made or loaded.
    pub fn with_fault(mut self, fault: Fault) -> Result<Self, SimteeError> {
        self.apply(fault)?;
        Ok(self)
    }

    /// Removes all faults. The collateral is issued anew, for the same time.
    pub fn heal(&mut self) -> Result<(), SimteeError> {
        self.state.faults.clear();
        self.take_effect()
    }

    /// The faults that are in effect, in the order in which they came.
    pub fn faults(&self) -> &[Fault] {
        self.state.faults.as_slice()
    }

    /// Writes the files in `public/`, which are copies of what this machine holds.
    pub fn publish(&self) -> Result<(), SimteeError> {
        self.state.publish(&self.directory)
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
        self.sgx.quote(measurement, report_data, &self.random)
    }

    /// A TDX DCAP quote, version 4 with a TDX 1.0 report, of a trust domain with this measurement over this report data.
    pub fn td_quote(
        &self,
        measurement: &TdMeasurement,
        report_data: &[u8; 64],
    ) -> Result<Vec<u8>, SimteeError> {
        self.tdx.td_quote(measurement, report_data, &self.random)
    }

    /// The sealing key of an enclave with this measurement, at the enclave's own security version. The caller zeroizes
    /// it.
    pub fn seal_key(&self, measurement: &Measurement, policy: SealPolicy) -> [u8; 32] {
        self.derive(measurement, policy, measurement.isv_svn)
    }

    /// The sealing key by signer at an older security version (or the enclave's own): an upgraded program opens with it
    /// what its predecessor sealed. The caller zeroizes it.
    ///
    /// # Errors
    ///
    /// [`SimteeError::NewerVersion`] if the version is above the enclave's own: an old program with a known weakness
    /// must not open what its fixed successor sealed.
    pub fn seal_key_of_version(
        &self,
        measurement: &Measurement,
        isv_svn: u16,
    ) -> Result<[u8; 32], SimteeError> {
        if isv_svn > measurement.isv_svn {
            return Err(SimteeError::NewerVersion {
                asked: isv_svn,
                own: measurement.isv_svn,
            });
        }
        Ok(self.derive(measurement, SealPolicy::Signer, isv_svn))
    }

    /// The root certificate in DER: what a verifier must be told to trust.
    pub fn root_der(&self) -> &[u8] {
        &self.state.certificates.root_der
    }

    /// The root certificate in PEM.
    pub fn root_pem(&self) -> &str {
        &self.state.certificates.root_pem
    }

    /// The collateral with which this machine's SGX quotes are verified.
    pub fn collateral(&self) -> &QuoteCollateralV3 {
        self.collateral_for(Tee::Sgx)
    }

    /// The collateral with which this machine's TDX quotes are verified.
    pub fn td_collateral(&self) -> &QuoteCollateralV3 {
        self.collateral_for(Tee::Tdx)
    }

    /// The collateral with which this machine's quotes of one kind are verified.
    pub fn collateral_for(&self, tee: Tee) -> &QuoteCollateralV3 {
        self.state.collateral.of(tee)
    }

    /// When the collateral stops being accepted.
    pub fn collateral_expires(&self) -> SystemTime {
        self.issue().validity().until()
    }

    /// The SHA-256 of the root's SubjectPublicKeyInfo in DER. It is part of every sealing key.
    pub fn trust_domain(&self) -> [u8; 32] {
        self.trust_domain
    }

    /// The platform provisioning id, by which an allow-list names this machine.
    pub fn ppid(&self) -> [u8; 16] {
        self.state.identity.ppid
    }

    /// The directory that holds the machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file that is the machine.
    pub(crate) fn file(&self) -> PathBuf {
        State::file(&self.directory)
    }

    fn derive(&self, measurement: &Measurement, policy: SealPolicy, isv_svn: u16) -> [u8; 32] {
        let secret = &self.state.secrets.seal_secret;
        seal_key(secret, &self.trust_domain, policy, measurement, isv_svn)
    }

    fn issue(&self) -> Issue<'_> {
        Issue::under(&self.state.faults, self.state.validity, self.state.issue)
    }

    /// Certifies the quoting enclaves and issues the collateral as the faults now demand.
    fn take_effect(&mut self) -> Result<(), SimteeError> {
        (self.sgx, self.tdx) = quoting_enclaves(&self.state, &self.random)?;
        self.reissue()
    }

    fn reissue(&mut self) -> Result<(), SimteeError> {
        // Stale collateral is an older issue, not a new one.
        if !self.state.faults.has(&Fault::StaleCollateral) {
            self.state.issue = self.state.issue.saturating_add(1);
        }
        self.state.collateral = self.issue().collaterals(
            &self.state.secrets,
            &self.state.certificates,
            &self.random,
        )?;
        self.state.replace(&self.directory)?;
        self.publish()
    }

    fn start(directory: &Path, state: State, random: SystemRandom) -> Result<Self, SimteeError> {
        let (sgx, tdx) = quoting_enclaves(&state, &random)?;
        Ok(Self {
            directory: directory.to_owned(),
            trust_domain: state.secrets.trust_domain()?,
            state,
            sgx,
            tdx,
            random,
        })
    }
}

fn quoting_enclaves(
    state: &State,
    random: &SystemRandom,
) -> Result<(QuotingEnclave, QuotingEnclave), SimteeError> {
    let certify = |tee| {
        QuotingEnclave::certify(
            tee,
            &state.secrets,
            &state.certificates,
            &state.identity,
            &state.faults,
            random,
        )
    };
    Ok((certify(Tee::Sgx)?, certify(Tee::Tdx)?))
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
