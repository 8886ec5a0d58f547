//! The certificate of one chip's key at one version of its firmware (AMD 57230, *VCEK certificate*).

use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use x509_parser::asn1_rs::{Oid, oid};
use x509_parser::oid_registry::{OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::chain::{check_period, check_signed, parse_certificate};
use super::crl::Crl;
use super::report::SIGNED_LEN;
use super::{AmdRoot, Link, Product, SnpError, SnpReport, TcbVersion};

/// AMD's extensions, each with a name for errors.
mod extension {
    use super::{Oid, oid};

    pub(super) type Extension = (Oid<'static>, &'static str);
    pub(super) const PRODUCT: Extension = (oid!(1.3.6.1.4.1.3704.1.2), "product name");
    pub(super) const BOOT_LOADER: Extension = (oid!(1.3.6.1.4.1.3704.1.3.1), "boot loader");
    pub(super) const TEE: Extension = (oid!(1.3.6.1.4.1.3704.1.3.2), "TEE");
    pub(super) const SNP: Extension = (oid!(1.3.6.1.4.1.3704.1.3.3), "SNP");
    pub(super) const MICROCODE: Extension = (oid!(1.3.6.1.4.1.3704.1.3.8), "microcode");
    pub(super) const FMC: Extension = (oid!(1.3.6.1.4.1.3704.1.3.9), "FMC");
    pub(super) const HARDWARE_ID: Extension = (oid!(1.3.6.1.4.1.3704.1.4), "hardware id");
}

/// A VCEK certificate for the product line of its root. Its signature is checked by [`Vcek::check_signature`].
#[derive(Debug)]
pub(super) struct Vcek<'a> {
    certificate: X509Certificate<'a>,
    tcb: TcbVersion,
    hardware_id: &'a [u8],
}

impl<'a> Vcek<'a> {
    pub(super) fn parse(der: &'a [u8], root: &AmdRoot) -> Result<Self, SnpError> {
        let certificate = parse_certificate(der, Link::Vcek)?;
        if certificate.issuer().as_raw() != root.ask().subject() {
            return Err(SnpError::Issuer(Link::Vcek));
        }
        if certificate.is_ca() {
            return Err(SnpError::CaFlags(Link::Vcek));
        }
        if !is_named_vcek(&certificate) {
            return Err(SnpError::NotVcek);
        }
        if !is_p384(certificate.public_key()) {
            return Err(SnpError::VcekKey);
        }
        check_product(value(&certificate, &extension::PRODUCT)?, root.product())?;
        let tcb = read_tcb(&certificate, root.product())?;
        let hardware_id = value(&certificate, &extension::HARDWARE_ID)?;
        Ok(Self {
            certificate,
            tcb,
            hardware_id,
        })
    }

    pub(super) fn check_dates(&self, now: i64) -> Result<(), SnpError> {
        let period = self.certificate.validity();
        let (from, to) = (period.not_before.timestamp(), period.not_after.timestamp());
        check_period(from, to, now, Link::Vcek)
    }

    /// Checks that the certificate is for the chip and the firmware that `report` speaks of.
    pub(super) fn check_belongs_to(
        &self,
        report: &SnpReport,
        product: Product,
        reported: TcbVersion,
    ) -> Result<(), SnpError> {
        let (used, unused) = report
            .chip_id
            .split_at_checked(product.chip_id_len())
            .ok_or(SnpError::VcekChip)?;
        if self.hardware_id != used || unused.iter().any(|byte| *byte != 0) {
            return Err(SnpError::VcekChip);
        }
        if self.tcb != reported {
            return Err(SnpError::VcekTcb {
                certified: self.tcb,
                reported,
            });
        }
        Ok(())
    }

    pub(super) fn check_revocation(&self, crl: &Crl<'_>) -> Result<(), SnpError> {
        crl.check_not_revoked(&self.certificate.serial.to_bytes_be(), Link::Vcek)
    }

    pub(super) fn check_signature(&self, root: &AmdRoot) -> Result<(), SnpError> {
        check_signed(&self.certificate, root.ask(), Link::Vcek)
    }

    /// Checks that this key signed `report`, over its bytes as received. `parsed` is the same report.
    pub(super) fn check_report_signature(
        &self,
        report: &[u8],
        parsed: &SnpReport,
    ) -> Result<(), SnpError> {
        let (signed, _) = report
            .split_first_chunk::<SIGNED_LEN>()
            .ok_or(SnpError::ReportLength(report.len()))?;
        let point = &self.certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
            .verify(signed, &parsed.signature)
            .map_err(|_| SnpError::ReportSignature)
    }
}

