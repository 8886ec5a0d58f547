//! The simulated quoting enclaves, one for SGX and one for TDX: who signs quotes, and why that is believed.
//!
//! ```text
//! PCK key ─signs─> QE report, whose report data is SHA-256(attestation key ‖ QE authentication data)
//! attestation key ─signs─> header ‖ enclave report or TD report
//! ```
//!
//! The QE report is signed once, when the machine is loaded, as a real quoting enclave is certified once; each quote
//! then costs one signature.

use dcap_qvl::quote::{CertificationData, Data, QEReportCertificationData};
use parity_scale_codec::Encode;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use crate::fault::{Fault, Faults};
use crate::measurement::sha256;
use crate::pki::{Certificates, Secrets};
use crate::processor::{Identity, Platform};
use crate::quote::{EnclaveFlags, enclave_report};
use crate::{Measurement, SimteeError, Tee};

const PCK_CERT_CHAIN: u16 = 5;
/// The authentication data of the quoting enclave: verifiers demand 32 bytes and bind, but do not interpret, them.
const QE_AUTH_DATA: [u8; 32] = *b"sesemi simulated quoting enclave";
/// The signer of a quoting enclave that is not the one it should be.
const OTHER_SIGNER_LABEL: &[u8] = b"sesemi simulated quoting enclave, another signer";

/// The quoting enclave of one machine for one kind of TEE, certified and ready to sign.
pub(crate) struct QuotingEnclave {
    attestation: EcdsaKeyPair,
    /// The attestation key as quotes carry it: x ‖ y.
    pub(crate) attestation_key: [u8; 64],
    /// The signed report of the quoting enclave, and the certificates of the key that signed it.
    pub(crate) certification: QEReportCertificationData,
    pub(crate) platform: Platform,
    pub(crate) qe_id: [u8; 16],
    /// Whether everything runs in debug mode.
    pub(crate) debug: bool,
}

impl QuotingEnclave {
    /// Certifies the attestation key with the machine's PCK key, under these faults.
    pub(crate) fn certify(
        tee: Tee,
        secrets: &Secrets,
        certificates: &Certificates,
        identity: &Identity,
        faults: &Faults,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        let platform = Platform::under(faults);
        let certifier = Certifier::of(secrets, certificates, identity, &platform, faults, random)?;
        let vouched = secrets.attestation_signer(tee, random)?;
        let qe_report = qe_report(tee, &raw_public_key(&vouched)?, faults)?;
        let attestation = if faults.has(&Fault::UnboundAttestationKey) {
            unrelated_key(random)?
        } else {
            vouched
        };
        Ok(Self {
            attestation_key: raw_public_key(&attestation)?,
            attestation,
            certification: QEReportCertificationData {
                qe_report_signature: sign(&certifier.pck, &qe_report, "processor", random)?,
                qe_report,
                qe_auth_data: Data::new(QE_AUTH_DATA.to_vec()),
                certification_data: CertificationData {
                    cert_type: PCK_CERT_CHAIN,
                    body: Data::new(certifier.chain),
                },
            },
            platform,
            qe_id: identity.qe_id,
            debug: faults.has(&Fault::Debug),
        })
    }

    /// Signs the header and the report of a quote.
    pub(crate) fn sign(
        &self,
        signed: &[u8],
        random: &SystemRandom,
    ) -> Result<[u8; 64], SimteeError> {
        sign(&self.attestation, signed, "quoting enclave", random)
    }
}

/// Who certifies the quoting enclave: the PCK key and the chain of its certificate.
struct Certifier {
    pck: EcdsaKeyPair,
    chain: Vec<u8>,
}

impl Certifier {
    fn of(
        secrets: &Secrets,
        certificates: &Certificates,
        identity: &Identity,
        platform: &Platform,
        faults: &Faults,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        if faults.has(&Fault::OtherRoot) {
            let secrets = Secrets::generate(random)?;
            let mut other = Certificates::issue(&secrets, identity, certificates.validity, random)?;
            return Self::with(&secrets, &mut other, identity, platform, random);
        }
        Self::with(
            secrets,
            &mut certificates.clone(),
            identity,
            platform,
            random,
        )
    }

    fn with(
        secrets: &Secrets,
        certificates: &mut Certificates,
        identity: &Identity,
        platform: &Platform,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        if *platform != Platform::HEALTHY {
            certificates.certify_platform(secrets, identity, platform)?;
        }
        let mut chain = certificates.pck_chain().into_bytes();
        // Intel's chains end with a zero byte; a verifier that stumbles over it would stumble over real quotes.
        chain.push(0);
        Ok(Self {
            pck: secrets.pck_signer(random)?,
            chain,
        })
    }
}

/// The quoting enclave's own report, encoded; it vouches for the attestation key.
fn qe_report(
    tee: Tee,
    attestation_key: &[u8; 64],
    faults: &Faults,
) -> Result<[u8; 384], SimteeError> {
    let mut report_data = [0; 64];
    let bound = sha256(&[attestation_key.as_slice(), &QE_AUTH_DATA].concat());
    for (to, from) in report_data.iter_mut().zip(bound) {
        *to = from;
    }
    let profile = tee.quoting_enclave();
    let measurement = Measurement {
        mr_enclave: profile.mr_enclave(),
        mr_signer: if faults.has(&Fault::QeOtherSigner) {
            sha256(OTHER_SIGNER_LABEL)
        } else {
            profile.mr_signer()
        },
        isv_prod_id: profile.isv_prod_id,
        isv_svn: profile.isv_svn,
        config_id: [0; 64],
    };
    enclave_report(&measurement, EnclaveFlags::QUOTING_ENCLAVE, report_data)
        .encode()
        .try_into()
        .map_err(|_| SimteeError::Signing {
            signer: "processor",
        })
}

fn unrelated_key(random: &SystemRandom) -> Result<EcdsaKeyPair, SimteeError> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    EcdsaKeyPair::generate_pkcs8(algorithm, random)
        .map_err(|_| SimteeError::Randomness)
        .and_then(|document| {
            EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random).map_err(|_| {
                SimteeError::Key {
                    which: "attestation",
                }
            })
        })
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
