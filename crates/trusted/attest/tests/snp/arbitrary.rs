//! Whatever comes in, the answer is an error and never a panic.

use proptest::prelude::*;
use sesemi_attest::snp::{AmdRoot, Product, REPORT_LEN, SnpReport};

use crate::made::Case;

/// Bytes of any kind, and the given ones with a stretch of them replaced: those get past the first checks.
fn bytes_near(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = valid.len();
    let arbitrary = proptest::collection::vec(any::<u8>(), 0..2 * REPORT_LEN);
    let patch = proptest::collection::vec(any::<u8>(), 1..8);
    let patched = (0..len, patch).prop_map(move |(at, patch)| {
        let mut bytes = valid.clone();
        let end = len.min(at + patch.len());
        bytes[at..end].copy_from_slice(&patch[..end - at]);
        bytes
    });
    prop_oneof![arbitrary, patched]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn reading_a_report_never_panics(bytes in bytes_near(Case::milan().signed())) {
        if let Ok(report) = SnpReport::parse(&bytes) {
            prop_assert_eq!(bytes.len(), REPORT_LEN);
            prop_assert_eq!(&report.report_data[..], &bytes[0x50..0x90]);
        }
    }

    #[test]
    fn only_the_report_that_was_signed_verifies(bytes in bytes_near(Case::milan().signed())) {
        let case = Case::milan();
        let signed = case.signed();
        if case.verify_bytes(&bytes).is_ok() {
            // ECDSA signs anew each time: only what is signed can be compared.
            prop_assert_eq!(&bytes[..0x2a0], &signed[..0x2a0]);
        }
    }

    #[test]
    fn only_the_certificate_that_was_issued_verifies(bytes in bytes_near(Case::milan().vcek)) {
        let mut case = Case::milan();
        let issued = std::mem::replace(&mut case.vcek, bytes);
        prop_assert!(case.verify().is_err() || case.vcek == issued);
    }

    #[test]
    fn only_the_revocation_list_that_was_issued_verifies(bytes in bytes_near(Case::milan().crl)) {
        let mut case = Case::milan();
        let issued = std::mem::replace(&mut case.crl, bytes);
        prop_assert!(case.verify().is_err() || case.crl == issued);
    }

    #[test]
    fn only_the_root_that_signed_its_intermediate_is_one(
        ark in bytes_near(crate::made::made("ark")),
        ask in bytes_near(crate::made::made("ask")),
    ) {
        let (real_ark, real_ask) = (crate::made::made("ark"), crate::made::made("ask"));
        prop_assert!(AmdRoot::custom(&ark, &real_ask, Product::Milan).is_err() || ark == real_ark);
        prop_assert!(AmdRoot::custom(&real_ark, &ask, Product::Milan).is_err() || ask == real_ask);
    }
}
