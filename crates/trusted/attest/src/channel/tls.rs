//! TLS as strict as it gets: version 1.3 alone, nothing resumed, and certificates judged by their evidence.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};

use sesemi_protocol::CodeIdentityDigest;

use super::credential::Credential;
use super::{ALPN, ChannelError};
use crate::clock::Clock;
use crate::evidence::{Evidence, from_certificate};
use crate::policy::AppraisalPolicy;
use crate::verifier::{Claims, EvidenceVerifier};

/// What this side demands of the other side's evidence, in the certificate and after it.
pub(super) struct Filter {
    pub(super) verifier: EvidenceVerifier,
    pub(super) policy: AppraisalPolicy,
    pub(super) clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
}

impl core::fmt::Debug for Filter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Filter(..)")
    }
}

impl Filter {
    pub(super) fn new(
        verifier: EvidenceVerifier,
        policy: AppraisalPolicy,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            verifier,
            policy,
            clock,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        }
    }

    /// Evidence: genuine, bound to `bound_to`, approved.
    pub(super) fn accept(
        &self,
        evidence: &Evidence,
        bound_to: &[u8; 64],
    ) -> Result<Claims, ChannelError> {
        let now = self.clock.unix_seconds();
        Ok(self
            .verifier
            .accept(evidence, bound_to, &self.policy, now)?)
    }

    /// The evidence in a certificate: right key, genuine, approved.
    pub(super) fn certificate(&self, der: &[u8]) -> Result<Claims, ChannelError> {
        let found = from_certificate(der)?;
        self.accept(&found.evidence, &found.report_data)
    }

    /// The code that a certificate of this connection speaks for. TLS has had it judged already, so it is only read again.
    pub(super) fn certified_code(&self, der: &[u8]) -> Result<CodeIdentityDigest, ChannelError> {
        let found = from_certificate(der)?;
        match self.verifier.peek_code(&found.evidence)? {
            Some(code) => Ok(code),
            None => Ok(self.certificate(der)?.code),
        }
    }

    /// TLS shows one reason for all refusals; ours goes along for this side's log.
    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        self.certificate(end_entity)
            .map(drop)
            .map_err(|e| CertificateError::Other(OtherError(Arc::new(e))).into())
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// TLS 1.2 is not compiled in, so this is never called; if it ever were, it would refuse.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(
        rustls::PeerIncompatible::Tls12NotOffered,
    ))
}

impl ServerCertVerifier for Filter {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Filter {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// Principals connect without a certificate; they sign their commands instead.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// A server that shows `credential` and applies `filter` to clients that show a certificate.
pub(super) fn server(
    credential: &Credential,
    filter: Arc<Filter>,
) -> Result<ServerConfig, ChannelError> {
    let mut config = ServerConfig::builder_with_provider(filter.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(filter)
        .with_single_cert(
            vec![credential.certificate.clone()],
            credential.key.clone_key(),
        )?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// A client that applies `filter` to the server and shows `credential` if it has one.
pub(super) fn client(
    credential: Option<&Credential>,
    filter: Arc<Filter>,
) -> Result<ClientConfig, ChannelError> {
    let builder = ClientConfig::builder_with_provider(filter.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(filter);
    let mut config = match credential {
        Some(credential) => builder.with_client_auth_cert(
            vec![credential.certificate.clone()],
            credential.key.clone_key(),
        )?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}
