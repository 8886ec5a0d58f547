//! Peers on the attested channel that send anything: in their certificate, and after the TLS handshake.
//!
//! The readers of certificates and of the handshake's messages are private to the channel, so each input is a connection
//! on the loopback interface: TLS is real, and what a peer says in it is the input.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use minicbor::{Decoder, Encoder};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use sesemi_attest::channel::{Acceptor, Connector, ExpectedService, Peer};
use sesemi_attest::{AppraisalPolicy, Attester, Clock};
use sesemi_protocol::Digest;
use sesemi_protocol::wire::Call;
use sesemi_simtee::{Machine, Measurement};
use sesemi_testkit::enclave::{Enclave, verifier};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testdata;
use crate::input::Input;
use crate::samples::{self, Fixed, identity, tagged};

mod gullible;

const NOW: u64 = 1_790_000_000;
const ALPN: &[u8] = b"sesemi-channel/1";
const EXTENSION: [u64; 6] = [2, 23, 133, 5, 4, 9];
/// Longer than every step of a handshake together may wait: an input that takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What a peer shows and says, as the first byte chooses.
enum Script<'a> {
    /// A certificate.
    Certificate(&'a [u8]),
    /// A well-made certificate with this as its evidence extension.
    Extension(&'a [u8]),
    /// A certificate with genuine evidence, then these bytes instead of the handshake's messages.
    Messages(&'a [u8]),
    /// No certificate, then these bytes.
    Anonymous(&'a [u8]),
}

impl<'a> Script<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let mut input = Input::new(bytes);
        match (input.byte() % 4, input.rest()) {
            (0, rest) => Self::Certificate(rest),
            (1, rest) => Self::Extension(rest),
            (2, rest) => Self::Messages(rest),
            (_, rest) => Self::Anonymous(rest),
        }
    }

    fn certificate(&self, lab: &Lab) -> Option<Vec<u8>> {
        match self {
            Self::Certificate(der) => Some(der.to_vec()),
            Self::Extension(value) => Some(lab.certificate(value)),
            Self::Messages(_) => Some(lab.certificate(&lab.extension)),
            Self::Anonymous(_) => None,
        }
    }

    fn messages(&self) -> &'a [u8] {
        match self {
            Self::Messages(bytes) | Self::Anonymous(bytes) => bytes,
            Self::Certificate(_) | Self::Extension(_) => &[],
        }
    }
}

/// A client connects to a service that sends the bytes. It never takes it for KeyService, and TLS comes about only with
/// evidence that is bound to the service's key.
pub fn channel_from_server(bytes: &[u8]) {
    let lab = LAB
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let script = Script::of(bytes);
    let Some(certificate) = script.certificate(&lab) else {
        return;
    };
    let believed = lab.block_on(async {
        let connected = lab
            .connector
            .connect(lab.address, ExpectedService::FirstContact);
        let (connected, believed) =
            tokio::join!(connected, lab.serve(certificate, script.messages()));
        assert!(connected.is_err(), "a stranger is taken for KeyService");
        believed
    });
    if let Script::Extension(value) = script {
        assert!(believed || value != lab.extension);
        if believed {
            lab.demand_bound(value);
        }
    }
}

/// A service accepts a client that sends the bytes. It takes none for an enclave, and without a certificate reads calls.
pub fn channel_from_client(bytes: &[u8]) {
    let lab = LAB
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let script = Script::of(bytes);
    let certificate = script.certificate(&lab);
    lab.block_on(async {
        let accepted = async {
            let (tcp, _) = lab.listener.accept().await.unwrap();
            let accepted = lab.acceptor.accept(tcp).await;
            let honest = certificate.is_none() && script.messages().starts_with(&opening(false));
            assert!(accepted.is_ok() || !honest);
            let Ok((mut channel, peer)) = accepted else {
                return;
            };
            assert_eq!(peer, Peer::Principal, "a stranger is taken for an enclave");
            while let Ok(Some(call)) = channel.receive::<Call>(HANGS).await {
                drop(call);
            }
        };
        tokio::join!(accepted, lab.call(certificate.clone(), script.messages()));
    });
}

