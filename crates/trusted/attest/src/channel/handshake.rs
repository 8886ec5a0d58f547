//! The messages that bind evidence to a connection, and the facts about it that both sides compute.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use sesemi_protocol::refusal::Refusal;
use sesemi_protocol::{Digest, ServiceId};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::binding::Connection;
use super::{ALPN, ChannelError};
use crate::evidence::certificate_key;

/// Label of the TLS exporter (RFC 8446, section 7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-sesemi-channel-v1";

/// Client to server, first: what it is, and a nonce for the server's evidence.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Opening {
    /// Whether the client is an enclave and will give evidence.
    #[n(0)]
    pub(super) enclave: bool,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) nonce: [u8; 32],
}

/// Server to client: evidence and signature over this connection, and a nonce for the client's evidence.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct ServerProof {
    /// The service's Ed25519 public key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) service_key: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) nonce: [u8; 32],
    #[n(2)]
    pub(super) evidence: ByteVec,
    /// The service's signature over the connection.
    #[n(3)]
    pub(super) signature: ByteVec,
    /// Digest of the policy by which the service appraises enclaves. The evidence and the signature are bound to it.
    #[n(4)]
    pub(super) policy: Digest,
}

/// An enclave as client to server.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct ClientProof {
    #[n(0)]
    pub(super) evidence: ByteVec,
}

/// Server to client, last: messages may flow, or why not.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Verdict {
    #[n(0)]
    pub(super) refusal: Option<Refusal>,
}

/// The server's and the client's public key in this connection, as this side sees them.
pub(super) struct Keys {
    pub(super) client: Option<Digest>,
    pub(super) server: Digest,
}

/// Both sides must have agreed on this protocol: TLS itself lets a peer that names none pass.
pub(super) fn require_protocol(tls: &TlsStream<TcpStream>) -> Result<(), ChannelError> {
    let (_, session) = tls.get_ref();
    match session.alpn_protocol() {
        Some(protocol) if protocol == ALPN => Ok(()),
        _ => Err(ChannelError::OtherProtocol),
    }
}

/// The connection's facts. `service` and `policy` are what the server claims, until it has proved it.
pub(super) fn connection(
    tls: &TlsStream<TcpStream>,
    keys: Keys,
    service: ServiceId,
    policy: Digest,
) -> Result<Connection, ChannelError> {
    let exporter = match tls {
        TlsStream::Client(stream) => {
            let (_, session) = stream.get_ref();
            session.export_keying_material([0; 32], EXPORTER_LABEL, None)?
        }
        TlsStream::Server(stream) => {
            let (_, session) = stream.get_ref();
            session.export_keying_material([0; 32], EXPORTER_LABEL, None)?
        }
    };
    Ok(Connection {
        exporter,
        client_key: keys.client,
        server_key: keys.server,
        service,
        policy,
    })
}

/// The certificate that the other side showed, if any.
pub(super) fn peer_certificate(tls: &TlsStream<TcpStream>) -> Option<&[u8]> {
    let (_, session) = tls.get_ref();
    session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| &**certificate)
}

/// SHA-256 of the public key in a certificate of ours.
pub(super) fn own_key(certificate: &[u8]) -> Result<Digest, ChannelError> {
    Ok(certificate_key(certificate)?)
}
