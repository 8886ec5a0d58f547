//! What fresh evidence is bound to: SHA-512 over everything that makes a connection this one.
//!
//! The TLS 1.3 exporter is the same for both sides and does not cover the client's certificate, so role and both public keys
//! are in the hash as well; each side's nonce keeps the other from answering with evidence made earlier.

use minicbor::Encoder;
use ring::digest::{SHA512, digest};
use sesemi_protocol::{Digest, ServiceId};

/// Who the evidence speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that accepted the connection: KeyService.
    Server,
    /// The side that opened it: SeMIRT.
    Client,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// What both sides know about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// TLS exporter (RFC 8446, section 7.5), 32 bytes.
    pub exporter: [u8; 32],
    /// SHA-256 of the client's SubjectPublicKeyInfo; `None` if it showed no certificate.
    pub client_key: Option<Digest>,
    /// SHA-256 of the server's SubjectPublicKeyInfo.
    pub server_key: Digest,
    /// The KeyService that the connection leads to.
    pub service: ServiceId,
    /// Digest of the policy by which that KeyService appraises the enclaves that it releases keys to.
    pub policy: Digest,
}

impl Connection {
    /// The report data of fresh evidence: SHA-512 over deterministic CBOR of
    /// `["sesemi/v1/evidence", role, exporter, client key or null, server key, nonce, service id, policy]`.
    #[must_use]
    pub fn report_data(&self, role: Role, nonce: &[u8; 32]) -> [u8; 64] {
        let bytes = self.encode("sesemi/v1/evidence", role, nonce);
        let mut out = [0; 64];
        for (to, from) in out.iter_mut().zip(digest(&SHA512, &bytes).as_ref()) {
            *to = *from;
        }
        out
    }

    /// What the service's identity key signs: the same facts under another label.
    #[must_use]
    pub fn service_statement(&self, nonce: &[u8; 32]) -> Vec<u8> {
        self.encode("sesemi/v1/service", Role::Server, nonce)
    }

    fn encode(&self, label: &str, role: Role, nonce: &[u8; 32]) -> Vec<u8> {
        let mut e = Encoder::new(Vec::new());
        // Writing to a Vec cannot fail; the error type is `Infallible`.
        let _: Result<_, minicbor::encode::Error<core::convert::Infallible>> = (|| {
            e.array(8)?
                .str(label)?
                .str(role.as_str())?
                .bytes(&self.exporter)?;
            match &self.client_key {
                Some(key) => e.bytes(key.as_bytes())?,
                None => e.null()?,
            };
            e.bytes(self.server_key.as_bytes())?
                .bytes(nonce)?
                .bytes(self.service.as_bytes())?
                .bytes(self.policy.as_bytes())?;
            Ok(())
        })();
        e.into_writer()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bound_to_each_part_of_a_connection() {
        let base = Connection {
            exporter: [1; 32],
            client_key: Some(Digest([2; 32])),
            server_key: Digest([3; 32]),
            service: ServiceId([4; 32]),
            policy: Digest([5; 32]),
        };
        let data = base.report_data(Role::Server, &[5; 32]);
        let others = [
            base.report_data(Role::Client, &[5; 32]),
            base.report_data(Role::Server, &[6; 32]),
            Connection {
                exporter: [9; 32],
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
            Connection {
                client_key: None,
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
            Connection {
                client_key: Some(Digest([9; 32])),
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
            Connection {
                server_key: Digest([9; 32]),
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
            Connection {
                service: ServiceId([9; 32]),
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
            Connection {
                policy: Digest([9; 32]),
                ..base.clone()
            }
            .report_data(Role::Server, &[5; 32]),
        ];
        assert!(others.iter().all(|other| *other != data));
    }
}
