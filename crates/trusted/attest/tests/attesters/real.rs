//! Real evidence, played by the fake machines: what an attester reads in it is what the verifier reads.

use std::path::Path;
use std::sync::Arc;

use dcap_qvl::quote::{Quote, Report};
use sesemi_attest::tee::configfs::{self, Limits};
use sesemi_attest::{Attester, Evidence, SealBinding};

use crate::gramine::Folder;
use crate::kernel::{Behaviour, Kernel};
use crate::sealing::NoKeys;

const SGX_V3: &[u8] = include_bytes!("../../testdata/dcap/sgx-v3.quote");
const TDX_V4: &[u8] = include_bytes!("../../testdata/dcap/tdx-v4.quote");
const TDX_V5: &[u8] = include_bytes!("../../testdata/dcap/tdx-v5.quote");
const SNP: &[u8] = include_bytes!("../../testdata/snp/amd/report-milan.bin");
const VCEK: &[u8] = include_bytes!("../../testdata/snp/amd/vcek-milan.der");

/// A guest whose kernel has this one report to give, whatever it is asked.
fn guest(behaviour: Behaviour, report: &'static [u8]) -> Arc<dyn Attester> {
    let kernel = Kernel::new(Behaviour {
        report: Box::new(|_| report.to_vec()),
        ..behaviour
    });
    let limits = Limits {
        deadline: crate::AMPLE,
        ..Limits::default()
    };
    configfs::open(Path::new("/report"), kernel, limits, Arc::new(NoKeys))
        .unwrap()
        .unwrap()
}

#[test]
fn real_quotes_of_tdx_are_handed_on_to_whoever_asked_for_them() {
    for quote in [TDX_V4, TDX_V5] {
        let parsed = Quote::parse(quote).unwrap();
        let mut data = parsed.report.as_td10().unwrap().report_data;
        let guest = guest(Behaviour::tdx(), quote);
        assert_eq!(guest.evidence(&data).unwrap().as_bytes(), quote);
        data[63] ^= 1;
        assert!(guest.evidence(&data).is_err());
    }
}

#[test]
fn a_real_report_of_snp_is_handed_on_with_its_certificate() {
    let mut data: [u8; 64] = SNP[0x50..0x90].try_into().unwrap();
    let guest = guest(
        Behaviour {
            certificates: Some(crate::certificate_table(crate::VCEK, VCEK)),
            ..Behaviour::snp()
        },
        SNP,
    );
    assert_eq!(
        guest.evidence(&data).unwrap(),
        Evidence::from_snp(SNP, Some(VCEK)).unwrap()
    );
    data[0] ^= 1;
    assert!(guest.evidence(&data).is_err());
}

#[test]
fn a_real_quote_of_sgx_is_handed_on_and_its_security_version_read() {
    let report = |quote: &[u8]| match Quote::parse(quote).unwrap().report {
        Report::SgxEnclave(report) => report,
        other => panic!("{other:?}"),
    };
    let folder = Folder::new();
    folder.set("quote", SGX_V3);
    let enclave = folder.open().unwrap();
    let data = report(SGX_V3).report_data;
    assert_eq!(enclave.evidence(&data).unwrap().as_bytes(), SGX_V3);

    // Its security version is asked for with report data of zeros.
    let mut quote = SGX_V3.to_vec();
    quote[368..432].fill(0);
    quote[306..308].copy_from_slice(&[2, 1]);
    folder.set("quote", &quote);
    assert_eq!(report(&quote).report_data, [0; 64]);
    let by_signer = |version| {
        enclave.sealing_key(SealBinding::Signer {
            security_version: Some(version),
        })
    };
    assert!(by_signer(report(&quote).isv_svn).is_ok());
    assert!(by_signer(report(SGX_V3).isv_svn).is_err());
}
