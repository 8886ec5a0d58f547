//! Finding what belongs to a report before anything is verified: which root a chip's certificate points to, and which of
//! many certificates is the chip's at its version of the firmware. What is found here is verified afterwards like anything else.

use x509_parser::asn1_rs::{Oid, oid};

use super::chain::parse_certificate;
use super::vcek::Vcek;
use super::{AmdRoot, Link, SnpReport};

/// Whether a chip's certificate says that it was issued under this root.
#[must_use]
pub fn names_issuer(vcek_der: &[u8], root: &AmdRoot) -> bool {
    parse_certificate(vcek_der, Link::Vcek)
        .is_ok_and(|certificate| certificate.issuer().as_raw() == root.ask().subject())
}

/// Whether a chip's certificate says that it is for the chip with this id, at whatever version of its firmware.
#[must_use]
pub fn names_chip(vcek_der: &[u8], chip_id: &[u8; 64]) -> bool {
    const HARDWARE_ID: Oid<'static> = oid!(1.3.6.1.4.1.3704.1.4);
    let Ok(certificate) = parse_certificate(vcek_der, Link::Vcek) else {
        return false;
    };
    match certificate.get_extension_unique(&HARDWARE_ID) {
        Ok(Some(extension)) => {
            // Turin's ids have 8 bytes and zeroes after them.
            !extension.value.is_empty() && chip_id.starts_with(extension.value)
        }
        _ => false,
    }
}

/// Whether a certificate says that it is for the chip and the firmware that this report speaks of.
#[must_use]
pub fn names_signer(vcek_der: &[u8], report: &SnpReport, root: &AmdRoot) -> bool {
    let product = root.product();
    let Ok(reported) = report.reported_tcb.decode(product) else {
        return false;
    };
    Vcek::parse(vcek_der, root)
        .is_ok_and(|vcek| vcek.check_belongs_to(report, product, reported).is_ok())
}
