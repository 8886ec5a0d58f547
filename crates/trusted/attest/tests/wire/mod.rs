//! A laboratory for attacks on the channel: honest and dishonest enclaves of one simulated machine, and TLS peers that can do
//! what no honest one would.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use sesemi_attest::channel::{Acceptor, ChannelError, Connector, Peer};
use sesemi_attest::code_identity::SgxMeasurement;
use sesemi_attest::{
    AppraisalPolicy, Attester, AttesterError, Clock, CodeIdentity, Evidence, EvidenceVerifier,
    SealBinding, TeeKind, TrustAnchor,
};
use sesemi_protocol::{SecretKey, ServiceId, SigningIdentity, SystemEntropy};
use sesemi_simtee::{Machine, Measurement, TdMeasurement};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::support::{NOW, endorsements};

pub(crate) const KEYSERVICE: &[u8] = b"the program KeyService";
pub(crate) const SEMIRT: &[u8] = b"the program SeMIRT";
const ALPN: &[u8] = b"sesemi-channel/1";

/// One machine and everything that is measured on it.
pub(crate) struct Lab {
    machine: Arc<Machine>,
    _folder: tempfile::TempDir,
}

struct Fixed;

impl Clock for Fixed {
    fn unix_seconds(&self) -> u64 {
        NOW
    }
}

/// An honest enclave or trust domain.
#[derive(Clone)]
pub(crate) struct Enclave {
    machine: Arc<Machine>,
    program: Vec<u8>,
    tee: TeeKind,
}

impl Attester for Enclave {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn tee(&self) -> TeeKind {
        self.tee
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let program = &self.program;
        let quote = match self.tee {
            TeeKind::Tdx => self
                .machine
                .td_quote(&TdMeasurement::of_elf(program), report_data),
            _ => self
                .machine
                .quote(&Measurement::of_elf(program), report_data),
        };
        Ok(Evidence::from_bytes(quote.unwrap())?)
    }

    fn sealing_key(&self, _: SealBinding) -> Result<SecretKey, AttesterError> {
        Err(AttesterError::NoTee)
    }
}

type Choose = dyn Fn(&Evidence, &[u8; 64]) -> Option<Evidence> + Send + Sync;

/// A dishonest one: its certificate is genuine, and what it shows after that is chosen by a script, which is told what would
/// be honest and what for.
pub(crate) struct Script {
    enclave: Enclave,
    choose: Box<Choose>,
    certified: Mutex<bool>,
}

impl Script {
    pub(crate) fn new(
        enclave: Enclave,
        choose: impl Fn(&Evidence, &[u8; 64]) -> Option<Evidence> + Send + Sync + 'static,
    ) -> Self {
        Self {
            enclave,
            choose: Box::new(choose),
            certified: Mutex::new(false),
        }
    }

    /// Honest, but everything it shows is written down.
    pub(crate) fn recording(enclave: Enclave, seen: Arc<Mutex<Vec<Evidence>>>) -> Self {
        Self::new(enclave, move |fresh, _| {
            seen.lock().unwrap().push(fresh.clone());
            Some(fresh.clone())
        })
    }
}

impl Attester for Script {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn tee(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, AttesterError> {
        let fresh = self.enclave.evidence(report_data)?;
        if !std::mem::replace(&mut *self.certified.lock().unwrap(), true) {
            return Ok(fresh);
        }
        (self.choose)(&fresh, report_data).ok_or_else(|| AttesterError::Refused("broken".into()))
    }

    fn sealing_key(&self, _: SealBinding) -> Result<SecretKey, AttesterError> {
        Err(AttesterError::NoTee)
    }
}

/// A server and what it made of those who came.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) service: ServiceId,
    outcomes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Peer, ChannelError>>>,
}

