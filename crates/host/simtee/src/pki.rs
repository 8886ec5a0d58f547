//! The simulated provisioning service's certificates and revocation lists, in the shape of Intel's.
//!
//! ```text
//! root CA ──┬── PCK platform CA ── PCK certificate (one per machine; carries the SGX extension)
//!           └── TCB signing certificate (signs TCB info and QE identity)
//! ```
//!
//! Each CA has a revocation list. All keys are P-256, all signatures ECDSA with SHA-256, as a verifier demands.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    SerialNumber,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::SimteeError;
use crate::measurement::sha256;
use crate::processor::{Identity, SGX_EXTENSION_OID};
use crate::validity::{CERTIFICATE_DAYS, Validity};

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
            seal_secret: ring::rand::generate(random)
                .map(ring::rand::Random::expose)
                .map_err(|_| SimteeError::Randomness)?,
        })
    }

    /// The key with which the processor certifies the quoting enclave.
    pub(crate) fn pck_signer(&self, random: &SystemRandom) -> Result<EcdsaKeyPair, SimteeError> {
        signer(&self.pck_key, "PCK", random)
    }

    /// The key with which the quoting enclave signs quotes.
    pub(crate) fn attestation_signer(
        &self,
        random: &SystemRandom,
    ) -> Result<EcdsaKeyPair, SimteeError> {
        signer(&self.attestation_key, "attestation", random)
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
    #[serde(with = "hex::serde")]
    pub(crate) root_der: Vec<u8>,
    pub(crate) root_pem: String,
    pub(crate) pck_ca_pem: String,
    pub(crate) tcb_signing_pem: String,
    pub(crate) pck_pem: String,
}

impl Certificates {
    /// Issues all certificates of a new machine.
    pub(crate) fn issue(
        secrets: &Secrets,
        identity: &Identity,
        now: SystemTime,
        random: &SystemRandom,
    ) -> Result<Self, SimteeError> {
        let validity = Validity::starting(now, CERTIFICATE_DAYS)?;
        let dated = |params| with_dates(params, &validity, random);
        let (root, pck_ca) = (secrets.root_issuer()?, secrets.pck_issuer()?);

        let root_certificate = dated(authority(ROOT_NAME, 1))?
            .self_signed(root.key())
            .map_err(issuing("the root certificate"))?;
        let pck_ca_certificate = dated(authority(PCK_CA_NAME, 0))?
            .signed_by(pck_ca.key(), &root)
            .map_err(issuing("the PCK CA certificate"))?;
        let tcb_signing = dated(end_entity(TCB_SIGNING_NAME))?
            .signed_by(&key_pair(&secrets.tcb_signing_key, "TCB signing")?, &root)
            .map_err(issuing("the TCB signing certificate"))?;
        let pck = dated(pck_params(identity))?
            .signed_by(&key_pair(&secrets.pck_key, "PCK")?, &pck_ca)
            .map_err(issuing("the PCK certificate"))?;

        Ok(Self {
            root_der: root_certificate.der().to_vec(),
            root_pem: root_certificate.pem(),
            pck_ca_pem: pck_ca_certificate.pem(),
            tcb_signing_pem: tcb_signing.pem(),
            pck_pem: pck.pem(),
        })
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

/// The revocation lists of both CAs, in DER. They revoke nothing.
pub(crate) struct RevocationLists {
    pub(crate) root: Vec<u8>,
    pub(crate) pck: Vec<u8>,
}

impl RevocationLists {
    /// Issues both lists under this number, which grows with every issue.
    pub(crate) fn issue(
        secrets: &Secrets,
        validity: &Validity,
        number: u32,
    ) -> Result<Self, SimteeError> {
        let list = CertificateRevocationListParams {
            this_update: validity.not_before()?,
            next_update: validity.not_after()?,
            crl_number: SerialNumber::from(u64::from(number)),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let signed_by = |issuer: Issuer<'static, KeyPair>| {
            list.signed_by(&issuer)
                .map(|list| list.der().to_vec())
                .map_err(issuing("a revocation list"))
        };
        Ok(Self {
            root: signed_by(secrets.root_issuer()?)?,
            pck: signed_by(secrets.pck_issuer()?)?,
        })
    }
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

fn pck_params(identity: &Identity) -> CertificateParams {
    let mut params = end_entity(PCK_NAME);
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            &SGX_EXTENSION_OID,
            identity.sgx_extension(),
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
    random: &SystemRandom,
) -> Result<CertificateParams, SimteeError> {
    params.not_before = validity.not_before()?;
    params.not_after = validity.not_after()?;
    let mut serial: [u8; 16] = ring::rand::generate(random)
        .map(ring::rand::Random::expose)
        .map_err(|_| SimteeError::Randomness)?;
    // A serial number is a positive integer: the top bit is its sign, and a leading zero would be dropped.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
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
