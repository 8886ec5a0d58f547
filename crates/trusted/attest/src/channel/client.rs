//! The side that opens a channel: SeMIRT, with evidence of its own, or a principal's client, without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sesemi_protocol::entropy::{Entropy, random};
use sesemi_protocol::{Digest, PublicIdentity, ServiceId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::ChannelError;
use super::binding::Role;
use super::credential::Credential;
use super::fresh;
use super::handshake::{self, ClientProof, Keys, Opening, ServerProof, Verdict};
use super::stream::Channel;
use super::tls::{self, Filter};
use crate::attester::Attester;
use crate::clock::Clock;
use crate::evidence::Evidence;
use crate::policy::{AppraisalError, AppraisalPolicy};
use crate::verifier::{Claims, EvidenceVerifier};

/// Longest that one step of opening a channel may take.
const STEP: Duration = Duration::from_secs(10);

/// Which KeyService a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedService {
    /// Exactly this one. What every client uses once it knows the id.
    Pinned(ServiceId),
    /// Any with an approved code identity: the first contact, at which the client learns the id and pins it.
    FirstContact,
}

/// By which policy KeyService must appraise the enclaves that it releases keys to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedPolicy {
    /// The one with this digest ([`AppraisalPolicy::digest`]). What everybody demands who entrusts it with keys.
    Exactly(Digest),
    /// Whichever belongs to the service: for SeMIRT, which asks for keys and has none to lose. A service has one policy for
    /// life, so who pinned the service has pinned that.
    OfTheService,
}

/// Opens channels to a KeyService.
pub struct Connector {
    tls: TlsConnector,
    filter: Arc<Filter>,
    service_policy: ExpectedPolicy,
    own: Option<OwnEnclave>,
    entropy: Arc<dyn Entropy>,
}

struct OwnEnclave {
    attester: Arc<dyn Attester>,
    credential: Credential,
}

impl core::fmt::Debug for Connector {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Connector(..)")
    }
}

/// A channel and who is at its other end.
#[derive(Debug)]
pub struct Connected {
    /// The channel.
    pub channel: Channel,
    /// The service, which signed this connection.
    pub service: PublicIdentity,
    /// What its evidence says.
    pub claims: Claims,
}

impl Connector {
    /// For a principal: the server's evidence must satisfy `policy`, and the policy by which the server itself appraises
    /// enclaves must have the digest `service_policy`.
    ///
    /// # Errors
    /// [`ChannelError::Tls`] if TLS cannot be set up.
    pub fn for_principal(
        verifier: EvidenceVerifier,
        policy: AppraisalPolicy,
        service_policy: Digest,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ChannelError> {
        let connector = Self::new(verifier, policy, clock, entropy, None)?;
        Ok(Self {
            service_policy: ExpectedPolicy::Exactly(service_policy),
            ..connector
        })
    }

    /// For an enclave, which gives evidence of itself as well. It waits for the TEE, so it is called before there is
    /// anything to serve.
    ///
    /// # Errors
    /// [`ChannelError`] if the TEE gives no evidence.
    pub fn for_enclave(
        verifier: EvidenceVerifier,
        policy: AppraisalPolicy,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        attester: Arc<dyn Attester>,
    ) -> Result<Self, ChannelError> {
        let credential = Credential::generate(&*attester)?;
        let own = OwnEnclave {
            attester,
            credential,
        };
        Self::new(verifier, policy, clock, entropy, Some(own))
    }

    fn new(
        verifier: EvidenceVerifier,
        policy: AppraisalPolicy,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        own: Option<OwnEnclave>,
    ) -> Result<Self, ChannelError> {
        // Any genuine enclave would pass for KeyService otherwise: only the side that decides each release may do without.
        if !policy.names_code() {
            return Err(AppraisalError::NoReferenceValues.into());
        }
        let filter = Arc::new(Filter::new(verifier, policy, clock));
        let credential = own.as_ref().map(|own| &own.credential);
        let config = tls::client(credential, filter.clone())?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            filter,
            service_policy: ExpectedPolicy::OfTheService,
            own,
            entropy,
        })
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`ChannelError`], which names the step that failed. Nothing secret has been sent then.
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: ExpectedService,
    ) -> Result<Connected, ChannelError> {
        let tcp = timeout(STEP, TcpStream::connect(address))
            .await
            .map_err(|_| ChannelError::TimedOut("accept the connection"))??;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = timeout(STEP, self.tls.connect(name, tcp))
            .await
            .map_err(|_| ChannelError::TimedOut("finish the TLS handshake"))??;
        self.bind(TlsStream::Client(tls), expected).await
    }

    async fn bind(
        &self,
        tls: TlsStream<TcpStream>,
        expected: ExpectedService,
    ) -> Result<Connected, ChannelError> {
        handshake::require_protocol(&tls)?;
        let certificate = handshake::peer_certificate(&tls)
            .ok_or(ChannelError::Role)?
            .to_vec();
        let keys = Keys {
            client: match &self.own {
                Some(own) => Some(handshake::own_key(&own.credential.certificate)?),
                None => None,
            },
            server: handshake::own_key(&certificate)?,
        };
        let mut channel = Channel { tls: Box::new(tls) };
        let nonce = random(&*self.entropy)?;
        let opening = Opening {
            enclave: self.own.is_some(),
            nonce,
        };
        channel.send(&opening, STEP).await?;
        let proof: ServerProof = channel.expect(STEP).await?;

        let service = PublicIdentity::from_key(proof.service_key);
        if let ExpectedService::Pinned(pinned) = expected
            && pinned != service.service_id()
        {
            return Err(ChannelError::OtherService {
                expected: pinned,
                found: service.service_id(),
            });
        }
        let connection =
            handshake::connection(&channel.tls, keys, service.service_id(), proof.policy)?;
        service
            .verify(&connection.service_statement(&nonce), &proof.signature)
            .map_err(|_| ChannelError::NotTheService)?;
        let claims = self.filter.accept(
            &Evidence::from_bytes(proof.evidence.into())?,
            &connection.report_data(Role::Server, &nonce),
        )?;
        if self.filter.certified_code(&certificate)? != claims.code {
            return Err(ChannelError::TwoIdentities);
        }

        if let ExpectedPolicy::Exactly(expected) = self.service_policy
            && expected != proof.policy
        {
            return Err(ChannelError::OtherPolicy {
                expected,
                found: proof.policy,
            });
        }

        if let Some(own) = &self.own {
            let report_data = connection.report_data(Role::Client, &proof.nonce);
            let evidence = fresh::evidence(&own.attester, report_data, STEP).await?;
            let proof = ClientProof {
                evidence: evidence.as_bytes().to_vec().into(),
            };
            channel.send(&proof, STEP).await?;
        }
        let verdict: Verdict = channel.expect(STEP).await?;
        match verdict.refusal {
            Some(refusal) => Err(ChannelError::Refused(refusal)),
            None => Ok(Connected {
                channel,
                service,
                claims,
            }),
        }
    }
}
