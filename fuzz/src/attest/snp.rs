//! SEV-SNP reports and the certificates and lists beside them, under AMD's root and one made for tests.

use std::sync::LazyLock;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use sesemi_attest::snp::{
    AmdRoot, Product, REPORT_LEN, SnpReport, TcbVersion, names_chip, names_issuer, verify,
};

use super::testdata;
use crate::input::Input;
use crate::samples::tagged;

const ARK: &[u8] = testdata!("snp/made/ark.der");
const ASK: &[u8] = testdata!("snp/made/ask.der");
const CRL: &[u8] = testdata!("snp/made/crl.der");
const VCEK: &[u8] = testdata!("snp/made/vcek.der");
/// Within the periods of the made certificates.
const NOW: u64 = 1_783_000_000;
/// How much of a report is signed.
const SIGNED: usize = 0x2a0;

/// Reads the bytes as a report. What is accepted is as long as a report, and says what stands in it.
pub fn snp_report(bytes: &[u8]) {
    let Ok(report) = SnpReport::parse(bytes) else {
        return;
    };
    assert_eq!(bytes.len(), REPORT_LEN);
    assert_eq!(report.version.to_le_bytes(), bytes[..4]);
    assert_eq!(report.policy.0.to_le_bytes(), bytes[0x08..0x10]);
    assert_eq!(report.report_data, bytes[0x50..0x90]);
    assert_eq!(report.measurement, bytes[0x90..0xc0]);
    assert_eq!(report.host_data, bytes[0xc0..0xe0]);
    assert_eq!(report.chip_id, bytes[0x1a0..0x1e0]);
    assert_eq!(report.launch_tcb.0, bytes[0x1f0..0x1f8]);
    for product in Product::ALL {
        if let Ok(tcb) = report.launch_tcb.decode(product) {
            assert!(tcb.at_least(&tcb));
        }
    }
}

/// Puts the bytes in the place of one link of a chain that verifies; the first byte says which. Only the genuine one fits.
pub fn snp_verification(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let link = input.byte() % 5;
    let bytes = input.rest();
    let minimum = TcbVersion::default();
    let (report, root) = (&*REPORT, &*ROOT);
    let (genuine, accepted): (&[u8], bool) = match link {
        0 => (
            report,
            verify(bytes, VCEK, root, CRL, NOW, &minimum).is_ok(),
        ),
        1 => {
            let _ = (names_chip(bytes, &[0; 64]), names_issuer(bytes, root));
            (
                VCEK,
                verify(report, bytes, root, CRL, NOW, &minimum).is_ok(),
            )
        }
        2 => (
            CRL,
            verify(report, VCEK, root, bytes, NOW, &minimum).is_ok(),
        ),
        3 => (ARK, AmdRoot::custom(bytes, ASK, Product::Milan).is_ok()),
        _ => (ASK, AmdRoot::custom(ARK, bytes, Product::Milan).is_ok()),
    };
    // A report's own signature is no part of what it signs.
    let compared = if link == 0 { SIGNED } else { genuine.len() };
    let alike = bytes.get(..compared) == Some(&genuine[..compared]);
    assert!(!accepted || alike, "link {link} is accepted");
    assert!(accepted || bytes != genuine, "link {link} is refused");
}

static ROOT: LazyLock<AmdRoot> =
    LazyLock::new(|| AmdRoot::custom(ARK, ASK, Product::Milan).unwrap());

/// A report of a Milan as its verifier wants it, signed with the made key.
static REPORT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let tcb = [3, 0, 0, 0, 0, 0, 0x85, 115];
    let mut report = vec![0; REPORT_LEN];
    report[0] = 3;
    report[0x0a] = 0x03; // policy: bit 17, which must be set, and SMT
    report[0x34] = 1; // ECDSA P-384 with SHA-384
    for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
        report[offset..offset + 8].copy_from_slice(&tcb);
    }
    report[0x188..0x18b].copy_from_slice(&[0x19, 0x01, 0x01]);
    for byte in 0..64 {
        report[0x1a0 + usize::from(byte)] = byte;
    }
    let key = testdata!("snp/made/test-only-vcek-private-key.pk8");
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key, &random).unwrap();
    let signature = key.sign(&random, &report[..SIGNED]).unwrap();
    for (half, offset) in signature.as_ref().chunks(48).zip([SIGNED, SIGNED + 72]) {
        let little_endian: Vec<u8> = half.iter().rev().copied().collect();
        report[offset..offset + 48].copy_from_slice(&little_endian);
    }
    verify(&report, VCEK, &ROOT, CRL, NOW, &TcbVersion::default()).unwrap();
    report
});

/// What AMD publishes about a real Milan, as endorsements have it.
pub(crate) fn collateral() -> serde_json::Value {
    serde_json::json!({
        "product": "milan",
        "crl": hex::encode(testdata!("snp/amd/crl-milan.der")),
        "vceks": [hex::encode(testdata!("snp/amd/vcek-milan.der"))],
    })
}

pub(crate) fn report_seeds() -> Vec<Vec<u8>> {
    vec![
        testdata!("snp/amd/report-milan.bin").to_vec(),
        REPORT.clone(),
    ]
}

pub(crate) fn verification_seeds() -> Vec<Vec<u8>> {
    let links: [&[u8]; 5] = [&REPORT, VCEK, CRL, ARK, ASK];
    let mut seeds: Vec<_> = (0..)
        .zip(links)
        .flat_map(|(link, bytes)| tagged(link, [bytes.to_vec()]))
        .collect();
    let real: [(u8, &[u8]); 3] = [
        (0, testdata!("snp/amd/report-milan.bin")),
        (1, testdata!("snp/amd/vcek-milan.der")),
        (2, testdata!("snp/amd/crl-milan.der")),
    ];
    seeds.extend(
        real.into_iter()
            .flat_map(|(link, bytes)| tagged(link, [bytes.to_vec()])),
    );
    seeds
}
