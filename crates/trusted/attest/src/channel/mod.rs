//! The attested channel: TLS 1.3, then proof that this very connection ends where the evidence says.
//!
//! 1. *TLS 1.3.* Nothing older, no resumption, no tickets, no early data. The server's certificate, and that of an enclave
//!    as client, carries evidence for the certificate's key: a first filter, because such evidence can be replayed for as
//!    long as the key lives.
//! 2. *Binding.* Each attested side then gives fresh evidence whose report data is a hash over its role, the TLS exporter,
//!    both public keys, the other side's nonce and the service id ([`binding`]). Relayed, reflected or older evidence
//!    differs in one of them.
//! 3. *Service identity.* KeyService also signs the same facts with its sealed identity key. That tells it from a clone
//!    with the same measurement; clients pin it.
//!
//! Only then do messages flow, each with its length in front. No verification touches the network, and every step has a
//! deadline.

pub mod binding;
mod client;
mod credential;
mod fresh;
mod handshake;
mod server;
mod stream;
mod tls;
mod wiping;

pub use client::{Connected, Connector, ExpectedPolicy, ExpectedService};
pub use credential::Credential;
pub use server::Acceptor;
pub use stream::Channel;

use std::sync::Arc;

use rustls::CertificateError;
use sesemi_protocol::cbor::CborError;
use sesemi_protocol::refusal::Refusal;
use sesemi_protocol::{Digest, ServiceId};

use crate::attester::AttesterError;
use crate::evidence::EvidenceError;
use crate::policy::AppraisalError;
use crate::verifier::{Claims, Rejected, VerifyError};

/// ALPN protocol of the channel; a client of another generation fails at once and clearly.
const ALPN: &[u8] = b"sesemi-channel/1";

/// Why there is no channel, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The network or TLS failed.
    #[error("the connection failed: {0}")]
    Io(std::io::Error),
    /// The evidence in the other side's certificate was refused, which ended the TLS handshake.
    #[error("certificate refused: {0}")]
    Certificate(Arc<dyn core::error::Error + Send + Sync>),
    /// TLS could not be set up.
    #[error("TLS failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The other side speaks another protocol, or another generation of this one.
    #[error("the other side does not speak this version of the channel")]
    OtherProtocol,
    /// A step took too long.
    #[error("the other side did not {0} in time")]
    TimedOut(&'static str),
    /// A message is not of the expected form.
    #[error("the other side sent a malformed message: {0}")]
    Malformed(#[from] CborError),
    /// A message is longer than allowed.
    #[error("the other side announced a message of {0} bytes, above the limit")]
    TooLong(u32),
    /// This side's TEE failed.
    #[error(transparent)]
    Attester(#[from] AttesterError),
    /// A certificate or evidence could not be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The peer's evidence does not verify.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The peer's evidence verifies, but the policy wants other code.
    #[error(transparent)]
    Appraisal(#[from] AppraisalError),
    /// The certificate and the connection speak for different code.
    #[error("the peer's certificate and its fresh evidence speak for different code")]
    TwoIdentities,
    /// The service did not prove its identity.
    #[error("the service's signature over this connection does not verify")]
    NotTheService,
    /// It is a genuine KeyService, but another one than the pinned.
    #[error("this is KeyService {found}, not {expected}: a clone, or the wrong address")]
    OtherService {
        /// What was pinned.
        expected: ServiceId,
        /// Who answered.
        found: ServiceId,
    },
    /// It is a genuine KeyService, but its demands on enclaves are not those that were agreed.
    #[error(
        "this KeyService appraises enclaves by the policy {found}, not by {expected}: give the policy file that it uses, if you approve it, or none if it uses the default"
    )]
    OtherPolicy {
        /// Digest of the policy that was expected.
        expected: Digest,
        /// Digest of the policy that it uses.
        found: Digest,
    },
    /// An enclave's role needs evidence in the client's certificate.
    #[error("the client's role and its certificate do not agree")]
    Role,
    /// The other side refused.
    #[error("refused by the other side: {0}")]
    Refused(Refusal),
    /// Randomness is missing.
    #[error(transparent)]
    Entropy(#[from] sesemi_protocol::EntropyError),
    /// A task of this process ended early.
    #[error("an internal task ended early")]
    Task,
}

impl From<std::io::Error> for ChannelError {
    /// The reason is in the sentence, so it is no cause to be told once more. One of ours comes back out of TLS's.
    fn from(error: std::io::Error) -> Self {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(reason))) => {
                Self::Certificate(reason.0.clone())
            }
            _ => Self::Io(error),
        }
    }
}

impl From<Rejected> for ChannelError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Verify(error) => Self::Verify(error),
            Rejected::Appraisal(error) => Self::Appraisal(error),
        }
    }
}

/// Who is at the other end of a server's channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An enclave whose evidence verified, bound to this connection.
    Enclave(Box<Claims>),
    /// Somebody without evidence: a principal, who signs its commands.
    Principal,
}

#[cfg(test)]
mod tests {
    #[test]
    fn errors_are_sentences() {
        let error = super::ChannelError::TimedOut("finish the TLS handshake");
        assert_eq!(
            error.to_string(),
            "the other side did not finish the TLS handshake in time"
        );
    }
}
