//! Enclaves of a simulated machine in this process, and what others need to believe them: for tests, fuzz targets, benchmarks
//! and the crash tester.
//!
//! The machine is asked directly and not over its device socket: a quote then costs what the simulated quoting enclave
//! works, one signature. Real quoting enclaves take longer.

use std::sync::Arc;

use sesemi_attest::attester::{Attester, AttesterError, SealBinding};
use sesemi_attest::code_identity::{CodeIdentity, SgxMeasurement, TeeKind};
use sesemi_attest::{Endorsements, Evidence, EvidenceVerifier, TrustAnchor};
use sesemi_protocol::{CodeIdentityDigest, SecretKey};
use sesemi_simtee::{Machine, Measurement, SealPolicy};

/// What the TEE is called in results.
pub const NAME: &str = "simulated";

/// A program on a simulated machine.
#[derive(Debug, Clone)]
pub struct Enclave {
    machine: Arc<Machine>,
    measurement: Measurement,
}

impl Enclave {
    /// What is measured so on this machine.
    #[must_use]
    pub fn new(machine: Arc<Machine>, measurement: Measurement) -> Self {
        Self {
            machine,
            measurement,
        }
    }

    /// Its code identity.
    #[must_use]
    pub fn code(&self) -> CodeIdentityDigest {
        code(&self.machine, &self.measurement)
    }
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

/// The machine's maker, as a trust anchor.
///
/// # Panics
/// If the machine has no root of its own, which one that was made or loaded has.
#[must_use]
pub fn anchor(machine: &Machine) -> TrustAnchor {
    TrustAnchor::simulated(machine.root_der().to_vec()).expect("the machine has a root")
}

/// What the machine's maker publishes.
///
/// # Panics
/// If the machine's collateral cannot be read back.
#[must_use]
pub fn endorsements(machine: &Machine) -> Endorsements {
    let collateral = serde_json::to_vec(machine.collateral()).expect("collateral is JSON");
    Endorsements::from_json(&collateral).expect("the machine's collateral reads back")
}

/// A verifier that believes the machine's maker and has verified nothing yet.
///
/// # Panics
/// As [`anchor`] and [`endorsements`].
#[must_use]
pub fn verifier(machine: &Machine) -> EvidenceVerifier {
    EvidenceVerifier::new(anchor(machine), endorsements(machine))
}

/// The code identity of what is measured so on this machine.
///
/// # Panics
/// As [`anchor`].
#[must_use]
pub fn code(machine: &Machine, measured: &Measurement) -> CodeIdentityDigest {
    let identity = CodeIdentity::sgx(
        anchor(machine).domain(),
        &SgxMeasurement {
            mr_enclave: measured.mr_enclave,
            mr_signer: measured.mr_signer,
            isv_prod_id: measured.isv_prod_id,
            isv_svn: measured.isv_svn,
            config_id: measured.config_id,
        },
    );
    identity.digest().expect("a code identity has an encoding")
}
