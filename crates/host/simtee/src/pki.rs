//! The simulated provisioning service's certificates and revocation lists, in the shape of Intel's.
//!
//! ```text
//! root CA ──┬── PCK platform CA ── PCK certificate (one per machine; carries the SGX extension)
//!           └── TCB signing certificate (signs TCB info and QE identity)
//! ```
//!
//! Each CA has a revocation list. All keys are P-256, all signatures ECDSA with SHA-256, as a verifier demands.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevocationReason, RevokedCertParams, SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::fault::{Fault, Faults};
use crate::measurement::sha256;
use crate::processor::{Identity, Platform, SGX_EXTENSION_OID};
use crate::validity::Validity;
use crate::{SimteeError, Tee};

/// The common name of every simulated root.
pub const ROOT_NAME: &str = "SeSeMI Simulated SGX Root CA";
/// The common name of every simulated PCK CA. Verifiers tell the type of the CA by the word "Platform".
pub const PCK_CA_NAME: &str = "SeSeMI Simulated SGX PCK Platform CA";
const PCK_NAME: &str = "SeSeMI Simulated SGX PCK Certificate";
const TCB_SIGNING_NAME: &str = "SeSeMI Simulated SGX TCB Signing";
const ORGANIZATION: &str = "SeSeMI simulated TEE, not for production";

/// The private keys of a simulated machine and of its provisioning service (PKCS #8), and its sealing secret.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secrets {
    #[serde(with = "hex::serde")]
    root_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    pck_ca_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    tcb_signing_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    pck_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    attestation_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    td_attestation_key: Vec<u8>,
    #[serde(with = "hex::serde")]
    pub(crate) seal_secret: [u8; 32],
}

impl Secrets {
    /// A new machine's secrets.
    pub(crate) fn generate(random: &SystemRandom) -> Result<Self, SimteeError> {
        Ok(Self {
            root_key: new_key(random)?,
            pck_ca_key: new_key(random)?,
            tcb_signing_key: new_key(random)?,
            pck_key: new_key(random)?,
            attestation_key: new_key(random)?,
            td_attestation_key: new_key(random)?,
            seal_secret: ring::rand::generate(random)
                .map(ring::rand::Random::expose)
                .map_err(|_| SimteeError::Randomness)?,
        })
    }

    /// The key with which the processor certifies the quoting enclave.
    pub(crate) fn pck_signer(&self, random: &SystemRandom) -> Result<EcdsaKeyPair, SimteeError> {
        signer(&self.pck_key, "PCK", random)
    }

    /// The key with which the quoting enclave of this kind of TEE signs quotes.
    pub(crate) fn attestation_signer(
        &self,
        tee: Tee,
        random: &SystemRandom,
    ) -> Result<EcdsaKeyPair, SimteeError> {
        match tee {
            Tee::Sgx => signer(&self.attestation_key, "attestation", random),
            Tee::Tdx => signer(&self.td_attestation_key, "TD attestation", random),
        }
    }

    /// The key with which the provisioning service signs TCB info and QE identity.
    pub(crate) fn tcb_signer(&self, random: &SystemRandom) -> Result<EcdsaKeyPair, SimteeError> {
        signer(&self.tcb_signing_key, "TCB signing", random)
    }

    /// The trust domain: the SHA-256 of the root's SubjectPublicKeyInfo in DER.
    pub(crate) fn trust_domain(&self) -> Result<[u8; 32], SimteeError> {
        Ok(sha256(
            &key_pair(&self.root_key, "root")?.subject_public_key_info(),
        ))
    }

    fn root_issuer(&self) -> Result<Issuer<'static, KeyPair>, SimteeError> {
        Ok(Issuer::new(
            authority(ROOT_NAME, 1),
            key_pair(&self.root_key, "root")?,
        ))
    }

    fn pck_issuer(&self) -> Result<Issuer<'static, KeyPair>, SimteeError> {
        Ok(Issuer::new(
            authority(PCK_CA_NAME, 0),
            key_pair(&self.pck_ca_key, "PCK CA")?,
        ))
    }
}

/// The certificates of a simulated machine; all public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificates {
    /// For how long all of them are valid.
    pub(crate) validity: Validity,
    #[serde(with = "hex::serde")]
    pub(crate) root_der: Vec<u8>,
    pub(crate) root_pem: String,
    pck_ca_pem: String,
    /// By which the root's revocation list names the PCK CA.
    #[serde(with = "hex::serde")]
    pck_ca_serial: Serial,
    tcb_signing_pem: String,
    pck_pem: String,
    /// By which the PCK CA's revocation list names the platform.
    #[serde(with = "hex::serde")]
    pck_serial: Serial,
}

/// The serial number of a certificate.
type Serial = [u8; 16];

impl Certificates {
    /// Issues all certificates of a new machine.
    pub(crate) fn issue(
        secrets: &Secrets,
        identity: &Identity,
        validity: Validity,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        let dated = |params, serial: &Serial| with_dates(params, &validity, serial);
        let root = secrets.root_issuer()?;
        let (pck_ca_serial, pck_serial) = (new_serial(random)?, new_serial(random)?);

        let root_certificate = dated(authority(ROOT_NAME, 1), &new_serial(random)?)?
            .self_signed(root.key())
            .map_err(issuing("the root certificate"))?;
        let pck_ca_certificate = dated(authority(PCK_CA_NAME, 0), &pck_ca_serial)?
            .signed_by(secrets.pck_issuer()?.key(), &root)
            .map_err(issuing("the PCK CA certificate"))?;
        let tcb_signing = dated(end_entity(TCB_SIGNING_NAME), &new_serial(random)?)?
            .signed_by(&key_pair(&secrets.tcb_signing_key, "TCB signing")?, &root)
            .map_err(issuing("the TCB signing certificate"))?;
        let mut certificates = Self {
            validity,
            root_der: root_certificate.der().to_vec(),
            root_pem: root_certificate.pem(),
            pck_ca_pem: pck_ca_certificate.pem(),
            pck_ca_serial,
            tcb_signing_pem: tcb_signing.pem(),
            pck_pem: String::new(),
            pck_serial,
        };
        certificates.certify_platform(secrets, identity, &Platform::HEALTHY)?;
        Ok(certificates)
    }

