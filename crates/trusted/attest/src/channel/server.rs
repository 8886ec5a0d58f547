//! The side that accepts a channel: KeyService.

use std::sync::Arc;
use std::time::Duration;

use sesemi_protocol::entropy::{Entropy, random};
use sesemi_protocol::refusal::{Refusal, RefusalCode};
use sesemi_protocol::{Digest, SigningIdentity};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::binding::{Connection, Role};
use super::credential::Credential;
use super::fresh;
use super::handshake::{self, ClientProof, Keys, Opening, ServerProof, Verdict};
use super::stream::Channel;
use super::tls::{self, Filter};
use super::{ChannelError, Peer};
use crate::attester::Attester;
use crate::clock::Clock;
use crate::evidence::Evidence;
use crate::policy::AppraisalPolicy;
use crate::verifier::{Claims, EvidenceVerifier};

/// Longest that one step of accepting a channel may take.
const STEP: Duration = Duration::from_secs(10);

/// Accepts channels for one service.
pub struct Acceptor {
    tls: TlsAcceptor,
    filter: Arc<Filter>,
    policy: Digest,
    credential: Credential,
    attester: Arc<dyn Attester>,
    identity: Arc<SigningIdentity>,
    entropy: Arc<dyn Entropy>,
}

impl core::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Acceptor(..)")
    }
}

impl Acceptor {
    /// Accepts for the service `identity`, attested by `attester`; enclaves that connect must satisfy `policy`.
    /// It waits for the TEE, so it is called before there is anything to serve.
    ///
    /// # Errors
    /// [`ChannelError`] if the TEE gives no evidence or TLS cannot be set up.
    pub fn new(
        identity: Arc<SigningIdentity>,
        attester: Arc<dyn Attester>,
        verifier: EvidenceVerifier,
        policy: AppraisalPolicy,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, ChannelError> {
        let credential = Credential::generate(&*attester)?;
        let digest = policy.digest()?;
        let filter = Arc::new(Filter::new(verifier, policy, clock));
        let config = tls::server(&credential, filter.clone())?;
        Ok(Self {
            tls: TlsAcceptor::from(Arc::new(config)),
            filter,
            policy: digest,
            credential,
            attester,
            identity,
            entropy,
        })
    }

    /// Accepts one connection.
    ///
    /// # Errors
    /// [`ChannelError`], which names the step that failed; the peer learns no more than that it was refused.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(Channel, Peer), ChannelError> {
        tcp.set_nodelay(true)?;
        let tls = timeout(STEP, self.tls.accept(tcp))
            .await
            .map_err(|_| ChannelError::TimedOut("finish the TLS handshake"))??;
        let tls = TlsStream::Server(tls);
        handshake::require_protocol(&tls)?;
        let certificate = handshake::peer_certificate(&tls).map(<[u8]>::to_vec);
        let keys = Keys {
            client: match &certificate {
                Some(der) => Some(handshake::own_key(der)?),
                None => None,
            },
            server: handshake::own_key(&self.credential.certificate)?,
        };
        let service = self.identity.public().service_id();
        let connection = handshake::connection(&tls, keys, service, self.policy)?;
        let mut channel = Channel { tls: Box::new(tls) };

        let opening: Opening = channel.expect(STEP).await?;
        if opening.enclave != certificate.is_some() {
            return Err(ChannelError::Role);
        }
        let nonce = random(&*self.entropy)?;
        let proof = self.prove(&connection, &opening, nonce).await?;
        channel.send(&proof, STEP).await?;

        let peer = match &certificate {
            None => Ok(Peer::Principal),
            Some(der) => self
                .check_client(&mut channel, &connection, der, &nonce)
                .await
                .map(|claims| Peer::Enclave(Box::new(claims))),
        };
        let refusal = peer
            .is_err()
            .then(|| Refusal::from(RefusalCode::NotAttested));
        channel.send(&Verdict { refusal }, STEP).await?;
        Ok((channel, peer?))
    }

    async fn prove(
        &self,
        connection: &Connection,
        opening: &Opening,
        nonce: [u8; 32],
    ) -> Result<ServerProof, ChannelError> {
        let report_data = connection.report_data(Role::Server, &opening.nonce);
        let evidence = fresh::evidence(&self.attester, report_data, STEP).await?;
        let statement = connection.service_statement(&opening.nonce);
        Ok(ServerProof {
            service_key: *self.identity.public().key(),
            nonce,
            evidence: evidence.as_bytes().to_vec().into(),
            signature: self.identity.sign(&statement).to_vec().into(),
            policy: connection.policy,
        })
    }

    async fn check_client(
        &self,
        channel: &mut Channel,
        connection: &Connection,
        certificate: &[u8],
        nonce: &[u8; 32],
    ) -> Result<Claims, ChannelError> {
        let proof: ClientProof = channel.expect(STEP).await?;
        let claims = self.filter.accept(
            &Evidence::from_bytes(proof.evidence.into())?,
            &connection.report_data(Role::Client, nonce),
        )?;
        if self.filter.certified_code(certificate)? != claims.code {
            return Err(ChannelError::TwoIdentities);
        }
        Ok(claims)
    }
}