/// The ASK certifies nothing else today; AMD's certificates for VLEKs come from another intermediate.
fn is_named_vcek(certificate: &X509Certificate<'_>) -> bool {
    let mut names = certificate.subject().iter_common_name();
    let (first, second) = (names.next(), names.next());
    second.is_none() && first.is_some_and(|name| name.as_str() == Ok("SEV-VCEK"))
}

fn is_p384(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters().map(|curve| curve.as_oid());
    key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY
        && curve.is_some_and(|curve| curve.is_ok_and(|curve| curve == OID_NIST_EC_P384))
}

/// The extension's value, if it is there exactly once.
fn value<'a>(
    certificate: &X509Certificate<'a>,
    (oid, name): &extension::Extension,
) -> Result<&'a [u8], SnpError> {
    match certificate.get_extension_unique(oid) {
        Ok(Some(extension)) => Ok(extension.value),
        _ => Err(SnpError::VcekExtension(name)),
    }
}

/// Reads an INTEGER from 0 to 255, in its one DER form.
fn number(
    certificate: &X509Certificate<'_>,
    extension: &extension::Extension,
) -> Result<u8, SnpError> {
    match value(certificate, extension)? {
        [0x02, 0x01, number @ 0x00..=0x7f] | [0x02, 0x02, 0x00, number @ 0x80..=0xff] => {
            Ok(*number)
        }
        _ => Err(SnpError::VcekExtension(extension.1)),
    }
}

fn read_tcb(certificate: &X509Certificate<'_>, product: Product) -> Result<TcbVersion, SnpError> {
    Ok(TcbVersion {
        boot_loader: number(certificate, &extension::BOOT_LOADER)?,
        tee: number(certificate, &extension::TEE)?,
        snp: number(certificate, &extension::SNP)?,
        microcode: number(certificate, &extension::MICROCODE)?,
        fmc: match product {
            Product::Milan | Product::Genoa => None,
            Product::Turin => Some(number(certificate, &extension::FMC)?),
        },
    })
}

/// Checks an IA5String that is the product's name, a stepping after a hyphen allowed: `Milan-B0`, `Turin`.
fn check_product(value: &[u8], product: Product) -> Result<(), SnpError> {
    let name = match value {
        [0x16, length, name @ ..] if usize::from(*length) == name.len() => name,
        _ => return Err(SnpError::VcekExtension(extension::PRODUCT.1)),
    };
    match name.strip_prefix(product.as_str().as_bytes()) {
        Some([] | [b'-', ..]) => Ok(()),
        _ => Err(SnpError::VcekProduct),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VCEK_TURIN: &[u8] = include_bytes!("../../testdata/snp/amd/vcek-turin.der");
    const CRL_TURIN: &[u8] = include_bytes!("../../testdata/snp/amd/crl-turin.der");
    const CRL_GENOA: &[u8] = include_bytes!("../../testdata/snp/amd/crl-genoa.der");
    /// 1 September 2026, within the period of AMD's lists here.
    const NOW: i64 = 1_788_220_800;

    #[test]
    fn a_real_turin_chain_holds_from_root_to_chip() {
        // No Turin report has been published with its certificate: the chain is as far as this goes.
        let root = AmdRoot::builtin(Product::Turin).unwrap();
        let vcek = Vcek::parse(VCEK_TURIN, &root).unwrap();
        let crl = Crl::parse(CRL_TURIN, &root).unwrap();
        root.check_dates(NOW).unwrap();
        vcek.check_dates(NOW).unwrap();
        crl.check_dates(NOW).unwrap();
        crl.check_signature(&root).unwrap();
        root.check_revocation(&crl).unwrap();
        vcek.check_revocation(&crl).unwrap();
        vcek.check_signature(&root).unwrap();
        assert_eq!(
            vcek.hardware_id,
            [0x1e, 0x55, 0x0a, 0x8e, 0xe5, 0xcf, 0x9f, 0x4d]
        );
        let certified = TcbVersion {
            microcode: 9,
            fmc: Some(0),
            ..TcbVersion::default()
        };
        assert_eq!(vcek.tcb, certified);
    }

    #[test]
    fn amd_once_revoked_an_intermediate_of_genoas_and_not_the_one_built_in() {
        let root = AmdRoot::builtin(Product::Genoa).unwrap();
        let crl = Crl::parse(CRL_GENOA, &root).unwrap();
        crl.check_signature(&root).unwrap();
        assert_eq!(crl.number(), 10);
        root.check_revocation(&crl).unwrap();
        assert_eq!(
            crl.check_not_revoked(&[0x02, 0x00, 0x01], Link::Ask),
            Err(SnpError::Revoked(Link::Ask))
        );
    }
}
