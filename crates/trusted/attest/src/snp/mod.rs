//! Verification of AMD SEV-SNP attestation reports.
//!
//! Four signatures hold a report up: AMD's root key (ARK) signs itself and the key of a product line (ASK); the ASK signs
//! the certificate of the key (VCEK) that one chip derives for one version of its firmware; that key signs the report.
//! Beside them stands the list of what AMD revoked, signed by the ARK. A valid chain alone proves too little: certificates
//! of other chips and of old, broken firmware are genuine too. So the certificate is compared with the report that it is
//! said to have signed, and the report with what we demand of a guest.
//!
//! Written here rather than taken from a library so that the bytes checked are the bytes received: nothing is encoded
//! again before its signature is verified. Pure functions: no clock, no I/O, no allocation by a number that a peer sent.
//!
//! Sources: AMD, *SEV Secure Nested Paging Firmware ABI Specification* (56860), for the report; AMD, *VCEK Certificate and
//! KDS Interface Specification* (57230), for certificates and the list.

mod chain;
mod crl;
mod error;
mod lookup;
mod report;
mod signature;
mod tcb;
mod vcek;

pub use chain::AmdRoot;
pub use error::{Link, SnpError};
pub use lookup::{names_chip, names_issuer, names_signer};
pub use report::{FirmwareVersion, GuestPolicy, KeyInfo, PlatformInfo, REPORT_LEN, SnpReport};
pub use tcb::{RawTcb, TcbVersion};

use crl::Crl;
use vcek::Vcek;

/// Longest certificate that is read, in bytes. AMD's have less than 1,700.
pub const MAX_CERTIFICATE: usize = 4 * 1024;
/// Longest revocation list that is read, in bytes. AMD's have less than 900.
pub const MAX_CRL: usize = 64 * 1024;

/// A line of AMD's processors. Each has a root key of its own, and all its members share one layout of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// EPYC 7003 (Zen 3).
    Milan,
    /// EPYC 9004 and 8004 (Zen 4, with Bergamo and Siena).
    Genoa,
    /// EPYC 9005 (Zen 5).
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// Its name as in AMD's certificates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a processor, by the family and model that its CPUID tells, extended parts added in.
    fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Bytes of the report's chip id in use; the rest is zero.
    fn chip_id_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

/// What a report says that verified. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedSnp {
    /// The report. Whether its report data and its measurement are the right ones is for the caller to say.
    pub report: SnpReport,
    /// The product line of the processor.
    pub product: Product,
    /// The firmware that the report's key was derived for. At least the minimum asked for.
    pub reported_tcb: TcbVersion,
    /// The firmware in place when the guest was launched. At least the minimum asked for.
    pub launch_tcb: TcbVersion,
    /// Number of the revocation list that was used. It grows with each list: who keeps the highest seen notices an old one.
    pub crl_number: u64,
    /// When that list was issued, in seconds since 1970.
    pub crl_issued: u64,
}

/// Verifies `report`, signed by the key in `vcek_der`, under `root`, at the time `now` (seconds since 1970).
///
/// `crl_der` is AMD's list of revoked certificates for the product line; there is no way without. `minimum` is the oldest
/// firmware accepted, in each component, now and at the guest's launch. What costs little is checked first: no signature
/// is verified before everything else holds.
///
/// # Errors
/// [`SnpError`], which names the link that failed.
pub fn verify(
    report: &[u8],
    vcek_der: &[u8],
    root: &AmdRoot,
    crl_der: &[u8],
    now: u64,
    minimum: &TcbVersion,
) -> Result<VerifiedSnp, SnpError> {
    let parsed = SnpReport::parse(report)?;
    let product = root.product();
    demand_sound_guest(&parsed)?;
    let (reported_tcb, launch_tcb) = demand_product_and_tcb(&parsed, product, minimum)?;
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    root.check_dates(now)?;
    let vcek = Vcek::parse(vcek_der, root)?;
    vcek.check_dates(now)?;
    vcek.check_belongs_to(&parsed, product, reported_tcb)?;
    let crl = Crl::parse(crl_der, root)?;
    crl.check_dates(now)?;

    crl.check_signature(root)?;
    root.check_revocation(&crl)?;
    vcek.check_revocation(&crl)?;
    vcek.check_signature(root)?;
    vcek.check_report_signature(report, &parsed)?;
    Ok(VerifiedSnp {
        report: parsed,
        product,
        reported_tcb,
        launch_tcb,
        crl_number: crl.number(),
        crl_issued: crl.issued(),
    })
}

/// Refuses reports that say themselves that they are worth nothing: not signed by the chip's key, or about a guest that
/// its host may read.
fn demand_sound_guest(report: &SnpReport) -> Result<(), SnpError> {
    if report.signature_algorithm != 1 {
        return Err(SnpError::SignatureAlgorithm(report.signature_algorithm));
    }
    if report.key_info.signing_key() != 0 {
        return Err(SnpError::SigningKey(report.key_info.signing_key()));
    }
    if report.key_info.chip_key_masked() {
        return Err(SnpError::ChipKeyMasked);
    }
    if report.chip_id == [0; 64] {
        return Err(SnpError::ChipIdMasked);
    }
    if !report.policy.is_well_formed() {
        return Err(SnpError::Policy(report.policy.0));
    }
    if report.policy.debug_allowed() {
        return Err(SnpError::DebugAllowed);
    }
    if report.policy.migration_allowed() {
        return Err(SnpError::MigrationAllowed);
    }
    if report.vmpl != 0 {
        return Err(SnpError::Vmpl(report.vmpl));
    }
    Ok(())
}

/// Refuses other product lines and old firmware; returns the reported TCB and that at launch.
fn demand_product_and_tcb(
    report: &SnpReport,
    product: Product,
    minimum: &TcbVersion,
) -> Result<(TcbVersion, TcbVersion), SnpError> {
    if let Some([family, model, _]) = report.cpuid
        && Product::of_cpuid(family, model) != Some(product)
    {
        return Err(SnpError::ReportProduct { family, model });
    }
    let reported = report.reported_tcb.decode(product)?;
    let committed = report.committed_tcb.decode(product)?;
    let current = report.current_tcb.decode(product)?;
    let launch = report.launch_tcb.decode(product)?;
    // The firmware reports at most what it has committed to, and commits to at most what it runs.
    if !committed.at_least(&reported) || !current.at_least(&committed) {
        return Err(SnpError::TcbOrder);
    }
    for (tcb, what) in [(reported, "reported TCB"), (launch, "TCB at launch")] {
        if !tcb.at_least(minimum) {
            return Err(SnpError::TcbTooLow {
                what,
                tcb,
                minimum: *minimum,
            });
        }
    }
    Ok((reported, launch))
}
