//! SEV-SNP: a confidential virtual machine of AMD. Its report comes from [`configfs`](super::configfs), with the certificate
//! of the chip if the host hands one out; its sealing key from the processor's firmware.
//!
//! Source: AMD 56860 (SEV-SNP Firmware ABI), 7.2 and 7.3: MSG_KEY_REQ and ATTESTATION_REPORT.

use std::sync::Arc;

use sesemi_protocol::SecretKey;
use zeroize::Zeroizing;

use super::certificate_table::{self, Certificates};
use super::configfs::{Provider, Report, Tsm};
use super::{require_report_data, stretch};
use crate::attester::{Attester, AttesterError, SealBinding};
use crate::code_identity::TeeKind;
use crate::evidence::{Evidence, SNP_REPORT};

/// Where the report data stands in a report.
const REPORT_DATA: core::ops::Range<usize> = 0x50..0x90;
/// Where what the host said at launch stands in it.
const HOST_DATA: core::ops::Range<usize> = 0xc0..0xe0;

/// What of the guest a derived key depends on, besides the chip and the version of its firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFields {
    /// The guest's policy, so that a guest that may be debugged gets another key.
    pub guest_policy: bool,
    /// The image id that the guest was started with.
    pub image_id: bool,
    /// The family id that the guest was started with.
    pub family_id: bool,
    /// The measurement of what the guest was started with.
    pub measurement: bool,
}

/// What a key by measurement depends on.
const BY_MEASUREMENT: KeyFields = KeyFields {
    guest_policy: true,
    image_id: true,
    family_id: true,
    measurement: true,
};

/// Where derived keys come from: the processor's firmware, or what a test plays for it.
pub trait DerivedKeySource: Send + Sync {
    /// A key of 32 bytes, derived from the chip's key (VCEK) for privilege level (VMPL) 0 and these fields of this guest.
    ///
    /// # Errors
    /// [`AttesterError`] if the firmware cannot be asked or refuses.
    fn derive(&self, fields: KeyFields) -> Result<Zeroizing<[u8; 32]>, AttesterError>;
}

/// An SEV-SNP guest.
pub struct Snp {
    tsm: Tsm,
    keys: Arc<dyn DerivedKeySource>,
}

impl core::fmt::Debug for Snp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Snp(..)")
    }
}

impl Snp {
    pub(super) fn new(tsm: Tsm, keys: Arc<dyn DerivedKeySource>) -> Self {
        Self { tsm, keys }
    }

    /// A derived key does not depend on HOST_DATA. Where that chooses what runs, as with Kata's initialisation data, another
    /// guest of the host would get our key; so a guest with HOST_DATA gets none.
    fn require_no_host_data(&self) -> Result<(), AttesterError> {
        let report = self.tsm.report(Provider::Snp, &[0; 64])?.report;
        match report.get(HOST_DATA) {
            Some(host_data) if host_data.iter().all(|byte| *byte == 0) => Ok(()),
            Some(_) => Err(AttesterError::NoSealingKey {
                tee: "snp",
                hint: "this guest was started with HOST_DATA, which a key cannot be bound to: put the program into the measured image and leave HOST_DATA out",
            }),
            None => Err(AttesterError::Contract("its report is too short")),
        }
    }
}

impl Attester for Snp {
    fn name(&self) -> &'static str {
        "snp"
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let Report {
            report,
            certificates,
        } = self.tsm.report(Provider::Snp, report_data)?;
        if report.len() != SNP_REPORT {
            return Err(AttesterError::Contract(
                "its report has another length than 1184 bytes",
            ));
        }
        require_report_data(report.get(REPORT_DATA), report_data)?;
        Ok(Evidence::from_snp(&report, vcek(&certificates)?)?)
    }

    /// By measurement only. The ids and the security version of a guest are what the host says in an ID block, which it may
    /// sign with any key, and nothing that can be relied on binds a derived key to that key: without the measurement, a
    /// host would get our key with a guest of its own.
    ///
    /// The key also depends on the version of the chip's firmware: after an update there may be another one. Recovery shares
    /// or a peer carry state over that.
    fn sealing_key(&self, binding: SealBinding) -> Result<SecretKey, AttesterError> {
        match binding {
            SealBinding::Measurement => {}
            SealBinding::Signer { .. } => {
                return Err(AttesterError::NoSealingKey {
                    tee: "snp",
                    hint: "SEV-SNP binds keys to a measurement, not safely to a signer: seal by measurement, and carry state to another version with recovery shares or a peer KeyService",
                });
            }
        }
        self.require_no_host_data()?;
        let keys = self.keys.clone();
        let key = self
            .tsm
            .device()
            .call("give a sealing key", move |_| keys.derive(BY_MEASUREMENT))?;
        stretch(&*key, "snp/measurement")
    }
}

/// The chip's certificate, if the host hands it out. If it does not, the verifier's endorsements have it.
fn vcek(certificates: &[u8]) -> Result<Option<&[u8]>, AttesterError> {
    match certificate_table::parse(certificates) {
        Ok(Certificates {
            vcek: None,
            has_vlek: true,
        }) => Err(AttesterError::Unusable {
            tee: "snp",
            hint: "the host signs reports with a loaded key (VLEK), which is not supported yet: ask for a host that signs with the chip's own (VCEK)",
        }),
        Ok(Certificates {
            vcek: Some(vcek), ..
        }) if vcek.starts_with(b"-----BEGIN") => Err(AttesterError::Unusable {
            tee: "snp",
            hint: "the host hands out the chip's certificate in PEM: have it do so in DER",
        }),
        Ok(Certificates { vcek, .. }) => Ok(vcek),
        Err(_) => Err(AttesterError::Contract(
            "the host's table of certificates is malformed",
        )),
    }
}