impl Running {
    /// What became of the oldest connection that was not asked about yet.
    pub(crate) async fn last(&self) -> Result<Peer, ChannelError> {
        let mut outcomes = self.outcomes.lock().await;
        tokio::time::timeout(Duration::from_secs(30), outcomes.recv())
            .await
            .expect("a connection came to an end")
            .unwrap()
    }
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let created = UNIX_EPOCH + Duration::from_secs(NOW);
        let machine = Arc::new(Machine::create(folder.path(), created).unwrap());
        Self {
            machine,
            _folder: folder,
        }
    }

    pub(crate) fn enclave(&self, program: &[u8]) -> Enclave {
        Enclave {
            machine: self.machine.clone(),
            program: program.to_vec(),
            tee: TeeKind::Sgx,
        }
    }

    pub(crate) fn trust_domain(&self, program: &[u8]) -> Enclave {
        Enclave {
            tee: TeeKind::Tdx,
            ..self.enclave(program)
        }
    }

    fn verifier(&self) -> EvidenceVerifier {
        let anchor = TrustAnchor::simulated(self.machine.root_der().to_vec()).unwrap();
        let sgx = endorsements(self.machine.collateral());
        let tdx = endorsements(self.machine.td_collateral());
        EvidenceVerifier::new(anchor, sgx.and(tdx).unwrap())
    }

    /// Demands the program KeyService.
    fn keyservice_policy(&self) -> AppraisalPolicy {
        let measured = Measurement::of_elf(KEYSERVICE);
        let identity = CodeIdentity::sgx(
            self.verifier().anchor().domain(),
            &SgxMeasurement {
                mr_enclave: measured.mr_enclave,
                mr_signer: measured.mr_signer,
                isv_prod_id: measured.isv_prod_id,
                isv_svn: measured.isv_svn,
                config_id: measured.config_id,
            },
        );
        AppraisalPolicy::reference_values([identity.digest().unwrap()]).unwrap()
    }

    pub(crate) fn principal_connector(&self) -> Connector {
        self.connector_with(self.keyservice_policy()).unwrap()
    }

    pub(crate) fn connector_with(
        &self,
        policy: AppraisalPolicy,
    ) -> Result<Connector, ChannelError> {
        Connector::for_principal(
            self.verifier(),
            policy,
            AppraisalPolicy::per_release().digest().unwrap(),
            Arc::new(Fixed),
            Arc::new(SystemEntropy::new()),
        )
    }

    pub(crate) fn semirt_connector(&self, attester: impl Attester + 'static) -> Connector {
        Connector::for_enclave(
            self.verifier(),
            self.keyservice_policy(),
            Arc::new(Fixed),
            Arc::new(SystemEntropy::new()),
            Arc::new(attester),
        )
        .unwrap()
    }

    pub(crate) async fn keyservice(&self, attester: impl Attester + 'static) -> Running {
        self.keyservice_with(attester, AppraisalPolicy::per_release())
            .await
    }

    /// A KeyService with a fresh identity, which accepts until the test ends.
    pub(crate) async fn keyservice_with(
        &self,
        attester: impl Attester + 'static,
        policy: AppraisalPolicy,
    ) -> Running {
        let entropy = Arc::new(SystemEntropy::new());
        let identity = Arc::new(SigningIdentity::generate(&*entropy).unwrap());
        let service = identity.public().service_id();
        let acceptor = Acceptor::new(
            identity,
            Arc::new(attester),
            self.verifier(),
            policy,
            Arc::new(Fixed),
            entropy,
        );
        let acceptor = Arc::new(acceptor.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, outcomes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    let judged = acceptor.accept(tcp).await.map(|(_, peer)| peer);
                    let _ = sender.send(judged);
                });
            }
        });
        Running {
            address,
            service,
            outcomes: tokio::sync::Mutex::new(outcomes),
        }
    }
}

/// Believes any certificate and any signature.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
        ]
    }
}

/// Shows one certificate and signs with one key, whether they belong together or not.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shows {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn shows((certificate, key): Certified) -> Arc<Shows> {
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    Arc::new(Shows(Arc::new(CertifiedKey::new(vec![certificate], key))))
}

fn own_key() -> (KeyPair, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (key, der)
}

/// A certificate like any other on the Internet.
pub(crate) fn plain_certificate() -> Certified2 {
    let (key, der) = own_key();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    (certificate.der().clone(), Key(der))
}

/// A certificate for a key of one's own, with the evidence that another certificate carries.
pub(crate) fn certificate_with_evidence_of(genuine: &CertificateDer<'_>) -> Certified2 {
    let (_, parsed) = X509Certificate::from_der(genuine).unwrap();
    let oid = [2, 23, 133, 5, 4, 9];
    let evidence = parsed
        .extensions()
        .iter()
        .find(|extension| extension.oid.to_id_string() == "2.23.133.5.4.9")
        .unwrap();
    let (key, der) = own_key();
    let mut params = CertificateParams::default();
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &oid,
        evidence.value.to_vec(),
    )];
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), Key(der))
}

