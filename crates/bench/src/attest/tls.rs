//! The baseline: mutual TLS 1.3 without evidence. The same library, provider, version and key type as the attested channel,
//! nothing resumed, and each side knows the other's certificate beforehand, which is the least that can be verified.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::BenchError;
use crate::stopwatch::{Lap, Stopwatch};

/// Both sides, ready to connect.
pub(super) struct PlainTls {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

/// A P-256 key and its self-signed certificate.
struct Credential {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Credential {
    fn generate() -> Result<Self, BenchError> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::default().self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }
}

impl PlainTls {
    pub(super) async fn new() -> Result<Self, BenchError> {
        let (client, server) = (Credential::generate()?, Credential::generate()?);
        let provider = Arc::new(ring::default_provider());
        let pinned = |other: &Credential| {
            Arc::new(Pinned {
                certificate: other.certificate.clone(),
                provider: provider.clone(),
            })
        };
        let (knows_server, knows_client) = (pinned(&server), pinned(&client));
        let mut connecting = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(knows_server)
            .with_client_auth_cert(vec![client.certificate], client.key)?;
        connecting.resumption = rustls::client::Resumption::disabled();
        let mut accepting = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(knows_client)
            .with_single_cert(vec![server.certificate], server.key)?;
        accepting.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        accepting.send_tls13_tickets = 0;
        let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        Ok(Self {
            connector: TlsConnector::from(Arc::new(connecting)),
            acceptor: TlsAcceptor::from(Arc::new(accepting)),
            address: listener.local_addr()?,
            listener,
        })
    }

    /// Connects, shakes hands, and sends one byte there and back: only then does the client know that it was let in.
    pub(super) async fn connect(&self) -> Result<Lap, BenchError> {
        let (listener, acceptor) = (self.listener.clone(), self.acceptor.clone());
        let server = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let mut tls = acceptor.accept(tcp).await?;
            let byte = tls.read_u8().await?;
            tls.write_u8(byte).await?;
            tls.flush().await
        });
        let watch = Stopwatch::start();
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let mut tls = self.connector.connect(name, tcp).await?;
        tls.write_u8(1).await?;
        tls.flush().await?;
        tls.read_u8().await?;
        let lap = watch.stop();
        server.await??;
        Ok(lap)
    }
}

/// Believes in one certificate.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn judge(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if **certificate == *self.certificate {
            Ok(())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// TLS 1.2 is not offered, so this is never called.
fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::PeerIncompatible::Tls12NotOffered.into())
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
