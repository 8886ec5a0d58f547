//! Quotes: an enclave's measurement and report data as an SGX DCAP quote of version 3, a trust domain's as a TDX quote of
//! version 4 with a TDX 1.0 report.
//!
//! The two differ in the report that is signed and in where the certification of the quoting enclave lies: version 4
//! wraps it once more, as certification data of type 6.

use dcap_qvl::INTEL_QE_VENDOR_ID;
use dcap_qvl::quote::{
    AuthData, AuthDataV3, AuthDataV4, CertificationData, Data, EnclaveReport, Header, Quote,
    Report, TDReport10,
};
use parity_scale_codec::Encode;
use ring::rand::SystemRandom;

use crate::processor::{CPU_SVN, TEE_TCB_SVN};
use crate::qe::QuotingEnclave;
use crate::{Measurement, SimteeError, TdMeasurement, Tee};

const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
const QE_REPORT_CERTIFICATION_DATA: u16 = 6;

/// XFRM: x87, SSE, AVX and AVX-512 state, what a current processor enables.
const XFRM: u8 = 0xe7;
/// TD attribute DEBUG (bit 0).
const TD_DEBUG: u8 = 0x01;

/// The first byte of ATTRIBUTES.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EnclaveFlags(u8);

impl EnclaveFlags {
    const INIT: u8 = 0x01;
    const DEBUG: u8 = 0x02;
    const MODE64BIT: u8 = 0x04;
    const PROVISION_KEY: u8 = 0x10;

    /// An initialised 64-bit enclave that may use the provisioning key.
    pub(crate) const QUOTING_ENCLAVE: Self =
        Self(Self::INIT | Self::MODE64BIT | Self::PROVISION_KEY);

    /// An initialised 64-bit enclave.
    fn ordinary(debug: bool) -> Self {
        Self(Self::INIT | Self::MODE64BIT | if debug { Self::DEBUG } else { 0 })
    }
}

impl QuotingEnclave {
    /// The quote of an enclave with this measurement over this report data.
    pub(crate) fn quote(
        &self,
        measurement: &Measurement,
        report_data: &[u8; 64],
        random: &SystemRandom,
    ) -> Result<Vec<u8>, SimteeError> {
        let header = self.header(Tee::Sgx);
        let flags = EnclaveFlags::ordinary(self.debug);
        let report = enclave_report(measurement, flags, *report_data);
        let signed = [header.encode(), report.encode()].concat();
        let certification = self.certification.clone();
        let quote = Quote {
            header,
            report: Report::SgxEnclave(report),
            auth_data: AuthData::V3(AuthDataV3 {
                ecdsa_signature: self.sign(&signed, random)?,
                ecdsa_attestation_key: self.attestation_key,
                qe_report: certification.qe_report,
                qe_report_signature: certification.qe_report_signature,
                qe_auth_data: certification.qe_auth_data,
                certification_data: certification.certification_data,
            }),
        };
        Ok(quote.encode())
    }

    /// The quote of a trust domain with this measurement over this report data.
    pub(crate) fn td_quote(
        &self,
        measurement: &TdMeasurement,
        report_data: &[u8; 64],
        random: &SystemRandom,
    ) -> Result<Vec<u8>, SimteeError> {
        let header = self.header(Tee::Tdx);
        let report = td_report(measurement, self.debug, *report_data);
        let signed = [header.encode(), report.encode()].concat();
        let quote = Quote {
            header,
            report: Report::TD10(report),
            auth_data: AuthData::V4(AuthDataV4 {
                ecdsa_signature: self.sign(&signed, random)?,
                ecdsa_attestation_key: self.attestation_key,
                // The library encodes the report's certification as the body.
                certification_data: CertificationData {
                    cert_type: QE_REPORT_CERTIFICATION_DATA,
                    body: Data::new(Vec::new()),
                },
                qe_report_data: self.certification.clone(),
            }),
        };
        Ok(quote.encode())
    }

    fn header(&self, tee: Tee) -> Header {
        let mut user_data = [0; 20];
        for (to, from) in user_data.iter_mut().zip(self.qe_id) {
            *to = from;
        }
        // Version 4 calls the two version fields reserved.
        let (version, tee_type, qe_svn, pce_svn) = match tee {
            Tee::Sgx => (
                3,
                TEE_SGX,
                tee.quoting_enclave().isv_svn,
                self.platform.pce_svn,
            ),
            Tee::Tdx => (4, TEE_TDX, 0, 0),
        };
        Header {
            version,
            attestation_key_type: ECDSA_P256,
            tee_type,
            qe_svn,
            pce_svn,
            qe_vendor_id: INTEL_QE_VENDOR_ID,
            user_data,
        }
    }
}

/// The report of an enclave, as its processor makes it.
pub(crate) fn enclave_report(
    measurement: &Measurement,
    flags: EnclaveFlags,
    report_data: [u8; 64],
) -> EnclaveReport {
    let mut attributes = [0; 16];
    attributes[0] = flags.0;
    attributes[8] = XFRM;
    // The library calls these 96 bytes reserved; the last 64 of them are CONFIGID.
    let mut reserved3 = [0; 96];
    for (to, from) in reserved3.iter_mut().skip(32).zip(measurement.config_id) {
        *to = from;
    }
    EnclaveReport {
        cpu_svn: CPU_SVN,
        misc_select: 0,
        reserved1: [0; 28],
        attributes,
        mr_enclave: measurement.mr_enclave,
        reserved2: [0; 32],
        mr_signer: measurement.mr_signer,
        reserved3,
        isv_prod_id: measurement.isv_prod_id,
        isv_svn: measurement.isv_svn,
        reserved4: [0; 60],
        report_data,
    }
}

/// The report of a trust domain. The TDX module is one that Intel signed, for which MRSIGNERSEAM and SEAMATTRIBUTES are
/// zero; MRSEAM is its measurement, which simulated modules do not have.
fn td_report(measurement: &TdMeasurement, debug: bool, report_data: [u8; 64]) -> TDReport10 {
    let mut td_attributes = measurement.td_attributes;
    if debug {
        td_attributes[0] |= TD_DEBUG;
    }
    let [rt_mr0, rt_mr1, rt_mr2, rt_mr3] = measurement.rt_mr;
    TDReport10 {
        tee_tcb_svn: TEE_TCB_SVN,
        mr_seam: [0; 48],
        mr_signer_seam: [0; 48],
        seam_attributes: [0; 8],
        td_attributes,
        xfam: measurement.xfam,
        mr_td: measurement.mr_td,
        mr_config_id: measurement.mr_config_id,
        mr_owner: measurement.mr_owner,
        mr_owner_config: measurement.mr_owner_config,
        rt_mr0,
        rt_mr1,
        rt_mr2,
        rt_mr3,
        report_data,
    }
}
