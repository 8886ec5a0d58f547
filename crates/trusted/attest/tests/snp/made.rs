//! Reports signed with the made PKI of `testdata/snp/made`.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use sesemi_attest::snp::{AmdRoot, Product, REPORT_LEN, SnpError, TcbVersion, VerifiedSnp, verify};

use crate::testdata;

/// Seconds in a year, nearly: the made PKI's periods begin and end with years.
const YEAR: u64 = 31_557_600;

/// A time in the middle of a year.
pub(crate) fn middle_of(year: u64) -> u64 {
    (year - 1970) * YEAR + YEAR / 2
}

/// A file of the made PKI.
pub(crate) fn made(file: &str) -> Vec<u8> {
    testdata(&format!("made/{file}.der"))
}

/// The made root, said to be of a product line.
pub(crate) fn root(product: Product) -> AmdRoot {
    AmdRoot::custom(&made("ark"), &made("ask"), product).unwrap()
}

/// Everything that goes into a verification. As made, it verifies.
pub(crate) struct Case {
    /// The report, unsigned: [`Case::verify`] signs it.
    pub(crate) report: Vec<u8>,
    pub(crate) vcek: Vec<u8>,
    pub(crate) root: AmdRoot,
    pub(crate) crl: Vec<u8>,
    pub(crate) now: u64,
    pub(crate) minimum: TcbVersion,
}

impl Case {
    /// A report of version 3 from a Milan.
    pub(crate) fn milan() -> Self {
        Self::new(
            Product::Milan,
            "vcek",
            [3, 0, 0, 0, 0, 0, 0x85, 115],
            [0x19, 0x01, 0x01],
            64,
        )
    }

    /// A report of version 3 from a Turin: another layout of the TCB, a shorter chip id.
    pub(crate) fn turin() -> Self {
        Self::new(
            Product::Turin,
            "vcek-turin",
            [1, 3, 0, 0x85, 0, 0, 0, 115],
            [0x1a, 0x02, 0x01],
            8,
        )
    }

    fn new(product: Product, vcek: &str, tcb: [u8; 8], cpuid: [u8; 3], chip_id: u8) -> Self {
        let mut report = vec![0; REPORT_LEN];
        report[0] = 3;
        report[0x0a] = 0x03; // policy: bit 17, which must be set, and SMT
        report[0x34] = 1; // ECDSA P-384 with SHA-384
        for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
            report[offset..offset + 8].copy_from_slice(&tcb);
        }
        report[0x50..0x90].fill(0xda);
        report[0x90..0xc0].fill(0x3e);
        report[0x188..0x18b].copy_from_slice(&cpuid);
        for byte in 0..chip_id {
            report[0x1a0 + usize::from(byte)] = byte;
        }
        Self {
            report,
            vcek: made(vcek),
            root: root(product),
            crl: made("crl"),
            now: middle_of(2026),
            minimum: TcbVersion::default(),
        }
    }

    /// The report, signed by the made VCEK.
    pub(crate) fn signed(&self) -> Vec<u8> {
        let key = testdata("made/test-only-vcek-private-key.pk8");
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key, &random).unwrap();
        let signature = key.sign(&random, &self.report[..0x2a0]).unwrap();
        let mut report = self.report.clone();
        for (half, offset) in signature.as_ref().chunks(48).zip([0x2a0, 0x2e8]) {
            let little_endian: Vec<u8> = half.iter().rev().copied().collect();
            report[offset..offset + 48].copy_from_slice(&little_endian);
        }
        report
    }

    pub(crate) fn verify(&self) -> Result<VerifiedSnp, SnpError> {
        self.verify_bytes(&self.signed())
    }

    /// Verifies another report instead.
    pub(crate) fn verify_bytes(&self, report: &[u8]) -> Result<VerifiedSnp, SnpError> {
        verify(
            report,
            &self.vcek,
            &self.root,
            &self.crl,
            self.now,
            &self.minimum,
        )
    }
}

/// The reason for which a Milan report is refused once `change` was made. Before it, it verifies.
pub(crate) fn refusal(change: impl FnOnce(&mut Case)) -> SnpError {
    let mut case = Case::milan();
    case.verify().unwrap();
    change(&mut case);
    case.verify().unwrap_err()
}