    /// Issues the PCK certificate anew, with what the platform now is; its serial number and dates stay.
    pub(crate) fn certify_platform(
        &mut self,
        secrets: &Secrets,
        identity: &Identity,
        platform: &Platform,
    ) -> Result<(), SimteeError> {
        let params = pck_params(identity, platform);
        self.pck_pem = with_dates(params, &self.validity, &self.pck_serial)?
            .signed_by(&key_pair(&secrets.pck_key, "PCK")?, &secrets.pck_issuer()?)
            .map_err(issuing("the PCK certificate"))?
            .pem();
        Ok(())
    }

    /// The chain that a quote carries: PCK certificate, PCK CA, root.
    pub(crate) fn pck_chain(&self) -> String {
        [self.pck_pem.as_str(), &self.pck_ca_pem, &self.root_pem].concat()
    }

    /// The chain of the PCK revocation list's issuer.
    pub(crate) fn pck_ca_chain(&self) -> String {
        [self.pck_ca_pem.as_str(), &self.root_pem].concat()
    }

    /// The chain of the signer of TCB info and QE identity.
    pub(crate) fn tcb_signing_chain(&self) -> String {
        [self.tcb_signing_pem.as_str(), &self.root_pem].concat()
    }
}

/// The revocation lists of both CAs, in DER. Those of a healthy machine revoke nothing.
pub(crate) struct RevocationLists {
    pub(crate) root: Vec<u8>,
    pub(crate) pck: Vec<u8>,
}

impl RevocationLists {
    /// Issues both lists under this number, which grows with every issue.
    pub(crate) fn issue(
        secrets: &Secrets,
        certificates: &Certificates,
        validity: &Validity,
        number: u32,
        faults: &Faults,
    ) -> Result<Self, SimteeError> {
        let signed_by = |issuer: Issuer<'static, KeyPair>, revoked: Option<&Serial>| {
            CertificateRevocationListParams {
                this_update: validity.not_before()?,
                next_update: validity.not_after()?,
                crl_number: SerialNumber::from(u64::from(number)),
                issuing_distribution_point: None,
                revoked_certs: revoked
                    .map(|serial| revocation(serial, validity))
                    .transpose()?
                    .into_iter()
                    .collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            }
            .signed_by(&issuer)
            .map(|list| list.der().to_vec())
            .map_err(issuing("a revocation list"))
        };
        let revoked = |serial, fault| faults.has(&fault).then_some(serial);
        Ok(Self {
            root: signed_by(
                secrets.root_issuer()?,
                revoked(&certificates.pck_ca_serial, Fault::PckCaRevoked),
            )?,
            pck: signed_by(
                secrets.pck_issuer()?,
                revoked(&certificates.pck_serial, Fault::PlatformRevoked),
            )?,
        })
    }
}

fn revocation(serial: &Serial, validity: &Validity) -> Result<RevokedCertParams, SimteeError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: validity.not_before()?,
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    })
}

fn authority(name: &str, intermediates_below: u8) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(intermediates_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn end_entity(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::ContentCommitment,
    ];
    params
}

fn pck_params(identity: &Identity, platform: &Platform) -> CertificateParams {
    let mut params = end_entity(PCK_NAME);
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            &SGX_EXTENSION_OID,
            identity.sgx_extension(platform),
        ));
    params
}

fn named(name: &str) -> CertificateParams {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name;
    params.use_authority_key_identifier_extension = true;
    params
}

fn with_dates(
    mut params: CertificateParams,
    validity: &Validity,
    serial: &Serial,
) -> Result<CertificateParams, SimteeError> {
    params.not_before = validity.not_before()?;
    params.not_after = validity.not_after()?;
    params.serial_number = Some(SerialNumber::from_slice(serial));
    Ok(params)
}

fn new_serial(random: &SystemRandom) -> Result<Serial, SimteeError> {
    let mut serial: Serial = ring::rand::generate(random)
        .map(ring::rand::Random::expose)
        .map_err(|_| SimteeError::Randomness)?;
    // A serial number is a positive integer: the top bit is its sign, and a leading zero would be dropped.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn new_key(random: &SystemRandom) -> Result<Vec<u8>, SimteeError> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, random)
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| SimteeError::Randomness)
}

fn key_pair(pkcs8: &[u8], which: &'static str) -> Result<KeyPair, SimteeError> {
    KeyPair::try_from(pkcs8).map_err(|_| SimteeError::Key { which })
}

fn signer(
    pkcs8: &[u8],
    which: &'static str,
    random: &SystemRandom,
) -> Result<EcdsaKeyPair, SimteeError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, random)
        .map_err(|_| SimteeError::Key { which })
}

fn issuing(what: &'static str) -> impl FnOnce(rcgen::Error) -> SimteeError {
    move |source| SimteeError::Issuing { what, source }
}
