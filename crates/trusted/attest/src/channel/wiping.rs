//! Wipes what a TLS connection keeps of messages that were received.
//!
//! rustls decrypts a record where it came in, in a buffer that lives as long as the connection, and leaves it there until
//! later records happen to overwrite it. On the channel between KeyService and an enclave the last message is usually one
//! with keys, and the channel then stays open for minutes. rustls has no call that wipes the buffer; but it lends the unused
//! part of it to whoever it reads from, and once all records are taken out, that is the whole.

use std::io::{self, ErrorKind, Read};

use rustls::ConnectionCommon;
use tokio_rustls::TlsStream;
use zeroize::Zeroize as _;

/// A source that has nothing to give, and wipes the buffer that it should have filled.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        buffer.zeroize();
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Wipes what this connection's receive buffer holds of earlier records. One that arrived in part is left as it is.
///
/// A part of the buffer that was needed for records of more than 4096 bytes is given back instead, and the allocator
/// of KeyService and SeMIRT wipes what it gets back.
pub(super) fn wipe_received<IO>(tls: &mut TlsStream<IO>) {
    match tls {
        TlsStream::Client(stream) => wipe(stream.get_mut().1),
        TlsStream::Server(stream) => wipe(stream.get_mut().1),
    }
}

fn wipe<Data>(connection: &mut ConnectionCommon<Data>) {
    // It always fails: that there is nothing is what it says.
    let _ = connection.read_tls(&mut Nothing);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    fn connections() -> (ClientConnection, ServerConnection) {
        let certified = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            carry(&mut client, &mut server, usize::MAX);
            carry(&mut server, &mut client, usize::MAX);
        }
        (client, server)
    }

    /// Carries what one side has to say to the other, at most `most` bytes; gives back how many more there were.
    fn carry<A, B>(
        from: &mut ConnectionCommon<A>,
        to: &mut ConnectionCommon<B>,
        most: usize,
    ) -> Vec<u8> {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let rest = wire.split_off(most.min(wire.len()));
        take_in(to, &wire);
        rest
    }

    fn take_in<D>(to: &mut ConnectionCommon<D>, mut wire: &[u8]) {
        while !wire.is_empty() {
            to.read_tls(&mut wire).unwrap();
            to.process_new_packets().unwrap();
        }
    }

    fn received<D>(connection: &mut ConnectionCommon<D>) -> Vec<u8> {
        let mut out = Vec::new();
        // It ends with `WouldBlock`, as more may come.
        let _ = connection.reader().read_to_end(&mut out);
        out
    }

    /// Whether the receive buffer holds this text, outside of what it waits to process.
    fn holds<D>(connection: &mut ConnectionCommon<D>, text: &[u8]) -> bool {
        struct Look<'a>(&'a [u8], bool);
        impl Read for Look<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1 = buffer.windows(self.0.len()).any(|window| window == self.0);
                Err(ErrorKind::WouldBlock.into())
            }
        }
        let mut look = Look(text, false);
        assert!(connection.read_tls(&mut look).is_err());
        look.1
    }

    const KEY: &[u8] = b"a key that must not stay in memory";

    #[test]
    fn what_was_received_is_wiped_and_the_connection_goes_on() {
        let (mut client, mut server) = connections();
        for _ in 0..3 {
            server.writer().write_all(KEY).unwrap();
            carry(&mut server, &mut client, usize::MAX);
            assert_eq!(received(&mut client), KEY);
            assert!(holds(&mut client, KEY), "rustls would leave it there");
            wipe(&mut client);
            assert!(!holds(&mut client, KEY));
        }
        client.writer().write_all(KEY).unwrap();
        carry(&mut client, &mut server, usize::MAX);
        assert_eq!(received(&mut server), KEY);
        wipe(&mut server);
        assert!(!holds(&mut server, KEY));
    }

    #[test]
    fn a_record_that_arrived_in_part_is_left_to_become_whole() {
        let (mut client, mut server) = connections();
        server.writer().write_all(KEY).unwrap();
        carry(&mut server, &mut client, usize::MAX);
        assert_eq!(received(&mut client), KEY);
        server.writer().write_all(b"next").unwrap();
        let rest = carry(&mut server, &mut client, 7);
        assert!(holds(&mut client, &KEY[8..]));
        wipe(&mut client);
        assert!(!holds(&mut client, &KEY[8..]));
        take_in(&mut client, &rest);
        assert_eq!(received(&mut client), b"next");
    }
}
