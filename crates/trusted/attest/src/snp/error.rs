//! Why a report was refused: one name for each link that can fail.

use super::tcb::TcbVersion;
use super::{MAX_CERTIFICATE, MAX_CRL, REPORT_LEN};

/// What holds a report up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// AMD's root certificate.
    Ark,
    /// The product line's certificate.
    Ask,
    /// The chip's certificate.
    Vcek,
    /// The list of revoked certificates.
    Crl,
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ark => "the ARK certificate",
            Self::Ask => "the ASK certificate",
            Self::Vcek => "the VCEK certificate",
            Self::Crl => "the revocation list",
        })
    }
}

/// Why SEV-SNP evidence was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnpError {
    /// Not the length of a report.
    #[error("an attestation report has {REPORT_LEN} bytes, not {0}")]
    ReportLength(usize),
    /// A version of the report whose layout is not known here.
    #[error("attestation reports of version {0} are not read; 2, 3 and 5 are")]
    ReportVersion(u32),
    /// A field that its version leaves empty is in use: it might mean something that must not be ignored.
    #[error("the reserved field at offset {0:#x} of the report is not zero")]
    Reserved(usize),
    /// A TCB version with bytes in use that its product line reserves.
    #[error("a TCB version in the report has reserved bytes that are not zero")]
    TcbReserved,
    /// The report is not signed with ECDSA P-384 and SHA-384.
    #[error(
        "the report's signature algorithm is {0}; only 1, ECDSA P-384 with SHA-384, is accepted"
    )]
    SignatureAlgorithm(u32),
    /// The report is signed by another key than the chip's own, or by none.
    #[error("the report's signing key is of kind {0}; only 0, the VCEK, is accepted")]
    SigningKey(u32),
    /// The host had the firmware sign nothing.
    #[error("the host masks the chip's key; ask it to clear MASK_CHIP_KEY")]
    ChipKeyMasked,
    /// The host hides which chip this is, so no certificate can be compared with it.
    #[error("the host masks the chip id; ask it to clear MASK_CHIP_ID")]
    ChipIdMasked,
    /// The guest policy has a reserved bit set, or the one that must be set is not.
    #[error("the guest policy {0:#x} uses reserved bits")]
    Policy(u64),
    /// The host may read the guest's memory.
    #[error("the guest may be debugged; launch it with policy bit 19 clear")]
    DebugAllowed,
    /// A migration agent may carry the guest away.
    #[error("the guest may be migrated; launch it with policy bit 18 clear")]
    MigrationAllowed,
    /// Asked for from another privilege level than the highest.
    #[error("the report is for VMPL {0}; only 0 is accepted")]
    Vmpl(u32),
    /// The processor is not of the root's product line.
    #[error(
        "the report is from a processor of family {family:#x}, model {model:#x}: another product line, take its root"
    )]
    ReportProduct {
        /// CPUID family, combined.
        family: u8,
        /// CPUID model, combined.
        model: u8,
    },
    /// Reported, committed and current TCB are not in this order, which genuine firmware keeps.
    #[error("the report's TCB versions contradict each other")]
    TcbOrder,
    /// Firmware older than is accepted.
    #[error(
        "the {what} ({tcb}) is below the minimum ({minimum}); the host's firmware must be updated"
    )]
    TcbTooLow {
        /// Which of the report's TCB versions.
        what: &'static str,
        /// Its value.
        tcb: TcbVersion,
        /// What it must reach in each component.
        minimum: TcbVersion,
    },
    /// Longer than anything AMD issues.
    #[error(
        "{0} is too long: at most {MAX_CERTIFICATE} bytes for a certificate, {MAX_CRL} for the list"
    )]
    TooLong(Link),
    /// Does not parse, or lacks something it must have.
    #[error("{0} is malformed")]
    Malformed(Link),
    /// Signed with another algorithm, or RSA-PSS with other parameters.
    #[error("{0} is not signed with RSA-PSS, SHA-384, MGF1 with SHA-384 and 48 bytes of salt")]
    Algorithm(Link),
    /// Names another issuer than the next link.
    #[error("{0} was issued by another authority")]
    Issuer(Link),
    /// May not sign what it would have to, or may sign what it must not.
    #[error("{0} has wrong CA flags or key usages")]
    CaFlags(Link),
    /// Has a critical extension that is not understood here, and must therefore not be accepted (RFC 5280, 4.2 and 5.2).
    #[error("{0} has a critical extension that is not understood")]
    UnknownCritical(Link),
    /// Its period has not begun.
    #[error("{0} is not valid yet; check the clock")]
    NotYetValid(Link),
    /// Its period is over.
    #[error("{0} has expired; fetch a new one from AMD, or check the clock")]
    Expired(Link),
    /// The next link's key did not sign it.
    #[error("the signature of {0} does not verify")]
    Signature(Link),
    /// AMD took it back.
    #[error("{0} is revoked")]
    Revoked(Link),
    /// A certificate of the ASK, but not for a VCEK.
    #[error("the certificate is not for a VCEK")]
    NotVcek,
    /// The certified key is not on P-384.
    #[error("the VCEK is not a P-384 key")]
    VcekKey,
    /// One of AMD's extensions is missing, there twice, or malformed.
    #[error("the VCEK certificate's extension '{0}' is missing or malformed")]
    VcekExtension(&'static str),
    /// The certificate is for another product line than the root.
    #[error("the VCEK certificate is for another product line than the root")]
    VcekProduct,
    /// The certificate is for another chip than the one reporting.
    #[error("the VCEK certificate is for another chip than the report's")]
    VcekChip,
    /// The certificate is for another firmware than the one reported.
    #[error("the VCEK certificate is for the TCB ({certified}), the report is of ({reported})")]
    VcekTcb {
        /// As certified.
        certified: TcbVersion,
        /// As reported.
        reported: TcbVersion,
    },
    /// The VCEK did not sign the report.
    #[error("the report's signature does not verify")]
    ReportSignature,
}
