//! A simulated machine in this process, and the two enclaves that are measured on it: KeyService and SeMIRT.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sesemi_attest::channel::{Acceptor, Connector};
use sesemi_attest::{
    AppraisalPolicy, Clock, Endorsements, EvidenceVerifier, SystemClock, TrustAnchor,
};
use sesemi_protocol::{Entropy, SigningIdentity, SystemEntropy};
use sesemi_simtee::{Machine, Measurement};
use sesemi_testkit::enclave::{self, Enclave};
use tempfile::TempDir;

use crate::error::BenchError;

/// The machine, its enclaves, and whoever trusts them.
#[derive(Clone)]
pub(crate) struct Lab {
    pub(crate) keyservice: Enclave,
    pub(crate) semirt: Enclave,
    anchor: TrustAnchor,
    endorsements: Endorsements,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The machine's folder.
    pub(crate) machine: PathBuf,
    /// Holds the machine's files for as long as anybody uses it.
    _folder: Option<Arc<TempDir>>,
}

impl Lab {
    pub(crate) fn new() -> Result<Self, BenchError> {
        let folder = tempfile::tempdir()?;
        let machine = Machine::create(folder.path(), SystemTime::now())?;
        Self::on(machine, Some(folder))
    }

    /// On the machine of another process.
    pub(crate) fn existing(folder: &Path) -> Result<Self, BenchError> {
        Self::on(Machine::load(folder)?, None)
    }

    fn on(machine: Machine, folder: Option<TempDir>) -> Result<Self, BenchError> {
        let machine = Arc::new(machine);
        let measured = |program: &[u8]| Enclave::new(machine.clone(), Measurement::of_elf(program));
        Ok(Self {
            keyservice: measured(b"KeyService"),
            semirt: measured(b"SeMIRT"),
            anchor: enclave::anchor(&machine),
            endorsements: enclave::endorsements(&machine),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy::new()),
            machine: machine.directory().to_owned(),
            _folder: folder.map(Arc::new),
        })
    }

    /// A verifier that has verified nothing yet, as a new process has it.
    pub(crate) fn verifier(&self) -> EvidenceVerifier {
        EvidenceVerifier::new(self.anchor.clone(), self.endorsements.clone())
    }

    /// What a client demands of KeyService: exactly its code.
    pub(crate) fn keyservice_policy(&self) -> Result<AppraisalPolicy, BenchError> {
        let code = self.keyservice.code();
        Ok(AppraisalPolicy::reference_values([code])?)
    }

    /// SeMIRT's side of a channel, in a process that has just started.
    pub(crate) fn connector(&self) -> Result<Connector, BenchError> {
        Ok(Connector::for_enclave(
            self.verifier(),
            self.keyservice_policy()?,
            self.clock.clone(),
            self.entropy.clone(),
            Arc::new(self.semirt.clone()),
        )?)
    }

    /// KeyService's side of a channel, in a process that has just started.
    pub(crate) fn acceptor(&self, identity: Arc<SigningIdentity>) -> Result<Acceptor, BenchError> {
        Ok(Acceptor::new(
            identity,
            Arc::new(self.keyservice.clone()),
            self.verifier(),
            AppraisalPolicy::per_release(),
            self.clock.clone(),
            self.entropy.clone(),
        )?)
    }
}