/// A simulated machine, both ends of a channel as they are in use, and what is needed to play each of them.
struct Lab {
    runtime: Runtime,
    listener: TcpListener,
    address: SocketAddr,
    connector: Connector,
    acceptor: Acceptor,
    key: KeyPair,
    extension: Vec<u8>,
    genuine: Vec<u8>,
}

static LAB: LazyLock<Mutex<Lab>> = LazyLock::new(|| Mutex::new(Lab::new()));

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let created = UNIX_EPOCH + Duration::from_secs(NOW);
        let machine = Arc::new(Machine::create(folder.path(), created).unwrap());
        let policy = AppraisalPolicy::per_release;
        let attester = Enclave::new(machine.clone(), Measurement::of_elf(b"a program"));
        let connector = Connector::for_principal(
            verifier(&machine),
            AppraisalPolicy::reference_values([attester.code()]).unwrap(),
            policy().digest().unwrap(),
            Arc::new(Fixed),
            Arc::new(Fixed),
        );
        let key = KeyPair::generate().unwrap();
        let claims = claims(&key);
        let genuine = attester.evidence(&report_data(&claims)).unwrap();
        let acceptor = Acceptor::new(
            Arc::new(identity(2)),
            Arc::new(attester),
            verifier(&machine),
            policy(),
            Arc::new(Fixed),
            Arc::new(Fixed),
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        Self {
            runtime,
            address: listener.local_addr().unwrap(),
            listener,
            connector: connector.unwrap(),
            acceptor: acceptor.unwrap(),
            extension: extension(genuine.as_bytes(), &claims),
            key,
            genuine: genuine.as_bytes().to_vec(),
        }
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let work = async { tokio::time::timeout(HANGS, work).await };
        self.runtime.block_on(work).expect("this input hangs")
    }

    fn certificate(&self, extension: &[u8]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        let extension = CustomExtension::from_oid_content(&EXTENSION, extension.to_vec());
        params.custom_extensions = vec![extension];
        params.self_signed(&self.key).unwrap().der().to_vec()
    }

    fn shows(&self, certificate: Vec<u8>) -> Arc<gullible::Shows> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key));
        let chain = vec![CertificateDer::from(certificate)];
        Arc::new(gullible::Shows(Arc::new(CertifiedKey::new(
            chain,
            key.unwrap(),
        ))))
    }

    /// Plays the service for one connection, and says whether the client took the certificate.
    async fn serve(&self, certificate: Vec<u8>, messages: &[u8]) -> bool {
        let config = gullible::server(self.shows(certificate), ALPN);
        let (tcp, _) = self.listener.accept().await.unwrap();
        match TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
            Ok(mut tls) => {
                say(&mut tls, messages).await;
                true
            }
            Err(_) => false,
        }
    }

    /// Plays a client for one connection.
    async fn call(&self, certificate: Option<Vec<u8>>, messages: &[u8]) {
        let shows = certificate.map(|certificate| self.shows(certificate));
        let config = gullible::client(shows, ALPN);
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::IpAddress(self.address.ip().into());
        let connector = TlsConnector::from(Arc::new(config));
        if let Ok(mut tls) = connector.connect(name, tcp).await {
            say(&mut tls, messages).await;
        }
    }

    /// Whatever else is in it, an extension that a client takes holds evidence for the hash of the certificate's key.
    fn demand_bound(&self, extension: &[u8]) {
        let mut d = Decoder::new(extension);
        assert_eq!(d.tag().unwrap().as_u64(), 60000);
        assert_eq!(d.array().unwrap(), Some(2));
        let evidence = d.bytes().unwrap();
        let claims = d.bytes().unwrap();
        assert_eq!(d.position(), extension.len());
        assert_eq!(claims, self::claims(&self.key));
        // The quote's head and the enclave's report, which are what is signed.
        assert_eq!(evidence[..432], self.genuine[..432]);
    }
}