/// A private key that can be used twice.
pub(crate) struct Key(PrivateKeyDer<'static>);

impl Clone for Key {
    fn clone(&self) -> Self {
        Self(self.0.clone_key())
    }
}

type Certified2 = (CertificateDer<'static>, Key);

fn client_config(shows: Option<Arc<Shows>>, alpn: bool) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match shows {
        Some(shows) => builder.with_client_cert_resolver(shows),
        None => builder.with_no_client_auth(),
    };
    if alpn {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    config
}

type Tls = tokio_rustls::client::TlsStream<TcpStream>;

/// In TLS 1.3 a client learns only afterwards that its certificate was refused: so a byte is awaited, which never comes.
async fn handshake(address: SocketAddr, config: ClientConfig) -> std::io::Result<Tls> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

async fn until_refused(mut tls: Tls) -> std::io::Result<()> {
    let mut byte = [0];
    let limit = Duration::from_secs(30);
    match tokio::time::timeout(limit, tls.read(&mut byte)).await {
        Ok(Ok(0)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        Ok(Ok(_)) | Err(_) => Ok(()),
        Ok(Err(error)) => Err(error),
    }
}

/// The certificate that a server shows to anybody.
pub(crate) async fn certificate_of(address: SocketAddr) -> CertificateDer<'static> {
    let tls = handshake(address, client_config(None, true)).await.unwrap();
    let (_, session) = tls.get_ref();
    session.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Connects, showing this certificate without having its key.
pub(crate) async fn tls_client(
    address: SocketAddr,
    stolen: Option<CertificateDer<'static>>,
    alpn: bool,
) -> std::io::Result<()> {
    let shown = stolen.map(|certificate| shows((certificate, own_key().1)));
    until_refused(handshake(address, client_config(shown, alpn)).await?).await
}

/// Connects, showing this certificate with its key.
pub(crate) async fn tls_client_with(
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    key: Key,
) -> std::io::Result<()> {
    let shown = Some(shows((certificate, key.0)));
    until_refused(handshake(address, client_config(shown, true)).await?).await
}

/// A server that shows this certificate without having its key.
pub(crate) async fn tls_server(stolen: CertificateDer<'static>) -> SocketAddr {
    serve_tls(shows((stolen, own_key().1))).await
}

/// A server that shows this certificate with its key.
pub(crate) async fn tls_server_with(certificate: CertificateDer<'static>, key: Key) -> SocketAddr {
    serve_tls(shows((certificate, key.0))).await
}

async fn serve_tls(shows: Arc<Shows>) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(shows);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    once(move |tcp| async move {
        let _ = acceptor.accept(tcp).await;
    })
    .await
}

/// Listens for one connection and hands it on.
async fn once<F>(answer: impl FnOnce(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        answer(tcp).await;
    });
    address
}

/// A client that keeps tickets and would resume: how its two handshakes went, and how many tickets it got.
pub(crate) async fn two_handshakes_of_a_client_that_would_resume(
    address: SocketAddr,
) -> ([rustls::HandshakeKind; 2], u32) {
    let config = client_config(None, true);
    let config = Arc::new(config);
    let mut kinds = Vec::new();
    let mut tickets = 0;
    for _ in 0..2 {
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::IpAddress(address.ip().into());
        let mut tls = TlsConnector::from(config.clone())
            .connect(name, tcp)
            .await
            .unwrap();
        // Tickets come after the handshake; the opening makes the server answer, so that they would be here by then.
        let opening = [&[0, 0, 0, 38][..], &[0xa2, 0, 0xf4, 1, 0x58, 32], &[7; 32]].concat();
        tls.write_all(&opening).await.unwrap();
        let mut byte = [0];
        tls.read_exact(&mut byte).await.unwrap();
        let (_, session) = tls.get_ref();
        kinds.push(session.handshake_kind().unwrap());
        tickets += session.tls13_tickets_received();
    }
    ([kinds[0], kinds[1]], tickets)
}

/// Alert record of TLS (RFC 8446, section 6): fatal, protocol_version.
pub(crate) const ALERT_PROTOCOL_VERSION: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// Sends a ClientHello of TLS 1.2, which knows no other version, and returns the first record that comes.
pub(crate) async fn answer_to_tls12_hello(address: SocketAddr) -> [u8; 7] {
    let mut body = vec![3, 3];
    body.extend([0x11; 32]);
    // No session, two cipher suites (ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM), no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // supported_groups: P-256; ec_point_formats: uncompressed; signature_algorithms: ECDSA P-256 SHA-256.
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(&record(1, &body)).await.unwrap();
    let mut answer = [0; 7];
    tcp.read_exact(&mut answer).await.unwrap();
    answer
}

/// A server that answers any ClientHello with a ServerHello of TLS 1.2.
pub(crate) async fn tls12_server() -> SocketAddr {
    once(|mut tcp| async move {
        let mut head = [0; 5];
        tcp.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        tcp.read_exact(&mut hello).await.unwrap();
        // The session id stands after type, length, version and random; it is echoed.
        let session = &hello[39..39 + usize::from(hello[38])];
        let mut body = vec![3, 3];
        body.extend([0x22; 32]);
        body.push(hello[38]);
        body.extend(session);
        body.extend([0xc0, 0x2b, 0, 0, 0]);
        tcp.write_all(&record(2, &body)).await.unwrap();
        let _ = tcp.read(&mut [0; 64]).await;
    })
    .await
}

/// A handshake message of this type in a record of its own.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[kind][..], &length, body].concat();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&[0x16, 3, 1][..], &length, &message].concat()
}
