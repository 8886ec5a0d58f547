//! A report that a Milan processor really made, with AMD's certificates and lists.

use sesemi_attest::snp::{AmdRoot, Link, Product, SnpError, TcbVersion, VerifiedSnp, verify};

use crate::{read, testdata};

/// 1 September 2026, within the period of AMD's lists here.
const NOW: u64 = 1_788_220_800;
const REPORTED: TcbVersion = TcbVersion {
    boot_loader: 3,
    tee: 0,
    snp: 8,
    microcode: 115,
    fmc: None,
};

struct Sample {
    report: Vec<u8>,
    vcek: Vec<u8>,
    crl: Vec<u8>,
    root: AmdRoot,
}

impl Sample {
    fn new() -> Self {
        Self {
            report: testdata("amd/report-milan.bin"),
            vcek: testdata("amd/vcek-milan.der"),
            crl: testdata("amd/crl-milan.der"),
            root: AmdRoot::builtin(Product::Milan).unwrap(),
        }
    }

    fn verify(&self) -> Result<VerifiedSnp, SnpError> {
        verify(
            &self.report,
            &self.vcek,
            &self.root,
            &self.crl,
            NOW,
            &REPORTED,
        )
    }
}

/// Flips each bit in turn and asserts that nothing of it verifies.
fn assert_each_flip_is_refused(part: fn(&mut Sample) -> &mut Vec<u8>) {
    let mut sample = Sample::new();
    for bit in 0..part(&mut sample).len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        part(&mut sample)[byte] ^= mask;
        assert!(sample.verify().is_err(), "byte {byte:#x}, mask {mask:#x}");
        part(&mut sample)[byte] ^= mask;
    }
    sample.verify().unwrap();
}

#[test]
fn a_real_report_verifies_under_amds_root() {
    let verified = Sample::new().verify().unwrap();
    assert_eq!(verified.product, Product::Milan);
    assert_eq!(verified.reported_tcb, REPORTED);
    assert_eq!(verified.launch_tcb, REPORTED);
    assert_eq!(verified.crl_number, 11);
    let report = verified.report;
    assert_eq!(report.version, 2);
    assert_eq!(report.policy.0, 0x30000);
    assert!(report.policy.smt_allowed() && report.platform_info.smt_enabled());
    assert_eq!(hex::encode(&report.measurement[..8]), "7a1e5c266c0108db");
    assert_eq!(hex::encode(&report.report_data[..8]), "d447b55d197491bf");
    assert_eq!(hex::encode(&report.chip_id[..8]), "d49554ec717f4e5b");
    assert_eq!(report.report_id_ma, [0xff; 32]);
    let version = report.current_version;
    assert_eq!([version.major, version.minor, version.build], [1, 52, 4]);
    assert_eq!(report.cpuid, None);
    assert_eq!(report.mitigations, None);
}

#[test]
fn no_bit_of_a_real_report_can_be_changed() {
    assert_each_flip_is_refused(|sample| &mut sample.report);
}

#[test]
fn no_bit_of_a_real_certificate_can_be_changed() {
    assert_each_flip_is_refused(|sample| &mut sample.vcek);
}

#[test]
fn no_bit_of_amds_revocation_list_can_be_changed() {
    assert_each_flip_is_refused(|sample| &mut sample.crl);
}

#[test]
fn a_changed_signature_is_no_signature() {
    let mut sample = Sample::new();
    sample.report[0x2a0] ^= 1;
    assert_eq!(sample.verify(), Err(SnpError::ReportSignature));
}

#[test]
fn another_product_lines_root_refuses_a_real_report() {
    let mut sample = Sample::new();
    sample.root = AmdRoot::builtin(Product::Genoa).unwrap();
    assert_eq!(sample.verify(), Err(SnpError::Issuer(Link::Vcek)));
    sample.root = AmdRoot::builtin(Product::Turin).unwrap();
    assert_eq!(sample.verify(), Err(SnpError::TcbReserved));
}

#[test]
fn a_root_passed_off_as_another_product_lines_refuses_a_real_report() {
    let mut sample = Sample::new();
    let (ark, ask) = (
        read("roots/amd/ark-milan.der"),
        read("roots/amd/ask-milan.der"),
    );
    sample.root = AmdRoot::custom(&ark, &ask, Product::Genoa).unwrap();
    assert_eq!(sample.verify(), Err(SnpError::VcekProduct));
}

#[test]
fn another_product_lines_intermediate_makes_no_root() {
    let (ark, ask) = (
        read("roots/amd/ark-milan.der"),
        read("roots/amd/ask-genoa.der"),
    );
    assert_eq!(
        AmdRoot::custom(&ark, &ask, Product::Milan),
        Err(SnpError::Issuer(Link::Ask))
    );
}

#[test]
fn another_product_lines_revocation_list_is_refused() {
    let mut sample = Sample::new();
    sample.crl = testdata("amd/crl-genoa.der");
    assert_eq!(sample.verify(), Err(SnpError::Issuer(Link::Crl)));
}

#[test]
fn another_product_lines_certificate_is_refused() {
    let mut sample = Sample::new();
    sample.vcek = testdata("amd/vcek-turin.der");
    assert_eq!(sample.verify(), Err(SnpError::Issuer(Link::Vcek)));
}

#[test]
fn each_product_line_is_a_trust_domain_of_its_own() {
    let [milan, genoa, turin] = Product::ALL.map(|product| AmdRoot::builtin(product).unwrap());
    assert_ne!(milan.domain_key(), genoa.domain_key());
    assert_ne!(milan.domain_key(), turin.domain_key());
    assert_ne!(genoa.domain_key(), turin.domain_key());
    // SubjectPublicKeyInfo of a 4096-bit RSA key: a SEQUENCE of 0x222 bytes.
    assert_eq!(milan.domain_key()[..4], [0x30, 0x82, 0x02, 0x22]);
    assert_eq!(milan.domain_key().len(), 0x226);
}
