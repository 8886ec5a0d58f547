//! Services that TEE makers run, in this process, and services that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub
)]

use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use sesemi_simtee::{Machine, serve_collateral};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Longest head of a request that is read.
const MAX_HEAD: usize = 8192;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, format!("http://{address}"))
}

/// The provisioning certification service of a simulated machine.
pub async fn pcs(machine: &Machine) -> String {
    let (listener, url) = listener().await;
    let machine = Arc::new(Machine::load(machine.directory()).unwrap());
    tokio::spawn(serve_collateral(machine, listener, std::future::pending()));
    url
}

/// Answers the target of each request with these bytes, head and all, and hangs up.
pub async fn scripted(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> String {
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let Some(target) = target(&mut connection).await else {
                continue;
            };
            // Who does not want all of it hangs up.
            let _ = connection.write_all(&answer(&target)).await;
            let _ = connection.shutdown().await;
        }
    });
    url
}

async fn target(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        head.push(connection.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    head.split(' ').nth(1).map(str::to_owned)
}

/// An answer with success.
pub fn success(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

pub fn not_found() -> Vec<u8> {
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
}

/// Sends without end.
pub async fn endless() -> String {
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = target(&mut connection).await;
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while connection.write_all(&[b'0'; 4096]).await.is_ok() {}
        }
    });
    url
}

/// Takes connections and never says a word.
pub async fn silent() -> String {
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
        }
    });
    url
}

/// TLS in front of another service: its address, and its certificate in PEM.
pub async fn tls(inner: String) -> (String, String) {
    let inner = inner.strip_prefix("http://").unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, url) = listener().await;
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let (acceptor, inner) = (acceptor.clone(), inner.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate hangs up.
                let Ok(mut secured) = acceptor.accept(connection).await else {
                    return;
                };
                let mut plain = TcpStream::connect(inner).await.unwrap();
                let _ = copy_bidirectional(&mut secured, &mut plain).await;
            });
        }
    });
    let url = url.replace("http://127.0.0.1", "https://localhost");
    (url, made.cert.pem())
}
