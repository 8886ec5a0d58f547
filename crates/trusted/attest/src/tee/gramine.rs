//! SGX, under the library OS Gramine: its pseudo-files in `/dev/attestation`.
//!
//! Report data is written to one file and the quote read from another, and both belong to the whole process. So the two
//! steps are one piece of work for the device's one thread. The quote comes from the quoting enclave through the host, who may
//! let us wait for ever, or give us any bytes: hence the deadline, the bound and the comparison.
//!
//! Source: Gramine's documentation, "Attestation and Secret Provisioning" and the manifest's "Encrypted files" (special
//! keys). Offsets in a quote: Intel SGX ECDSA Quote Library Reference, A.4 (version 3).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::SecretKey;

use super::device::Device;
use super::files::{self, Files};
use super::{require_report_data, stretch};
use crate::attester::{Attester, AttesterError, SealBinding};
use crate::code_identity::TeeKind;
use crate::evidence::{Evidence, EvidenceError, MAX_EVIDENCE};

/// Longest that the quoting enclave may take. It answers in milliseconds, or after its first start in a second or two.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Where the security version (ISVSVN) stands in a quote.
const SECURITY_VERSION: core::ops::Range<usize> = 306..308;
/// Where the report data stands in a quote.
const REPORT_DATA: core::ops::Range<usize> = 368..432;
/// Length of Gramine's keys, in bytes.
const KEY: usize = 16;

/// SGX under Gramine.
#[derive(Debug)]
pub struct Gramine {
    device: Device,
    pseudo: Pseudo,
}

/// The pseudo-files.
#[derive(Clone)]
struct Pseudo {
    folder: PathBuf,
    files: Arc<dyn Files>,
}

impl core::fmt::Debug for Pseudo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.folder.fmt(f)
    }
}

impl Gramine {
    /// Uses the pseudo-files in `folder`. No call takes longer than `deadline`.
    ///
    /// # Errors
    /// [`AttesterError::Unusable`] if Gramine was not told to attest, which says what to write into its manifest;
    /// [`AttesterError::UnknownProvider`] for a kind of attestation that is not known here.
    pub fn open(
        folder: &Path,
        files: Arc<dyn Files>,
        deadline: Duration,
    ) -> Result<Self, AttesterError> {
        let gramine = Self {
            device: Device::start(deadline)?,
            pseudo: Pseudo {
                folder: folder.to_owned(),
                files,
            },
        };
        let pseudo = gramine.pseudo.clone();
        gramine
            .device
            .call("say how it attests", move |_| pseudo.require_dcap())?;
        Ok(gramine)
    }
}

impl Attester for Gramine {
    fn name(&self) -> &'static str {
        "sgx"
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let (pseudo, asked) = (self.pseudo.clone(), *report_data);
        self.device
            .call("give a quote", move |_| pseudo.quote(&asked))
    }

    /// The key also depends on the processor's security version: after an update of its microcode there is another one.
    /// Recovery shares or a peer carry state over that.
    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError> {
        let pseudo = self.pseudo.clone();
        self.device.call("give a sealing key", move |_| {
            match binding {
                SealBinding::Measurement => return pseudo.key("_sgx_mrenclave"),
                SealBinding::Signer {
                    security_version: None,
                } => {}
                SealBinding::Signer {
                    security_version: Some(wanted),
                } => pseudo.require_security_version(wanted)?,
            }
            pseudo.key("_sgx_mrsigner")
        })
    }
}

impl Pseudo {
    fn require_dcap(&self) -> Result<(), AttesterError> {
        let unusable = |hint| AttesterError::Unusable {
            tee: "Gramine",
            hint,
        };
        let kind = match files::read_text(&*self.files, &self.folder.join("attestation_type")) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(unusable(
                    "it runs without SGX: start the program with gramine-sgx, not gramine-direct",
                ));
            }
            other => other?.ok_or(AttesterError::Contract("its attestation_type is no name"))?,
        };
        match kind.as_str() {
            "dcap" => Ok(()),
            "none" => Err(unusable(
                "it was built without remote attestation: set sgx.remote_attestation = \"dcap\" in the manifest and sign it again",
            )),
            "epid" => Err(unusable(
                "EPID is not supported, Intel ended it: set sgx.remote_attestation = \"dcap\" in the manifest and sign it again",
            )),
            _ => Err(AttesterError::UnknownProvider(kind)),
        }
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        self.files
            .write(&self.folder.join("user_report_data"), report_data)?;
        let quote = files::read(&*self.files, &self.folder.join("quote"), MAX_EVIDENCE)?
            .ok_or(EvidenceError::TooLong(MAX_EVIDENCE))?;
        let evidence = Evidence::from_bytes(quote)?;
        if evidence.tee() != TeeKind::Sgx {
            return Err(AttesterError::Contract("its quote is not of SGX"));
        }
        require_report_data(evidence.as_bytes().get(REPORT_DATA), report_data)?;
        Ok(evidence)
    }

    /// Gramine asks the processor for keys of the enclave's own security version, and offers no other.
    fn require_security_version(&self, wanted: u16) -> Result<(), AttesterError> {
        let quote = self.quote(&[0; 64])?;
        if quote.as_bytes().get(SECURITY_VERSION) == Some(&wanted.to_le_bytes()) {
            return Ok(());
        }
        Err(AttesterError::NoSealingKey {
            tee: "sgx",
            hint: "Gramine offers keys of the enclave's own security version only; for the state of another version use recovery shares or a peer KeyService",
        })
    }

    fn key(&self, name: &str) -> Result<SecretKey, AttesterError> {
        let path = self.folder.join("keys").join(name);
        match files::read_key::<KEY>(&*self.files, &path) {
            Ok(Some(key)) => stretch(&*key, name),
            Ok(None) => Err(AttesterError::Contract(
                "its sealing key has another length than 16 bytes",
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(AttesterError::NoSealingKey {
                tee: "sgx",
                hint: "this Gramine does not hand out its sealing keys: use version 1.5 or later",
            }),
            Err(error) => Err(error.into()),
        }
    }
}
