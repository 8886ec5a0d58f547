//! An enclave's TLS key and certificate: made at start, never stored, with evidence for the key.

use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sesemi_protocol::Digest;

use super::ChannelError;
use crate::attester::Attester;
use crate::evidence::{EXTENSION_OID, certificate_report_data};

/// A TLS key and its RA-TLS certificate.
pub struct Credential {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl core::fmt::Debug for Credential {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Credential {
    /// The certificate in DER, as the other side sees it.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Makes a key, has the TEE vouch for it, and puts both into a self-signed certificate. Names and dates in it mean
    /// nothing: what counts is the evidence.
    ///
    /// # Errors
    /// [`ChannelError::Attester`] if the TEE refuses, [`ChannelError::Tls`] if no certificate can be made.
    pub fn generate(attester: &dyn Attester) -> Result<Self, ChannelError> {
        let failed = |e: rcgen::Error| rustls::Error::General(format!("certificate: {e}"));
        let key = KeyPair::generate().map_err(failed)?;
        let public_key = Digest::of(&key.subject_public_key_info());
        let evidence = attester.evidence(&certificate_report_data(&public_key)?)?;
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &EXTENSION_OID,
            evidence.to_extension(&public_key)?,
        )];
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}