/// Says it all, says goodbye, and listens until the other side is gone.
async fn say<S>(tls: &mut S, messages: &[u8])
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let _ = tls.write_all(messages).await;
    let _ = tls.shutdown().await;
    let mut heard = Vec::new();
    let _ = tls.read_to_end(&mut heard).await;
}

/// `pubkey-hash` of a key, as the certificate's evidence covers it (spec/channel.md).
fn claims(key: &KeyPair) -> Vec<u8> {
    let mut hash = Encoder::new(Vec::new());
    let digest = Digest::of(&key.subject_public_key_info());
    hash.array(2).unwrap().u8(1).unwrap();
    hash.bytes(digest.as_bytes()).unwrap();
    let mut e = Encoder::new(Vec::new());
    e.map(1).unwrap().str("pubkey-hash").unwrap();
    e.bytes(hash.writer()).unwrap();
    e.into_writer()
}

fn report_data(claims: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..32].copy_from_slice(Digest::of(claims).as_bytes());
    data
}

fn extension(evidence: &[u8], claims: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.tag(minicbor::data::Tag::new(60000)).unwrap();
    e.array(2).unwrap().bytes(evidence).unwrap();
    e.bytes(claims).unwrap();
    e.into_writer()
}

impl Clock for Fixed {
    fn unix_seconds(&self) -> u64 {
        NOW
    }
}

/// A message as it stands on the wire: its length, then deterministic CBOR.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u32).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

/// `{0: enclave, 1: nonce}`.
fn opening(enclave: bool) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(2).unwrap().u8(0).unwrap().bool(enclave).unwrap();
    e.u8(1).unwrap().bytes(&[3; 32]).unwrap();
    frame(e.writer())
}

/// `{0: evidence}`.
fn client_proof(evidence: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.map(1).unwrap().u8(0).unwrap().bytes(evidence).unwrap();
    frame(e.writer())
}

/// `{0: service key, 1: nonce, 2: evidence, 3: signature, 4: digest of the policy}`.
fn server_proof(evidence: &[u8]) -> Vec<u8> {
    let policy = AppraisalPolicy::per_release().digest().unwrap();
    let service = identity(2);
    let mut e = Encoder::new(Vec::new());
    e.map(5).unwrap();
    let fields: [&[u8]; 5] = [
        service.public().key(),
        &[3; 32],
        evidence,
        &[0; 64],
        policy.as_bytes(),
    ];
    for (number, field) in (0u8..).zip(fields) {
        e.u8(number).unwrap().bytes(field).unwrap();
    }
    frame(e.writer())
}

fn certificate_seeds(lab: &Lab) -> Vec<Vec<u8>> {
    let real = testdata!("dcap/sgx-v3.quote");
    let claims = claims(&lab.key);
    let extensions = [lab.extension.clone(), extension(real, &claims)];
    let certificates = [lab.certificate(&lab.extension), lab.certificate(b"")];
    [tagged(0, certificates), tagged(1, extensions)].concat()
}

pub(crate) fn from_server_seeds() -> Vec<Vec<u8>> {
    let lab = LAB
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut seeds = certificate_seeds(&lab);
    seeds.extend(tagged(2, [server_proof(&lab.genuine), frame(&[0xa0])]));
    seeds
}

pub(crate) fn from_client_seeds() -> Vec<Vec<u8>> {
    let lab = LAB
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut seeds = certificate_seeds(&lab);
    let enclave = [opening(true), client_proof(&lab.genuine)].concat();
    seeds.extend(tagged(2, [enclave, opening(false)]));
    let calls = samples::vectors(samples::WIRE, &["bytes"]);
    let principal = |call: &Vec<u8>| [opening(false), frame(call)].concat();
    seeds.extend(tagged(3, calls.iter().take(12).map(principal)));
    seeds
}
