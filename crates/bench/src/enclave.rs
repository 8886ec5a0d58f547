//! A simulated machine in this process, and the two enclaves that are measured on it: KeyService and SeMIRT.
//!
//! The machine is asked directly and not over its device socket: a quote then costs what the simulated quoting enclave
//! works, one signature. Real quoting enclaves take longer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sesemi_attest::attester::{Attester, AttesterError, SealBinding};
use sesemi_attest::channel::{Acceptor, Connector};
use sesemi_attest::code_identity::{CodeIdentity, SgxMeasurement, TeeKind};
use sesemi_attest::{
    AppraisalPolicy, Clock, Endorsements, Evidence, EvidenceVerifier, SystemClock, TrustAnchor,
};
use sesemi_protocol::{CodeIdentityDigest, Entropy, SecretKey, SigningIdentity, SystemEntropy};
use sesemi_simtee::{Machine, Measurement, SealPolicy};
use tempfile::TempDir;

use crate::error::BenchError;

/// What the TEE is called in results.
pub(crate) const NAME: &str = "simulated";

/// An enclave on the simulated machine.
#[derive(Clone)]
pub(crate) struct Enclave {
    machine: Arc<Machine>,
    measurement: Measurement,
}

impl Attester for Enclave {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let quote = self
            .machine
            .quote(&self.measurement, report_data)
            .map_err(|error| AttesterError::Refused(error.to_string()))?;
        Ok(Evidence::from_bytes(quote)?)
    }

    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError> {
        let policy = match binding {
            SealBinding::Measurement => SealPolicy::Measurement,
            SealBinding::Signer { .. } => SealPolicy::Signer,
        };
        let key = self.machine.seal_key(&self.measurement, policy);
        Ok(SecretKey::from_bytes(key))
    }
}

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
        let collateral = serde_json::to_vec(machine.collateral()).map_err(std::io::Error::other)?;
        let enclave = |program: &[u8]| Enclave {
            machine: machine.clone(),
            measurement: Measurement::of_elf(program),
        };
        Ok(Self {
            keyservice: enclave(b"KeyService"),
            semirt: enclave(b"SeMIRT"),
            anchor: TrustAnchor::simulated(machine.root_der().to_vec())?,
            endorsements: Endorsements::from_json(&collateral)?,
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

    /// The code identity of an enclave of this machine.
    pub(crate) fn code(&self, enclave: &Enclave) -> Result<CodeIdentityDigest, BenchError> {
        let measured = &enclave.measurement;
        let identity = CodeIdentity::sgx(
            self.anchor.domain(),
            &SgxMeasurement {
                mr_enclave: measured.mr_enclave,
                mr_signer: measured.mr_signer,
                isv_prod_id: measured.isv_prod_id,
                isv_svn: measured.isv_svn,
                config_id: measured.config_id,
            },
        );
        Ok(identity.digest()?)
    }

    /// What a client demands of KeyService: exactly its code.
    pub(crate) fn keyservice_policy(&self) -> Result<AppraisalPolicy, BenchError> {
        let code = self.code(&self.keyservice)?;
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
