//! The simulated quoting enclave: it turns an enclave's measurement and report data into an SGX DCAP quote, version 3.
//!
//! ```text
//! PCK key ─signs─> QE report, whose report data is SHA-256(attestation key ‖ QE authentication data)
//! attestation key ─signs─> header ‖ enclave report
//! ```
//!
//! The QE report is signed once, when the machine is loaded, as a real quoting enclave is certified once; each quote
//! then costs one signature.

use dcap_qvl::INTEL_QE_VENDOR_ID;
use dcap_qvl::quote::{
    AuthData, AuthDataV3, CertificationData, Data, EnclaveReport, Header, Quote, Report,
};
use parity_scale_codec::Encode;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair};

use crate::measurement::sha256;
use crate::pki::{Certificates, Secrets};
use crate::processor::{CPU_SVN, Identity, PCE_SVN};
use crate::{Measurement, SimteeError};

/// ISVPRODID of the quoting enclave, as Intel's.
pub(crate) const QE_ISV_PROD_ID: u16 = 1;
/// ISVSVN of the quoting enclave: the level that QE identity calls up to date.
pub(crate) const QE_ISV_SVN: u16 = 8;

const QUOTE_VERSION: u16 = 3;
const ECDSA_P256: u16 = 2;
const TEE_SGX: u32 = 0;
const PCK_CERT_CHAIN: u16 = 5;
/// The authentication data of the quoting enclave: verifiers demand 32 bytes and bind, but do not interpret, them.
const QE_AUTH_DATA: [u8; 32] = *b"sesemi simulated quoting enclave";
/// The quoting enclave's bytes do not exist, so its measurement is the SHA-256 of a name.
const QE_MEASUREMENT_LABEL: &[u8] = b"sesemi simulated quoting enclave v1";
const QE_SIGNER_LABEL: &[u8] = b"sesemi simulated quoting enclave signer v1";

/// ATTRIBUTES: initialised.
const INIT: u8 = 0x01;
/// ATTRIBUTES: 64-bit mode.
const MODE64BIT: u8 = 0x04;
/// ATTRIBUTES: may use the provisioning key; the quoting enclave only.
const PROVISION_KEY: u8 = 0x10;
/// XFRM: x87, SSE, AVX and AVX-512 state, what a current processor enables.
const XFRM: u8 = 0xe7;

/// MRSIGNER of the simulated quoting enclave.
pub(crate) fn qe_mr_signer() -> [u8; 32] {
    sha256(QE_SIGNER_LABEL)
}

/// The quoting enclave of one machine, certified and ready to sign.
pub(crate) struct QuotingEnclave {
    attestation: EcdsaKeyPair,
    header: Header,
    /// Everything that follows the enclave report, but for the signature over it.
    certification: AuthDataV3,
}

impl QuotingEnclave {
    /// Certifies the attestation key with the machine's PCK key.
    pub(crate) fn certify(
        secrets: &Secrets,
        certificates: &Certificates,
        identity: &Identity,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        let attestation = secrets.attestation_signer(random)?;
        let attestation_key = raw_public_key(&attestation)?;
        let qe_report = qe_report(&attestation_key)?;
        let qe_report_signature = sign(
            &secrets.pck_signer(random)?,
            &qe_report,
            "processor",
            random,
        )?;
        let mut chain = certificates.pck_chain().into_bytes();
        // Intel's chains end with a zero byte; a verifier that stumbles over it would stumble over real quotes.
        chain.push(0);
        Ok(Self {
            attestation,
            header: header(identity),
            certification: AuthDataV3 {
                ecdsa_signature: [0; 64],
                ecdsa_attestation_key: attestation_key,
                qe_report,
                qe_report_signature,
                qe_auth_data: Data::new(QE_AUTH_DATA.to_vec()),
                certification_data: CertificationData {
                    cert_type: PCK_CERT_CHAIN,
                    body: Data::new(chain),
                },
            },
        })
    }

    /// The quote of an enclave with this measurement over this report data.
    pub(crate) fn quote(
        &self,
        measurement: &Measurement,
        report_data: &[u8; 64],
        random: &SystemRandom,
    ) -> Result<Vec<u8>, SimteeError> {
        let report = enclave_report(measurement, INIT | MODE64BIT, *report_data);
        let signed = [self.header.encode(), report.encode()].concat();
        let auth_data = AuthDataV3 {
            ecdsa_signature: sign(&self.attestation, &signed, "quoting enclave", random)?,
            ..self.certification.clone()
        };
        let quote = Quote {
            header: self.header,
            report: Report::SgxEnclave(report),
            auth_data: AuthData::V3(auth_data),
        };
        Ok(quote.encode())
    }
}

fn header(identity: &Identity) -> Header {
    let mut user_data = [0; 20];
    for (to, from) in user_data.iter_mut().zip(identity.qe_id) {
        *to = from;
    }
    Header {
        version: QUOTE_VERSION,
        attestation_key_type: ECDSA_P256,
        tee_type: TEE_SGX,
        qe_svn: QE_ISV_SVN,
        pce_svn: PCE_SVN,
        qe_vendor_id: INTEL_QE_VENDOR_ID,
        user_data,
    }
}

/// The quoting enclave's own report, encoded; it vouches for the attestation key.
fn qe_report(attestation_key: &[u8; 64]) -> Result<[u8; 384], SimteeError> {
    let mut report_data = [0; 64];
    let bound = sha256(&[attestation_key.as_slice(), &QE_AUTH_DATA].concat());
    for (to, from) in report_data.iter_mut().zip(bound) {
        *to = from;
    }
    let measurement = Measurement {
        mr_enclave: sha256(QE_MEASUREMENT_LABEL),
        mr_signer: qe_mr_signer(),
        isv_prod_id: QE_ISV_PROD_ID,
        isv_svn: QE_ISV_SVN,
        config_id: [0; 64],
    };
    let report = enclave_report(&measurement, INIT | MODE64BIT | PROVISION_KEY, report_data);
    report
        .encode()
        .try_into()
        .map_err(|_| SimteeError::Signing {
            signer: "processor",
        })
}

fn enclave_report(measurement: &Measurement, flags: u8, report_data: [u8; 64]) -> EnclaveReport {
    let mut attributes = [0; 16];
    attributes[0] = flags;
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

/// The public key as x ‖ y, without the prefix byte that says "uncompressed".
fn raw_public_key(key: &EcdsaKeyPair) -> Result<[u8; 64], SimteeError> {
    key.public_key()
        .as_ref()
        .get(1..)
        .and_then(|point| point.try_into().ok())
        .ok_or(SimteeError::Key {
            which: "attestation",
        })
}

fn sign(
    key: &EcdsaKeyPair,
    message: &[u8],
    signer: &'static str,
    random: &SystemRandom,
) -> Result<[u8; 64], SimteeError> {
    let signature = key
        .sign(random, message)
        .map_err(|_| SimteeError::Signing { signer })?;
    signature
        .as_ref()
        .try_into()
        .map_err(|_| SimteeError::Signing { signer })
}
